//! Pickles that stand alone.

use tensorhold_core::{ByteRange, Result};

use super::machine::{Machine, Persistent};
use super::opcodes::name_of;
use super::stream::Stream;
use crate::builder::Builder;
use crate::finding::{Class, Finding, FindingKind};
use crate::tree::{Node, NodeId};

/// The persistent numbers of a pickle that has nothing beside it: opaque values.
pub(crate) struct NoPersistent;

impl Persistent for NoPersistent {
    fn load(&mut self, builder: &mut Builder<'_>, number: NodeId) -> Result<NodeId> {
        let name = builder.mention("persistent".into(), "load".into(), 0);
        let callee = builder.push(Node::Global(name))?;
        let args = builder.push(Node::Tuple(vec![number]))?;
        builder.push_opaque(callee, Some(args), None)
    }
}

/// Whether a file with these first bytes may be a pickle: it has the mark of its protocol, or begins with what protocols
/// 0 and 1 begin with.
pub(crate) fn may_begin(head: &[u8]) -> bool {
    match head {
        [0x80, 0..=5, ..] => true,
        [first, ..] => first.is_ascii() && name_of(*first).is_some(),
        [] => false,
    }
}

/// The value of a file that is a pickle. Pickles after the first are followed for their names.
///
/// # Errors
/// As [`Machine::run`].
pub(crate) fn read(builder: &mut Builder<'_>) -> Result<NodeId> {
    let source = builder.source;
    let mut stream = Stream::new(source, ByteRange::new(0, source.size_bytes()))?;
    let root = Machine::new(builder, &mut NoPersistent, Some(0)).run(&mut stream)?;
    if stream.left() == 0 {
        return Ok(root);
    }
    let rest = ByteRange::new(stream.position(), stream.position() + stream.left());
    let message = format!("{} bytes follow the pickle", rest.len());
    let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, message);
    builder.note(finding.with_bytes(rest));
    follow_rest(builder, &mut stream, Some(0));
    Ok(root)
}

/// Tells the names that pickles after the first one ask for; what is no pickle ends it.
pub(crate) fn follow_rest(
    builder: &mut Builder<'_>,
    stream: &mut Stream<'_>,
    in_file: Option<u64>,
) {
    let outer = builder.pickle.replace("after the pickle".to_owned());
    while stream.left() > 0
        && Machine::new(builder, &mut NoPersistent, in_file)
            .run(stream)
            .is_ok()
    {}
    builder.pickle = outer;
}
