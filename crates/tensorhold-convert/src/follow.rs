//! Pickles in a file that cannot be read: a program that unpickles it has done all that comes before the fault when it
//! meets it.

use tensorhold_core::{ByteRange, Result};

use crate::builder::Builder;
use crate::foreign::{head, is_zip};
use crate::pickle::{Machine, NoPersistent, Stream};
use crate::{nested, npy};

/// Tells the names that pickles ask for which lie where the format's reader did not come to.
///
/// # Errors
/// What ends such a pickle, and `Overflow` past a limit.
pub(crate) fn follow(builder: &mut Builder<'_>) -> Result<()> {
    let source = builder.source;
    nested::scan_all(builder)?;
    let head = head(source)?;
    if is_zip(&head) {
        return nested::look_into_archive(builder, source, "", nested::MOST_DEPTH);
    }
    if !builder.globals.is_empty() {
        return Ok(());
    }
    // An array of objects has a pickle after its header.
    let start = npy::data_start(&head).min(source.size_bytes());
    let mut stream = Stream::new(source, ByteRange::new(start, source.size_bytes()))?;
    Machine::new(builder, &mut NoPersistent, None).run(&mut stream)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Foreign, Global, Limits};

    fn names(file: &[u8]) -> Vec<String> {
        let broken = Foreign::examine(&file, &Limits::default()).expect_err("it cannot be read");
        broken.globals.iter().map(Global::dotted).collect()
    }

    #[test]
    fn what_a_broken_pickle_keeps_in_bytes_is_followed() {
        assert_eq!(names(b"C\x0fcos\nsystem\n(tR.00"), ["os.system"]);
    }

    #[test]
    fn the_pickle_of_an_array_of_objects_is_followed() {
        let mut array = b"\x93NUMPY\x01\0\x76\0".to_vec();
        array.extend(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }");
        array.resize(127, b' ');
        array.extend(b"\ncos\nsystem\n(tR.");
        assert_eq!(names(&array), ["os.system"]);
    }

    #[test]
    fn a_set_that_begins_as_a_message_pack_does_is_followed() {
        assert_eq!(names(b"\x8f(cos\nsystem\n(tR\x90."), ["os.system"]);
        let map_of_one = b"\x81(Ncos\nsystem\n(tR.".as_slice();
        let found = Foreign::read(&map_of_one, &Limits::default()).expect("it is a message pack");
        assert_eq!(
            found.globals.len(),
            0,
            "an unpickler fails at its first byte"
        );
    }
}
