//! Runs of units: `BYTES` bytes that hold `CODES` codes, and no bit of another.

/// A way to lay `CODES` codes into `BYTES` bytes.
///
/// It is a trait, since functions given as arguments were not inlined, and did without the processor's level.
pub(super) trait Unit<const CODES: usize, const BYTES: usize> {
    /// The codes of a unit.
    fn unpack(bytes: [u8; BYTES]) -> [u8; CODES];

    /// The bytes of codes that fit.
    fn pack(codes: [u8; CODES]) -> [u8; BYTES];
}

/// What of its first unit a run does not have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lead {
    /// Codes before the first that is wanted.
    pub(super) codes: usize,
    /// Bytes before the first that is there.
    pub(super) bytes: usize,
}

/// Fills `into` with the codes of `packed`, which has all bytes that they lie in.
#[inline(always)]
pub(super) fn unpack<U: Unit<CODES, BYTES>, const CODES: usize, const BYTES: usize>(
    packed: &[u8],
    lead: Lead,
    into: &mut [u8],
) {
    let (n_codes, n_bytes) = match lead.codes {
        0 => (0, 0),
        before => (
            into.len().min(CODES - before),
            packed.len().min(BYTES - lead.bytes),
        ),
    };
    let (head, into) = into.split_at_mut(n_codes);
    let (head_bytes, packed) = packed.split_at(n_bytes);
    unpack_part::<U, CODES, BYTES>(head_bytes, lead, head);
    let (whole, tail) = into.as_chunks_mut();
    let (units, tail_bytes) = packed.split_at(whole.len() * BYTES);
    for (bytes, codes) in units.as_chunks().0.iter().zip(whole) {
        *codes = U::unpack(*bytes);
    }
    unpack_part::<U, CODES, BYTES>(tail_bytes, Lead::default(), tail);
}

/// Fills `into` with codes of one unit, of which only the bytes `packed` are there.
#[inline(always)]
fn unpack_part<U: Unit<CODES, BYTES>, const CODES: usize, const BYTES: usize>(
    packed: &[u8],
    lead: Lead,
    into: &mut [u8],
) {
    if into.is_empty() {
        return;
    }
    let mut bytes = [0; BYTES];
    bytes[lead.bytes..][..packed.len()].copy_from_slice(packed);
    into.copy_from_slice(&U::unpack(bytes)[lead.codes..][..into.len()]);
}

/// Fills `into` with units of `codes`; bits that no code needs are 0.
#[inline(always)]
pub(super) fn pack<U: Unit<CODES, BYTES>, const CODES: usize, const BYTES: usize>(
    codes: &[u8],
    into: &mut [u8],
) {
    let (whole, tail) = codes.as_chunks();
    let (units, tail_bytes) = into.split_at_mut(whole.len() * BYTES);
    for (codes, bytes) in whole.iter().zip(units.as_chunks_mut().0) {
        *bytes = U::pack(*codes);
    }
    let mut last = [0; CODES];
    last[..tail.len()].copy_from_slice(tail);
    // A word may reach past the unit, and the last unit past the last byte.
    let last = U::pack(last);
    let n_bytes = tail_bytes.len().min(BYTES);
    tail_bytes[..n_bytes].copy_from_slice(&last[..n_bytes]);
    tail_bytes[n_bytes..].fill(0);
}
