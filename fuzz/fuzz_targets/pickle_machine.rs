//! Any bytes as a foreign file of any format: reading it takes memory by its size, all that it has lies inside it, and
//! what is made of it says no more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::{Foreign, Lie, Limits, first_import};
use tensorhold_fuzz::foreign::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a file may take besides, whatever its size.
const SPARE_BYTES: usize = 4 << 20;

fuzz_target!(|file: &[u8]| {
    if let Some(import) = first_import(&file).expect("memory can be read") {
        assert!(import.start < import.end && import.end <= file.len() as u64);
    }
    let mut limits = Limits::default();
    limits.inflated_bytes = 1 << 18;
    let read = check(file, SPARE_BYTES, &mut || Foreign::read(&file, &limits));
    let Some(mut foreign) = read else { return };
    let root = foreign.tree.root();
    let module = foreign.state_dict(root, &limits).ok().flatten();
    for root in [Some(root), module].into_iter().flatten() {
        let Ok(laid) = foreign.lay_out(root, Lie::Written) else { continue };
        for stored in laid.stored {
            let used = stored.view.used_bytes().expect("its size was checked");
            let storage = &foreign.storages[stored.view.storage().0 as usize];
            assert!(used.end <= storage.size_bytes);
        }
    }
});
