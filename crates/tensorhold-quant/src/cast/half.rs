//! F16 to F32 and back by the instructions for it, which give what `decode` and `encode` compute.

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_storeu_ps, _mm256_storeu_si256, _mm512_cvtph_ps,
    _mm512_cvtps_ph, _mm512_loadu_ps, _mm512_storeu_ps,
};

use super::decode::{self, decode_all};
use super::encode::{self, encode_all};

#[target_feature(enable = "f16c")]
pub(super) fn decode_f16c(bytes: &[u8], into: &mut [[u8; 4]]) {
    let (halves, rest) = bytes.as_chunks::<16>();
    let (singles, into) = into.as_chunks_mut::<8>();
    for (halves, singles) in halves.iter().zip(singles) {
        // SAFETY: F16C and AVX are enabled for this function. `halves` are the 16 bytes that are loaded and
        // `singles` the 32 that are stored; neither instruction asks for alignment.
        unsafe {
            let halves = _mm_loadu_si128(halves.as_ptr().cast());
            _mm256_storeu_ps(singles.as_mut_ptr().cast(), _mm256_cvtph_ps(halves));
        }
    }
    decode_all::<decode::F16>(rest, into);
}

#[target_feature(enable = "f16c")]
pub(super) fn encode_f16c(singles: &[[u8; 4]], into: &mut [u8]) {
    let (singles, rest) = singles.as_chunks::<8>();
    let (halves, into) = into.as_chunks_mut::<16>();
    for (singles, halves) in singles.iter().zip(halves) {
        // SAFETY: F16C and AVX are enabled for this function. `singles` are the 32 bytes that are loaded
        // and `halves` the 16 that are stored; neither instruction asks for alignment.
        unsafe {
            let singles = _mm256_loadu_ps(singles.as_ptr().cast());
            let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(singles);
            _mm_storeu_si128(halves.as_mut_ptr().cast(), rounded);
        }
    }
    encode_all::<encode::F16>(rest, into);
}

#[target_feature(enable = "avx512f")]
pub(super) fn decode_avx512(bytes: &[u8], into: &mut [[u8; 4]]) {
    let (halves, rest) = bytes.as_chunks::<32>();
    let (singles, into) = into.as_chunks_mut::<16>();
    for (halves, singles) in halves.iter().zip(singles) {
        // SAFETY: AVX-512F is enabled for this function. `halves` are the 32 bytes that are loaded and
        // `singles` the 64 that are stored; neither instruction asks for alignment.
        unsafe {
            let halves = _mm256_loadu_si256(halves.as_ptr().cast());
            _mm512_storeu_ps(singles.as_mut_ptr().cast(), _mm512_cvtph_ps(halves));
        }
    }
    decode_all::<decode::F16>(rest, into);
}

#[target_feature(enable = "avx512f")]
pub(super) fn encode_avx512(singles: &[[u8; 4]], into: &mut [u8]) {
    let (singles, rest) = singles.as_chunks::<16>();
    let (halves, into) = into.as_chunks_mut::<32>();
    for (singles, halves) in singles.iter().zip(halves) {
        // SAFETY: AVX-512F is enabled for this function. `singles` are the 64 bytes that are loaded and
        // `halves` the 32 that are stored; neither instruction asks for alignment.
        unsafe {
            let singles = _mm512_loadu_ps(singles.as_ptr().cast());
            let rounded = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(singles);
            _mm256_storeu_si256(halves.as_mut_ptr().cast(), rounded);
        }
    }
    encode_all::<encode::F16>(rest, into);
}
