//! What goes from memory to memory by instructions of the processor: copies to memory that is not read soon, past the
//! caches, and bytes into the caches that are copied soon.

/// Fills `into` with `from`, which is as long, by the widest stores of this processor that go past its caches.
///
/// # Panics
/// If the lengths differ.
pub(super) fn stream(from: &[u8], into: &mut [u8]) {
    assert_eq!(
        from.len(),
        into.len(),
        "a copy has the size of its original"
    );
    let first = into.as_ptr().align_offset(LINE_BYTES).min(into.len());
    let middle = (into.len() - first) / BLOCK_BYTES * BLOCK_BYTES;
    let (head, rest) = into.split_at_mut(first);
    let (blocks, tail) = rest.split_at_mut(middle);
    head.copy_from_slice(&from[..first]);
    if middle > 0 {
        blocks_past_caches(&from[first..first + middle], blocks);
    }
    tail.copy_from_slice(&from[first + middle..]);
}

/// Begins to bring `bytes` nearer to the processor, without waiting for them. It changes nothing that can be seen but the time.
#[inline]
pub fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

        // The second cache takes more at once than the first.
        for line in (0..bytes.len()).step_by(LINE_BYTES) {
            // SAFETY: all processors of this architecture have the instruction, and it reads no byte that the program could tell.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().wrapping_add(line).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// What all streamed stores are aligned to.
const LINE_BYTES: usize = 64;

/// What is loaded before any of it is stored.
const BLOCK_BYTES: usize = 256;

#[cfg(target_arch = "x86_64")]
fn blocks_past_caches(from: &[u8], into: &mut [u8]) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512F.
        unsafe { x86_64::with_avx512(from, into) }
    } else if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        unsafe { x86_64::with_avx(from, into) }
    } else {
        // SAFETY: all processors of this architecture have SSE2.
        unsafe { x86_64::with_sse2(from, into) }
    }
}

/// The other processors' `memcpy` chooses for itself.
#[cfg(not(target_arch = "x86_64"))]
fn blocks_past_caches(from: &[u8], into: &mut [u8]) {
    into.copy_from_slice(from);
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128,
        _mm256_loadu_si256, _mm256_stream_si256, _mm512_loadu_si512, _mm512_stream_si512,
    };

    use super::{BLOCK_BYTES, LINE_BYTES};

    macro_rules! streamed {
        (#[$feature:meta] $name:ident, $vector:ty, $load:ident, $store:ident) => {
            /// `from` and `into` are of the same length, a multiple of `BLOCK_BYTES`, and `into` starts at a multiple of `LINE_BYTES`.
            #[$feature]
            pub(super) fn $name(from: &[u8], into: &mut [u8]) {
                const N: usize = BLOCK_BYTES / size_of::<$vector>();
                assert!(from.len() == into.len() && into.len() % BLOCK_BYTES == 0);
                assert_eq!(into.as_ptr().addr() % LINE_BYTES, 0);
                let blocks = from
                    .chunks_exact(BLOCK_BYTES)
                    .zip(into.chunks_exact_mut(BLOCK_BYTES));
                for (from, into) in blocks {
                    let (from, into) = (from.as_ptr(), into.as_mut_ptr());
                    // SAFETY: both hold `BLOCK_BYTES` bytes, of which each vector is a part. Loads need no alignment;
                    // stores are aligned, as the first one is to a line and each is a whole fraction of one.
                    unsafe {
                        let vectors: [$vector; N] =
                            std::array::from_fn(|at| $load(from.cast::<$vector>().add(at)));
                        for (at, vector) in vectors.into_iter().enumerate() {
                            $store(into.cast::<$vector>().add(at), vector);
                        }
                    }
                }
                // Streamed stores are seen late by other threads; whoever is told that they are done must see them.
                _mm_sfence();
            }
        };
    }

    streamed!(
        #[target_feature(enable = "avx512f")]
        with_avx512,
        __m512i,
        _mm512_loadu_si512,
        _mm512_stream_si512
    );
    streamed!(
        #[target_feature(enable = "avx")]
        with_avx,
        __m256i,
        _mm256_loadu_si256,
        _mm256_stream_si256
    );
    streamed!(
        #[target_feature(enable = "sse2")]
        with_sse2,
        __m128i,
        _mm_loadu_si128,
        _mm_stream_si128
    );

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_width_copies_the_same() {
            let from: Vec<u8> = (0..10 * BLOCK_BYTES)
                .map(|index| (index * 7 / 3) as u8)
                .collect();
            for shift in [0, 1, 63] {
                let from = &from[shift..][..8 * BLOCK_BYTES];
                let check = |copy: fn(&[u8], &mut [u8])| {
                    let mut memory = crate::Buffer::allocate(from.len() as u64).unwrap();
                    copy(from, &mut memory);
                    assert!(*memory == *from);
                };
                // SAFETY: all processors of this architecture have it.
                check(|from, into| unsafe { with_sse2(from, into) });
                if is_x86_feature_detected!("avx") {
                    // SAFETY: the processor has it.
                    check(|from, into| unsafe { with_avx(from, into) });
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has it.
                    check(|from, into| unsafe { with_avx512(from, into) });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::stream;

    proptest! {
        #[test]
        fn a_streamed_copy_equals_its_original(
            from in prop::collection::vec(any::<u8>(), 0..2000),
            before in 0_usize..70,
        ) {
            let mut into = vec![9; before + from.len() + 1];
            stream(&from, &mut into[before..before + from.len()]);
            prop_assert!(into[before..before + from.len()] == from[..]);
            prop_assert!(into[..before].iter().all(|byte| *byte == 9));
            prop_assert_eq!(into[before + from.len()], 9);
        }
    }
}
