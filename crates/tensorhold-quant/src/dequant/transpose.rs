//! Matrices of bytes with rows and columns changed.
//!
//! Blocks of 8 x 8 are eight words, whose bytes change places in three steps: with the neighbour, in pairs, in fours.

const BLOCK: usize = 8;

/// Writes the columns of `from`, whose rows have `n_columns` bytes, into `into` as rows.
pub(super) fn transpose(from: &[u8], n_columns: usize, into: &mut [u8]) {
    if n_columns == 0 || from.is_empty() {
        return;
    }
    let n_rows = from.len() / n_columns;
    let (rows, columns) = (n_rows - n_rows % BLOCK, n_columns - n_columns % BLOCK);
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            let mut words = [0; BLOCK];
            for (number, word) in words.iter_mut().enumerate() {
                let bytes = &from[(row + number) * n_columns + column..];
                *word = bytes
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            }
            transpose_block(&mut words);
            for (number, word) in words.iter().enumerate() {
                let at = (column + number) * n_rows + row;
                into[at..][..BLOCK].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    for column in 0..n_columns {
        // What is in no block.
        let first = if column < columns { rows } else { 0 };
        for row in first..n_rows {
            into[column * n_rows + row] = from[row * n_columns + column];
        }
    }
}

#[inline(always)]
fn transpose_block(words: &mut [u64; BLOCK]) {
    const STEPS: [(usize, u64); 3] = [
        (1, 0x00ff_00ff_00ff_00ff),
        (2, 0x0000_ffff_0000_ffff),
        (4, 0x0000_0000_ffff_ffff),
    ];
    for (apart, mask) in STEPS {
        for place in (0..BLOCK).filter(|place| place & apart == 0) {
            let changed = (words[place] >> (8 * apart) ^ words[place + apart]) & mask;
            words[place + apart] ^= changed;
            words[place] ^= changed << (8 * apart);
        }
    }
}
