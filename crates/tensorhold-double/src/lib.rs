//! A stand-in for the CUDA and HIP runtimes over host memory, for tests.
//!
//! The shared library of this crate exports the functions of both runtimes that loaders use. Device memory is
//! host memory of its own; each stream is a thread with a queue, so that copies happen after the call that asks
//! for them, and in any order between streams. It counts what is called, and notes what a real runtime would
//! punish, or worse, not notice: memory freed under a copy, a copy out of bounds, a call after fork.
//!
//! ```no_run
//! // In a test of another crate, which names this one among its `dev-dependencies`:
//! let runtime = tensorhold_double::library();
//! println!("TENSORHOLD_RUNTIME={}", runtime.display());
//! ```
//!
//! # Configuration
//!
//! The variable `TENSORHOLD_DOUBLE` is read at the first call; `int tensorhold_double_configure(const char *)`
//! takes the same text later, and returns 0, or 1 where it is wrong and nothing was changed. It is a list of
//! `key=value`, separated by commas; a key that is not named stays as it is.
//!
//! | key | meaning | at first |
//! |---|---|---|
//! | `devices` | how many devices there are | 2 |
//! | `memory_mb` | memory of each device | 16384 |
//! | `integrated` | 1: the devices say that they share the host's memory | 0 |
//! | `gb_per_s` | 10⁹ bytes a second and direction that all streams of a device share; 0: no limit | 0 |
//! | `latency_us` | what each copy takes on its stream besides | 0 |
//! | `delay_us` | how long each copy waits before it begins | 0 |
//! | `seed` | a number: each copy waits for a random share of `delay_us` | none |
//! | `held` | 1: no copy begins until `held=0`; for tests that must not depend on a clock | 0 |
//! | `register_max_mb` | a single registration of more is refused (code 2) | none |
//! | `pinned_mb` | registered and allocated pinned memory together; more is refused (code 2) | none |
//! | `scribble` | 1: bytes that may no longer be read become 0xDB, see below | 0 |
//! | `reuse` | 1: all freed device memory is kept, for allocations of the same size; for timings | 0 |
//! | `gds` | 0: there is no driver for reads of files into devices | 1 |
//! | `gds_compat` | 1: it cannot be set that such reads are direct or fail | 0 |
//! | `gds_most` | a single such read gives no more bytes | none |
//! | `gds_closes` | 1: a driver that does not start closes descriptor 0, as a real one may | 0 |
//! | `fail` | `NAME:N:CODE`: call N (0: each) of NAME, counted from now on, fails with CODE | none |
//!
//! `fail` may be given several times; an empty one takes all back. NAME is CUDA's without its prefix. With
//! `NAME:N:CODE:async`, for copies only, the call succeeds, nothing is copied, and every later call that waits,
//! asks or submits fails with CODE until the reset.
//! `FileRead` fails with its library's code where CODE is 5000 or more, else with the system's error of that number.
//!
//! With `scribble=1`, the pinned source of a copy to a device is overwritten as soon as the copy has happened,
//! unless another copy under way reads it; so is pinned memory that is unregistered, and device memory that is
//! freed. Who reuses or frees memory too early is not helped by it, but whoever reads late sees 0xDB. A program
//! that sends the same bytes of a slot twice must send both before either happens.
//!
//! # Report
//!
//! `size_t tensorhold_double_report(char *buffer, size_t length)` writes JSON, cut to `length - 1` bytes and ended
//! by a zero, and returns the bytes of the whole text, which may have grown at the next call. `tensorhold_double_reset()` sets back the configuration, the
//! counts, the peaks, the contexts and the violations; what is alive stays.
//! `int tensorhold_double_version()` tells the double from a runtime.
//!
//! # What differs from the runtimes
//!
//! There are no kernels, graphs, peers or managed memory, and events have no times. The stream of each thread
//! (`cudaStreamPerThread`) is the default stream. An address that is neither device memory nor pinned may stand
//! for either side of a copy: tensors of a framework without a device serve as its device memory. Freed device
//! memory is kept for a while, so that its use can be told. Handles are numbers, never used twice. The library
//! cannot be unloaded once it has a stream.
//!
//! The crate also comes as a Rust library, for [`library`]; a program that links it contains the exported
//! functions too, which nothing outside of it sees.

mod block;
mod call;
mod config;
mod copy;
mod device;
mod error;
mod event;
mod exports;
mod fail;
mod find;
mod gds;
mod memory;
mod pace;
mod ranges;
mod report;
mod state;
mod stream;

pub use find::{hip_library, library};
