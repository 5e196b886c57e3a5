//! Saves that go on after the call.
//!
//! ```text
//! take a place in the line for the target
//! copy the last bytes of the files, as many as there is room for
//! if not all were copied: wait for the turn, and write the rest
//! return; a thread of its own then writes the copies and puts the files in place
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tensorhold_core::{Error, ErrorKind, Layout, Result, SavePlan, TensorSpec, layout};
use tensorhold_io::{AtomicFile, available_memory, check_interrupt};

use super::image::Image;
use super::parallel::{self, Content, Live};
use super::shards::{ShardNames, shard_target, split, total_size};
use super::{SaveOptions, TensorView, Turn, require_sizes};

/// The most memory for copies, where the system does not tell how much is free.
const LIMIT_BYTES: u64 = 1 << 30;

/// How often who waits asks whether to go on waiting.
const PATIENCE: Duration = Duration::from_millis(50);

/// How a save in the background is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackgroundOptions {
    /// Alignment and durability.
    pub save: SaveOptions,
    /// A new shard begins where the tensors of one would take more bytes.
    pub max_shard_bytes: Option<u64>,
    /// The most memory for copies; half of what is free where it is `None`.
    pub memory_limit_bytes: Option<u64>,
}

/// Is told how many bytes of tensors were written so far, by whatever thread writes; ends the save by an error.
pub type BackgroundProgress = Box<dyn FnMut(u64) -> Result<()> + Send>;

/// The paths that were written, or why they were not.
pub type Outcome = std::result::Result<Vec<PathBuf>, Arc<Error>>;

/// A save that goes on. Clones are the same save; it goes on when they are dropped.
#[derive(Debug, Clone)]
pub struct PendingSave {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outcome: Mutex<Option<Outcome>>,
    is_done: Condvar,
    /// A child that was forked has not the thread that saves.
    process: u32,
}

/// Saves `tensors` as [`save_views`](super::save_views) and [`save_view_shards`](super::save_view_shards) do, while the caller goes on.
///
/// On return every byte is copied or written, so that the tensors may be changed. Where the copies would take more memory than
/// the limit, the call itself writes what they do not hold. Saves to one target are ordered by their calls.
/// `when_done` is called last, in the thread that saved.
///
/// # Errors
/// Those of [`layout`](tensorhold_core::layout), `InvalidTensor`, `InvalidArgument`, `Interrupted`, and `Device` where bytes cannot be copied
/// from a device; what goes wrong with files is told by [`PendingSave::wait`].
pub fn save_in_background(
    target: impl AsRef<Path>,
    tensors: &[TensorView<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &BackgroundOptions,
    progress: BackgroundProgress,
    when_done: impl FnOnce() + Send + 'static,
) -> Result<PendingSave> {
    let mut files = drafts(tensors, metadata, options)?;
    let mut save = Save::queue(target.as_ref(), tensors, options, &files, progress)?;
    copy(&mut files, tensors, options)?;
    let begun = match files.iter().all(|file| file.image.writes().start == 0) {
        true => Ok(Vec::new()),
        false => save.begin(&files, tensors),
    };
    let begun = match begun {
        Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
        begun => begun,
    };
    let pending = PendingSave::new();
    let finisher = Finisher {
        shared: Arc::clone(&pending.shared),
        when_done: Some(when_done),
    };
    let work = move || finisher.finish(begun.and_then(|begun| save.complete(&files, begun)));
    // Without a thread the work is dropped, which its finisher tells.
    let _ = thread::Builder::new()
        .name("tensorhold-save".to_owned())
        .spawn(work);
    Ok(pending)
}

impl PendingSave {
    fn new() -> PendingSave {
        PendingSave {
            shared: Arc::new(Shared {
                outcome: Mutex::new(None),
                is_done: Condvar::new(),
                process: std::process::id(),
            }),
        }
    }

    /// How it ended; `None` while it goes on.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        if self.shared.process != std::process::id() {
            let message = "the save belongs to the process that this one was forked from";
            return Some(Err(Arc::new(Error::new(ErrorKind::Closed, message))));
        }
        self.shared.lock().clone()
    }

    /// How it ended; `None` if it still goes on after `timeout`.
    ///
    /// # Errors
    /// `Interrupted`, for the waiting alone: the save goes on.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Outcome>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let outcome = self.outcome();
            if outcome.is_some() {
                return Ok(outcome);
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => PATIENCE,
            };
            if left.is_zero() {
                return Ok(None);
            }
            let outcome = self.shared.lock();
            if outcome.is_none() {
                drop(
                    self.shared
                        .is_done
                        .wait_timeout(outcome, left.min(PATIENCE)),
                );
            }
            check_interrupt()?;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        // It is set whole or not at all.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how the save ended, however its thread ends.
struct Finisher<F: FnOnce()> {
    shared: Arc<Shared>,
    when_done: Option<F>,
}

impl<F: FnOnce()> Finisher<F> {
    fn finish(self, result: Result<Vec<PathBuf>>) {
        *self.shared.lock() = Some(result.map_err(Arc::new));
    }
}

impl<F: FnOnce()> Drop for Finisher<F> {
    fn drop(&mut self) {
        self.shared.lock().get_or_insert_with(|| {
            let message = "the thread that saves could not be started, or ended early";
            Err(Arc::new(Error::new(ErrorKind::Io, message)))
        });
        self.shared.is_done.notify_all();
        if let Some(when_done) = self.when_done.take() {
            when_done();
        }
    }
}

/// One file that is to be written.
struct Draft {
    /// Its tensors, of all.
    tensors: Range<usize>,
    layout: Layout,
    plan: SavePlan,
    image: Image,
}

fn drafts(
    tensors: &[TensorView<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &BackgroundOptions,
) -> Result<Vec<Draft>> {
    let specs: Vec<TensorSpec<'_>> = tensors.iter().map(|tensor| tensor.spec).collect();
    let shards = match options.max_shard_bytes {
        Some(max) => split(&specs, max)?,
        None => std::iter::once(0..specs.len()).collect(),
    };
    let draft = |tensors_of: Range<usize>| {
        let layout = layout(&specs[tensors_of.clone()], metadata, &options.save.layout())?;
        require_sizes(&tensors[tensors_of.clone()], &layout)?;
        let plan = parallel::plan(&layout);
        Ok(Draft {
            tensors: tensors_of,
            image: Image::allocate(&plan, 0),
            layout,
            plan,
        })
    };
    shards.into_iter().map(draft).collect()
}

/// Copies from the end of the last file towards the start of the first, as far as there is room.
fn copy(
    files: &mut [Draft],
    tensors: &[TensorView<'_>],
    options: &BackgroundOptions,
) -> Result<()> {
    let free = || available_memory().map_or(LIMIT_BYTES, |free| free / 2);
    let mut room = options.memory_limit_bytes.unwrap_or_else(free);
    for file in files.iter_mut().rev() {
        file.image = Image::allocate(&file.plan, room);
        room -= file.image.size_bytes(&file.plan);
        file.with_live(tensors, |live| file.image.fill(live))?;
        if file.image.writes().start > 0 {
            return Ok(());
        }
    }
    Ok(())
}

impl Draft {
    fn with_live<T>(&self, tensors: &[TensorView<'_>], work: impl FnOnce(&dyn Content) -> T) -> T {
        let tensors = &tensors[self.tensors.clone()];
        work(&Live::new(&self.layout, &self.plan, tensors))
    }
}

/// What the call leaves to its thread.
struct Save {
    /// Given up when the files are in place.
    turn: Turn,
    /// As the caller named it, for the paths that are told.
    given: PathBuf,
    /// Where it was when the save was called for, whatever the working directory is by now.
    target: PathBuf,
    options: BackgroundOptions,
    names: Option<ShardNames>,
    n_files: usize,
    shard_of: Vec<(String, usize)>,
    total_size: u64,
    /// Bytes of tensors.
    n_done: u64,
    progress: BackgroundProgress,
}

impl Save {
    fn queue(
        target: &Path,
        tensors: &[TensorView<'_>],
        options: &BackgroundOptions,
        files: &[Draft],
        progress: BackgroundProgress,
    ) -> Result<Save> {
        let place = match options.max_shard_bytes {
            Some(_) => shard_target(target)?,
            None => target.to_owned(),
        };
        let shard_of = files.iter().enumerate().flat_map(|(n, file)| {
            let names = tensors[file.tensors.clone()].iter();
            names.map(move |tensor| (tensor.spec.name.to_owned(), n))
        });
        let specs: Vec<TensorSpec<'_>> = tensors.iter().map(|tensor| tensor.spec).collect();
        Ok(Save {
            turn: Turn::queue(&place),
            given: place,
            target: std::path::absolute(target).unwrap_or_else(|_| target.to_owned()),
            options: *options,
            names: None,
            n_files: files.len(),
            shard_of: shard_of.collect(),
            total_size: total_size(&specs)?,
            n_done: 0,
            progress,
        })
    }

    /// Writes what was not copied; the files so far.
    fn begin(&mut self, files: &[Draft], tensors: &[TensorView<'_>]) -> Result<Vec<AtomicFile>> {
        self.turn.wait()?;
        let mut begun = Vec::new();
        for (n, draft) in files.iter().enumerate() {
            let end = draft.image.writes().start;
            if end == 0 {
                break;
            }
            let mut file = self.create(n, draft)?;
            draft.with_live(tensors, |live| self.write(&mut file, draft, 0..end, live))?;
            if draft.image.writes().is_empty() {
                file.prepare()?;
            }
            begun.push(file);
        }
        self.turn.hand_over();
        Ok(begun)
    }

    /// Writes what was copied, and puts the files in place.
    fn complete(&mut self, files: &[Draft], begun: Vec<AtomicFile>) -> Result<Vec<PathBuf>> {
        self.turn.wait()?;
        let mut begun = begun.into_iter();
        let mut ready = Vec::new();
        for (n, draft) in files.iter().enumerate() {
            let mut file = match begun.next() {
                Some(file) => file,
                None => self.create(n, draft)?,
            };
            let writes = draft.image.writes();
            if !writes.is_empty() {
                self.write(&mut file, draft, writes, &draft.image)?;
                file.prepare()?;
            }
            ready.push(file);
        }
        self.commit(ready)
    }

    fn create(&mut self, n: usize, draft: &Draft) -> Result<AtomicFile> {
        if self.options.max_shard_bytes.is_some() && self.names.is_none() {
            self.names = Some(ShardNames::of(&self.target)?);
        }
        let path = match &self.names {
            Some(names) => names.path(n, self.n_files),
            None => self.target.clone(),
        };
        let durability = self.options.save.durability;
        AtomicFile::create(&path, Some(draft.layout.file_size), durability)
    }

    fn write(
        &mut self,
        file: &mut AtomicFile,
        draft: &Draft,
        writes: Range<u64>,
        content: &dyn Content,
    ) -> Result<()> {
        let size_bytes: u64 = writes
            .clone()
            .map(|write| draft.plan.range(write).len())
            .sum();
        // The head, which no tensor has part in, is in the first write.
        let head = match writes.start {
            0 => draft.layout.head.len() as u64,
            _ => 0,
        };
        let before = self.n_done;
        let progress = &mut self.progress;
        let mut progress = |n: u64| progress(before + n.saturating_sub(head));
        parallel::write(file, &draft.plan, writes, content, &mut progress)?;
        self.n_done += size_bytes.saturating_sub(head);
        (self.progress)(self.n_done)
    }

    fn commit(&mut self, files: Vec<AtomicFile>) -> Result<Vec<PathBuf>> {
        let Some(names) = &self.names else {
            for file in files {
                file.commit()?;
            }
            return Ok(vec![self.given.clone()]);
        };
        let shard_of = self.shard_of.iter().map(|(name, n)| (name.as_str(), *n));
        let durability = self.options.save.durability;
        let written = names.commit(files, shard_of, self.total_size, durability)?;
        let as_given = |path: &PathBuf| match path.file_name() {
            Some(name) => self.given.with_file_name(name),
            None => path.clone(),
        };
        Ok(written.iter().map(as_given).collect())
    }
}
