//! Reads of one file that the system has in flight at once, on a ring of Linux.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, opcode, types};

/// As many reads as one ring has in flight.
pub(crate) const MAX_RING_READS: usize = 8;

/// What became of each read; `WouldBlock` for one that the system did not begin.
pub(crate) type RingResults = [io::Result<usize>; MAX_RING_READS];

pub(crate) struct Ring {
    ring: IoUring,
    /// A child has the same ring as its parent, and would find the other's reads in it.
    process: u32,
    /// A read may be left in it that the system did not begin and must not begin.
    is_spent: bool,
}

impl Ring {
    /// # Errors
    /// Where the system has no rings, or does not let us have one.
    pub(crate) fn set_up() -> io::Result<Ring> {
        Ok(Ring {
            ring: IoUring::new(MAX_RING_READS as u32)?,
            process: std::process::id(),
            is_spent: false,
        })
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.is_spent && self.process == std::process::id()
    }

    /// Has the system begin the reads that are asked for, and waits until `n_wanted` are over.
    pub(crate) fn enter(&self, n_wanted: usize) -> io::Result<()> {
        self.ring.submit_and_wait(n_wanted).map(drop)
    }

    /// Reads `into` from `position` on in pieces of `piece_bytes`, all at once, by the `enter` that is given.
    ///
    /// # Errors
    /// What `enter` gives; what was begun has its result nevertheless.
    pub(crate) fn read(
        &mut self,
        file: &File,
        position: u64,
        into: &mut [u8],
        piece_bytes: usize,
        enter: fn(&Ring, usize) -> io::Result<()>,
    ) -> (RingResults, io::Result<()>) {
        let mut results = std::array::from_fn(|_| Err(io::ErrorKind::WouldBlock.into()));
        self.is_spent = true;
        let mut flight = Flight {
            ring: self,
            results: &mut results,
            n_asked: 0,
            n_over: 0,
            memory: PhantomData,
        };
        flight.ask(file, position, into, piece_bytes);
        let entered = flight.finish(enter);
        let is_whole = flight.n_over == flight.n_asked;
        drop(flight);
        self.is_spent = !is_whole;
        (results, entered)
    }
}

/// Reads that were asked for. Where it ends, by a panic too, no read is in flight.
struct Flight<'a> {
    ring: &'a mut Ring,
    results: &'a mut RingResults,
    n_asked: usize,
    n_over: usize,
    /// The system writes to it meanwhile, and nobody else touches it.
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Flight<'a> {
    fn ask(&mut self, file: &'a File, position: u64, into: &'a mut [u8], piece_bytes: usize) {
        let (start, len) = (into.as_mut_ptr(), into.len());
        for offset in (0..len).step_by(piece_bytes).take(MAX_RING_READS) {
            let size = piece_bytes.min(len - offset);
            let Ok(size_bytes) = u32::try_from(size) else {
                return;
            };
            let descriptor = types::Fd(file.as_raw_fd());
            let read = opcode::Read::new(descriptor, start.wrapping_add(offset), size_bytes)
                .offset(position + offset as u64)
                .build()
                .user_data(self.n_asked as u64);
            // SAFETY: the system writes to `size` bytes from `offset` on, which lie inside `into`. That slice, and `file`,
            // are borrowed for `'a`, thus until this flight ends, and nothing here touches them meanwhile. The flight
            // is on the stack of `Ring::read` and does not leave it, so that its drop runs on every path out of there;
            // and that does not end before all reads that the system has begun are over. One that it has not begun
            // is never begun: that happens in `enter` alone, on this ring, which `is_spent` keeps from being used again.
            if unsafe { self.ring.ring.submission().push(&read) }.is_err() {
                return;
            }
            self.n_asked += 1;
        }
    }

    fn finish(&mut self, enter: fn(&Ring, usize) -> io::Result<()>) -> io::Result<()> {
        loop {
            self.collect();
            if self.n_over == self.n_asked {
                return Ok(());
            }
            match enter(self.ring, self.n_asked - self.n_over) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
        }
    }

    /// Takes the results that are there.
    fn collect(&mut self) {
        for result in self.ring.ring.completion() {
            self.n_over += 1;
            if let Some(place) = self.results.get_mut(result.user_data() as usize) {
                *place = usize::try_from(result.result())
                    .map_err(|_| io::Error::from_raw_os_error(-result.result()));
            }
        }
    }

    /// How many reads the system has taken from the queue and not ended. Its own count of what it took is the only one that holds
    /// where `enter` failed.
    fn n_in_flight(&mut self) -> usize {
        let n_waiting = self.ring.ring.submission().len();
        self.n_asked - n_waiting - self.n_over
    }

    /// Waits for a read that is in flight, and begins none.
    fn wait(&self, n_wanted: u32) {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no read is begun, and no argument is given.
        let waited = unsafe {
            self.ring
                .ring
                .submitter()
                .enter::<libc::sigset_t>(0, n_wanted, flags, None)
        };
        if waited.is_err() {
            // The results come without a call as well.
            thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.collect();
        while let n_left @ 1.. = self.n_in_flight() {
            self.wait(n_left as u32);
            self.collect();
        }
    }
}
