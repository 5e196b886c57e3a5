//! The folder behind the file system: its files by inode, and those that are open.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use fuser::{FileAttr, FileHandle, FileType, INodeNo};

/// A flat folder.
pub struct Folder {
    path: PathBuf,
    /// The name of each file that was looked up. Inodes are the backing files' own, but for the root's.
    names: Mutex<HashMap<u64, OsString>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next_handle: AtomicU64,
}

impl Folder {
    /// Nothing is looked up yet.
    pub fn new(path: PathBuf) -> Folder {
        let (names, files, next_handle) = Default::default();
        Folder {
            path,
            names,
            files,
            next_handle,
        }
    }

    /// The attributes of the file `name`, whose inode is known from here on.
    pub fn look_up(&self, name: &OsStr) -> io::Result<FileAttr> {
        let metadata = fs::symlink_metadata(self.path.join(name))?;
        lock(&self.names).insert(metadata.ino(), name.into());
        Ok(attributes(INodeNo(metadata.ino()), &metadata))
    }

    /// The attributes of a file that was looked up, or of the root.
    pub fn attributes(&self, inode: INodeNo) -> io::Result<FileAttr> {
        Ok(attributes(
            inode,
            &fs::symlink_metadata(self.path_of(inode)?)?,
        ))
    }

    /// Sets the mode and the size, where given.
    pub fn change(
        &self,
        inode: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
    ) -> io::Result<FileAttr> {
        let path = self.path_of(inode)?;
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(size) = size {
            OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        }
        self.attributes(inode)
    }

    /// Opens a file; refuses to do so for direct I/O.
    pub fn open(&self, inode: INodeNo, flags: i32) -> io::Result<FileHandle> {
        let file = options(flags)?.open(self.path_of(inode)?)?;
        Ok(self.keep(file))
    }

    /// Makes a file and opens it; refuses to do so for direct I/O.
    pub fn create(
        &self,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> io::Result<(FileHandle, FileAttr)> {
        let mut options = options(flags)?;
        let file = options
            .write(true)
            .create(true)
            .mode(mode)
            .open(self.path.join(name))?;
        Ok((self.keep(file), self.look_up(name)?))
    }

    /// As many bytes as there are, up to `size_bytes`.
    pub fn read(
        &self,
        handle: FileHandle,
        position: u64,
        size_bytes: usize,
    ) -> io::Result<Vec<u8>> {
        let (file, mut bytes, mut n_read) = (self.file(handle)?, vec![0; size_bytes], 0);
        while n_read < size_bytes {
            match file.read_at(&mut bytes[n_read..], position + n_read as u64)? {
                0 => break,
                more => n_read += more,
            }
        }
        bytes.truncate(n_read);
        Ok(bytes)
    }

    /// Writes all of `bytes`.
    pub fn write(&self, handle: FileHandle, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(handle)?.write_all_at(bytes, position)
    }

    /// Waits until the file is on disk.
    pub fn sync(&self, handle: FileHandle, data_only: bool) -> io::Result<()> {
        let file = self.file(handle)?;
        if data_only {
            file.sync_data()
        } else {
            file.sync_all()
        }
    }

    /// Forgets an open file.
    pub fn close(&self, handle: FileHandle) {
        lock(&self.files).remove(&handle.0);
    }

    /// Removes a name.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// Gives a file another name, over what had it.
    pub fn rename(&self, name: &OsStr, new_name: &OsStr) -> io::Result<()> {
        fs::rename(self.path.join(name), self.path.join(new_name))?;
        self.look_up(new_name).map(drop)
    }

    /// What the folder has in it.
    pub fn list(&self) -> io::Result<Vec<(INodeNo, FileType, OsString)>> {
        let dots = [".", ".."].map(|name| (INodeNo::ROOT, FileType::Directory, name.into()));
        let mut entries = dots.to_vec();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let inode = INodeNo(entry.metadata()?.ino());
            entries.push((inode, FileType::RegularFile, entry.file_name()));
        }
        Ok(entries)
    }

    fn path_of(&self, inode: INodeNo) -> io::Result<PathBuf> {
        if inode == INodeNo::ROOT {
            return Ok(self.path.clone());
        }
        let names = lock(&self.names);
        let name = names.get(&inode.0).ok_or_else(|| errno(libc::ESTALE))?;
        Ok(self.path.join(name))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        lock(&self.files)
            .get(&handle.0)
            .cloned()
            .ok_or_else(|| errno(libc::EBADF))
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(file));
        FileHandle(handle)
    }
}

fn options(flags: i32) -> io::Result<OpenOptions> {
    if flags & libc::O_DIRECT != 0 {
        return Err(errno(libc::EINVAL));
    }
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(flags & libc::O_ACCMODE != libc::O_RDONLY);
    Ok(options)
}

fn attributes(inode: INodeNo, metadata: &Metadata) -> FileAttr {
    FileAttr {
        ino: inode,
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: metadata.accessed().unwrap_or(UNIX_EPOCH),
        mtime: metadata.modified().unwrap_or(UNIX_EPOCH),
        ctime: metadata.modified().unwrap_or(UNIX_EPOCH),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds the lock")
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
