//! How much of the processor's vector instructions the loops may use.

use super::decode::{self, Decode, decode_all};
use super::encode::{self, Encode, encode_all};
#[cfg(target_arch = "x86_64")]
use super::half;

/// A set of instructions that this processor has.
///
/// **Invariant:** only this module makes one, and only of a [`Kind`] that was detected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level(Kind);

/// Loops that are compiled once for every level.
pub(crate) trait Work {
    /// Does it. Only what is inlined here gains by the level, so that this and what it calls is `inline(always)`.
    fn run(self);
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// What the program was compiled for.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this processor has.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                return Level(Kind::Avx512);
            }
            if has_avx2() {
                return Level(Kind::Avx2);
            }
        }
        Level(Kind::Portable)
    }

    /// All that this processor has, the best last.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Level> {
        let mut levels = vec![Level(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(has_avx2().then_some(Level(Kind::Avx2)));
            levels.extend(matches!(Level::detect().0, Kind::Avx512).then(Level::detect));
        }
        levels
    }

    /// Does `work` with these instructions.
    pub(crate) fn run(self, work: impl Work) {
        match self.0 {
            Kind::Portable => work.run(),
            // SAFETY: the function is safe but for needing AVX2, and by the invariant of `Level` this
            // kind exists only where `has_avx2` found it.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { run_avx2(work) },
            // SAFETY: as above; this kind exists only where all four of its features were found.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { run_avx512(work) },
        }
    }

    /// [`decode_all`] with these instructions.
    pub(super) fn decode<T: Decode>(self, bytes: &[u8], into: &mut [[u8; 4]]) {
        match self.0 {
            Kind::Portable => decode_all::<T>(bytes, into),
            // SAFETY: the function is safe but for needing AVX2, and by the invariant of `Level` this
            // kind exists only where `has_avx2` found it.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { decode_avx2::<T>(bytes, into) },
            // SAFETY: as above; this kind exists only where all four of its features were found.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { decode_avx512::<T>(bytes, into) },
        }
    }

    /// [`encode_all`] with these instructions.
    pub(super) fn encode<T: Encode>(self, singles: &[[u8; 4]], into: &mut [u8]) {
        match self.0 {
            Kind::Portable => encode_all::<T>(singles, into),
            // SAFETY: the function is safe but for needing AVX2, and by the invariant of `Level` this
            // kind exists only where `has_avx2` found it.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { encode_avx2::<T>(singles, into) },
            // SAFETY: as above; this kind exists only where all four of its features were found.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { encode_avx512::<T>(singles, into) },
        }
    }

    /// [`decode_all`] of F16 with these instructions; `into` has as many elements as `bytes`.
    pub(super) fn decode_half(self, bytes: &[u8], into: &mut [[u8; 4]]) {
        match self.0 {
            Kind::Portable => decode_all::<decode::F16>(bytes, into),
            // SAFETY: the function is safe but for needing F16C, without which this kind does not exist.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { half::decode_f16c(bytes, into) },
            // SAFETY: the function is safe but for needing AVX-512F, without which this kind does not exist.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { half::decode_avx512(bytes, into) },
        }
    }

    /// [`encode_all`] to F16 with these instructions; `into` has room for as many elements as `singles`.
    pub(super) fn encode_half(self, singles: &[[u8; 4]], into: &mut [u8]) {
        match self.0 {
            Kind::Portable => encode_all::<encode::F16>(singles, into),
            // SAFETY: the function is safe but for needing F16C, without which this kind does not exist.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { half::encode_f16c(singles, into) },
            // SAFETY: the function is safe but for needing AVX-512F, without which this kind does not exist.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { half::encode_avx512(singles, into) },
        }
    }
}

/// Whether there is AVX2, and F16C with it as in all processors made.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(work: impl Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn run_avx512(work: impl Work) {
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn decode_avx2<T: Decode>(bytes: &[u8], into: &mut [[u8; 4]]) {
    decode_all::<T>(bytes, into);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn decode_avx512<T: Decode>(bytes: &[u8], into: &mut [[u8; 4]]) {
    decode_all::<T>(bytes, into);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_avx2<T: Encode>(singles: &[[u8; 4]], into: &mut [u8]) {
    encode_all::<T>(singles, into);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn encode_avx512<T: Encode>(singles: &[[u8; 4]], into: &mut [u8]) {
    encode_all::<T>(singles, into);
}
