//! A file system in user space that passes everything on to a folder, but refuses direct I/O: a stand-in for the
//! network file systems that programs meet.
//!
//! `passthrough FOLDER MOUNT_POINT` serves until it is unmounted. It prints `mounted` once it can be used. The folder
//! is flat: it has no folders in it. What was read stays in the kernel's page cache, as on a local disk.

mod folder;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use folder::Folder;
use fuser::{
    BsdFileFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, TimeOrNow, WriteFlags,
};

const LIFETIME: Duration = Duration::from_secs(60);
const N_THREADS: usize = 4;
const TRANSFER_BYTES: u32 = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder, mount_point] = arguments.as_slice() else {
        eprintln!("usage: passthrough FOLDER MOUNT_POINT");
        return ExitCode::FAILURE;
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("passthrough".into())];
    config.n_threads = Some(N_THREADS);
    config.clone_fd = true;
    let served = Session::new(
        Passthrough(Folder::new(folder.into())),
        mount_point,
        &config,
    )
    .and_then(|session| session.spawn())
    .and_then(|session| {
        println!("mounted");
        session.join()
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("passthrough: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Passthrough(Folder);

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A kernel that wants less says how much, and gets it.
        if let Err(most) = config.set_max_write(TRANSFER_BYTES) {
            config.set_max_write(most).ok();
        }
        if let Err(most) = config.set_max_readahead(TRANSFER_BYTES) {
            config.set_max_readahead(most).ok();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.look_up(name) {
            Ok(attributes) => reply.entry(&LIFETIME, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attributes(inode) {
            Ok(attributes) => reply.attr(&LIFETIME, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _user: Option<u32>,
        _group: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _created: Option<std::time::SystemTime>,
        _written: Option<std::time::SystemTime>,
        _backed_up: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.0.change(inode, mode, size) {
            Ok(attributes) => reply.attr(&LIFETIME, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn unlink(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.remove(name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.is_empty() {
            done(self.0.rename(name, new_name), reply);
        } else {
            reply.error(Errno::EINVAL);
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(inode, flags.0) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.0.create(name, mode, flags) {
            Ok((handle, attributes)) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&LIFETIME, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        size_bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle, position, size_bytes as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        position: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(handle, position, bytes) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        done(self.0.sync(handle, data_only), reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(handle);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        position: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.0.list() {
            Ok(entries) => {
                for (place, (inode, kind, name)) in (1..).zip(entries).skip(position as usize) {
                    if reply.add(inode, place, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Room enough for whoever asks.
        reply.statfs(1 << 30, 1 << 29, 1 << 29, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

fn done(outcome: std::io::Result<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}
