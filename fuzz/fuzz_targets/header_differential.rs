//! Headers that are right but for a few changes: the verdict and the table are the reference's, and
//! strict rules accept nothing that compatible ones refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_fuzz::generator::{self, Choices};
use tensorhold_fuzz::oracle::check;

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    if how == b'{' {
        check(&generator::whole(data, 0));
        return;
    }
    let choices: Vec<u16> = rest
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let n_changes = usize::from(how % 5);
    check(&generator::file(&mut Choices(choices.iter()), n_changes));
});
