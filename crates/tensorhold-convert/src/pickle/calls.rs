//! What calls in a pickle make: values where the callee is known, and opaque objects everywhere else.

use tensorhold_core::{Error, ErrorKind, Result};

use super::globals::{Call, Known, LAYOUTS};
use super::machine::Machine;
use crate::builder::Builder;
use crate::finding::{Class, FindingKind, GlobalId};
use crate::numpy;
use crate::torch::rebuild;
use crate::tree::{Data, Factory, Node, NodeId, Text};

/// Why a call that is known makes no value.
pub(crate) enum Refusal {
    /// Nothing goes on.
    Fatal(Error),
    /// It is not called as it should be; it is kept as an opaque object.
    Odd(String),
    /// As `Odd`, and an unchecked reader would leave its memory.
    Lie(String),
    /// As `Odd`, and nothing is wrong with it but that it is not supported.
    LeftOut(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Fatal(error)
    }
}

impl From<&str> for Refusal {
    fn from(message: &str) -> Refusal {
        Refusal::Odd(message.into())
    }
}

/// What a call makes.
pub(crate) type Made<T = NodeId> = std::result::Result<T, Refusal>;

/// More arguments than any call that is known takes.
const MOST_ARGUMENTS: usize = 16;

/// What `REDUCE` makes of a callee and a tuple of arguments.
///
/// # Errors
/// `ForeignFormat` if the arguments are no tuple, `Overflow` past a limit.
pub(crate) fn call(machine: &mut Machine<'_, '_>, callee: NodeId, args: NodeId) -> Result<NodeId> {
    if !matches!(machine.builder.tree[args], Node::Tuple(_)) {
        let message = format!(
            "REDUCE is given {}, not a tuple",
            machine.builder.tree[args].kind()
        );
        return Err(Error::new(ErrorKind::ForeignFormat, message));
    }
    instantiate(machine, callee, args, None)
}

/// What `NEWOBJ` and `NEWOBJ_EX` make of a class and its arguments.
///
/// # Errors
/// `ForeignFormat` if the arguments are no tuple, `Overflow` past a limit.
pub(crate) fn new_object(
    machine: &mut Machine<'_, '_>,
    class: NodeId,
    args: NodeId,
    kwargs: Option<NodeId>,
) -> Result<NodeId> {
    let tree = &machine.builder.tree;
    let is_dict = kwargs.is_none_or(|kwargs| matches!(tree[kwargs], Node::Dict(_)));
    if !matches!(tree[args], Node::Tuple(_)) || !is_dict {
        let message = "NEWOBJ is not given a tuple, and a dict";
        return Err(Error::new(ErrorKind::ForeignFormat, message));
    }
    let kwargs = kwargs.filter(|kwargs| tree.pairs(*kwargs).is_some_and(|pairs| !pairs.is_empty()));
    instantiate(machine, class, args, kwargs)
}

/// What a call of `callee` with a tuple of arguments makes.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn instantiate(
    machine: &mut Machine<'_, '_>,
    callee: NodeId,
    args: NodeId,
    kwargs: Option<NodeId>,
) -> Result<NodeId> {
    let builder = &mut *machine.builder;
    let Some((global, known)) = builder.global_of(callee) else {
        let id = builder.push_opaque(callee, Some(args), kwargs)?;
        let message = format!(
            "{} is called, which is no name",
            builder.tree[callee].kind()
        );
        builder.find(FindingKind::Pickle, Class::Unknown, message, id);
        return Ok(id);
    };
    builder.called(global);
    let call = match (known, kwargs) {
        // The array that it makes is filled by its state.
        (Known::Call(Call::NpReconstruct), _) => None,
        (Known::Call(call), None) => Some(call),
        _ => None,
    };
    let Some(call) = call else {
        return builder.push_opaque(callee, Some(args), kwargs);
    };
    match understand(machine, call, args) {
        Ok(id) => Ok(id),
        Err(refusal) => keep_odd(machine.builder, callee, global, args, refusal),
    }
}

fn keep_odd(
    builder: &mut Builder<'_>,
    callee: NodeId,
    global: GlobalId,
    args: NodeId,
    refusal: Refusal,
) -> Result<NodeId> {
    let (kind, class, message) = match refusal {
        Refusal::Fatal(error) => return Err(error),
        Refusal::Odd(message) => (FindingKind::InvalidTensor, Class::Unknown, message),
        Refusal::Lie(message) => (FindingKind::InvalidTensor, Class::Dangerous, message),
        Refusal::LeftOut(message) => (FindingKind::LeftOut, Class::Harmless, message),
    };
    let id = builder.push_opaque(callee, Some(args), None)?;
    let name = builder.globals[global.0 as usize].dotted();
    builder.find(kind, class, format!("`{name}`: {message}"), id);
    Ok(id)
}

/// The first few items of a tuple, and an error where there are more than a call takes.
pub(crate) fn elements(builder: &Builder<'_>, tuple: NodeId) -> Made<Vec<NodeId>> {
    let items = builder
        .tree
        .items(tuple)
        .ok_or("its arguments are no tuple")?;
    if items.len() > MOST_ARGUMENTS {
        return Err(Refusal::Odd(format!(
            "it is called with {} arguments",
            items.len()
        )));
    }
    Ok(items.to_vec())
}

/// What a call that is known makes of a tuple of arguments.
pub(crate) fn understand(machine: &mut Machine<'_, '_>, call: Call, args: NodeId) -> Made {
    if call == Call::NewObject {
        return copy_object(machine, args);
    }
    let list = elements(machine.builder, args)?;
    match call {
        Call::Reconstructor => reconstruct(machine, &list),
        Call::NewObjectExtended => match list[..] {
            [class, args, kwargs] => Ok(new_object(machine, class, args, Some(kwargs))?),
            _ => Err("it needs a class, a tuple and a dict".into()),
        },
        Call::ScriptList | Call::ScriptTag => match list[..] {
            // What is after the value is the name of its type.
            [value] | [value, _] => Ok(value),
            _ => Err("it needs a value".into()),
        },
        Call::FromType | Call::FromTypeV2 => rebuild::from_type(machine, &list),
        Call::FromBytes => crate::torch::legacy::from_bytes(machine, &list),
        Call::NpScalar | Call::NpBuffer | Call::NpDtype => {
            numpy::call(machine.builder, call, &list)
        }
        Call::Builtin(_)
        | Call::FrozenSet
        | Call::Bytes
        | Call::ByteArray
        | Call::Bool
        | Call::Complex
        | Call::Slice
        | Call::Range
        | Call::OrderedDict
        | Call::Counter
        | Call::DefaultDict
        | Call::Encode => builtin(machine.builder, call, &list),
        Call::Size | Call::Device | Call::Layout => torch_value(machine.builder, call, &list),
        Call::Object
        | Call::TensorClass
        | Call::ParameterClass
        | Call::BufferClass
        | Call::NpArrayClass
        | Call::NpReconstruct => Err("it is called by itself".into()),
        _ => rebuild::call(machine.builder, call, &list),
    }
}

/// `copyreg.__newobj__(class, *args)`.
fn copy_object(machine: &mut Machine<'_, '_>, args: NodeId) -> Made {
    let items = machine.builder.tree.items(args).unwrap_or_default();
    let Some((&class, rest)) = items.split_first() else {
        return Err("it needs a class".into());
    };
    let rest = rest.to_vec();
    machine.builder.charge_nodes(rest.len())?;
    let rest = machine.builder.push(Node::Tuple(rest))?;
    Ok(instantiate(machine, class, rest, None)?)
}

/// `copyreg._reconstructor(class, base, state)`.
fn reconstruct(machine: &mut Machine<'_, '_>, list: &[NodeId]) -> Made {
    let &[class, base, state] = list else {
        return Err("it needs a class, a base and a state".into());
    };
    let is_object = matches!(
        machine.builder.global_of(base),
        Some((_, Known::Call(Call::Object)))
    );
    let args = if is_object && machine.builder.tree[state] == Node::None {
        Vec::new()
    } else {
        vec![state]
    };
    let args = machine.builder.push(Node::Tuple(args))?;
    Ok(instantiate(machine, class, args, None)?)
}

fn builtin(builder: &mut Builder<'_>, call: Call, list: &[NodeId]) -> Made {
    let first = list.first().copied();
    let node = match (call, list.len()) {
        (Call::Builtin(factory), 0) => empty(factory),
        (Call::Builtin(Factory::Set), 1) => Node::Set(copied(builder, list[0])?),
        (Call::Builtin(Factory::List), 1) => Node::List(copied(builder, list[0])?),
        (Call::Builtin(Factory::Tuple), 1) => Node::Tuple(copied(builder, list[0])?),
        (Call::Builtin(_), 1) => return same_kind(builder, call, list[0]),
        (Call::FrozenSet, 0) => Node::FrozenSet(Vec::new()),
        (Call::FrozenSet, 1) => Node::FrozenSet(copied(builder, list[0])?),
        (Call::Bool, 0) => Node::Bool(false),
        (Call::Bool, 1) => return same_kind(builder, call, list[0]),
        (Call::Bytes, 0) => Node::Bytes(Data::Memory(Vec::new())),
        (Call::ByteArray, 0) => Node::ByteArray(Data::Memory(Vec::new())),
        (Call::ByteArray, 1) => byte_array(builder, list[0])?,
        (Call::ByteArray | Call::Bytes, 2) => {
            let bytes = encode(builder, list)?;
            if call == Call::Bytes {
                Node::Bytes(bytes)
            } else {
                Node::ByteArray(bytes)
            }
        }
        (Call::Encode, 2) => Node::Bytes(encode(builder, list)?),
        (Call::Complex, 2) => Node::Complex(float(builder, list[0])?, float(builder, list[1])?),
        (Call::Slice, 3) => Node::Slice([list[0], list[1], list[2]]),
        (Call::Range, 3) => range(builder, [list[0], list[1], list[2]])?,
        (Call::Counter, 0) => Node::Counter(Vec::new()),
        (Call::Counter, 1) => Node::Counter(copied_pairs(builder, list[0])?),
        (Call::OrderedDict, 0 | 1) => {
            let pairs = first
                .map(|first| copied_pairs(builder, first))
                .transpose()?;
            Node::OrderedDict {
                pairs: pairs.unwrap_or_default(),
                attributes: None,
            }
        }
        (Call::DefaultDict, 0) => Node::DefaultDict {
            factory: None,
            pairs: Vec::new(),
        },
        (Call::DefaultDict, 1) => default_dict(builder, list[0])?,
        _ => {
            return Err(Refusal::Odd(format!(
                "it is called with {} arguments",
                list.len()
            )));
        }
    };
    Ok(builder.push(node)?)
}

fn empty(factory: Factory) -> Node {
    match factory {
        Factory::List => Node::List(Vec::new()),
        Factory::Dict => Node::Dict(Vec::new()),
        Factory::Int => Node::Int(0),
        Factory::Float => Node::Float(0.0),
        Factory::Set => Node::Set(Vec::new()),
        Factory::Str => Node::Str(Text::from("")),
        Factory::Tuple => Node::Tuple(Vec::new()),
    }
}

/// A value that a type makes of a value of that type: itself.
fn same_kind(builder: &Builder<'_>, call: Call, value: NodeId) -> Made {
    let is_same = matches!(
        (call, &builder.tree[value]),
        (Call::Builtin(Factory::Int), Node::Int(_) | Node::BigInt(_))
            | (Call::Builtin(Factory::Float), Node::Float(_))
            | (Call::Builtin(Factory::Str), Node::Str(_))
            | (Call::Bool, Node::Bool(_))
    );
    if is_same {
        Ok(value)
    } else {
        Err("it makes a value of another kind".into())
    }
}

fn copied(builder: &mut Builder<'_>, list: NodeId) -> Made<Vec<NodeId>> {
    let items = match &builder.tree[list] {
        Node::List(items) | Node::Tuple(items) | Node::Set(items) | Node::FrozenSet(items) => items,
        _ => return Err("it is made of what is no list".into()),
    };
    let items = items.clone();
    builder.charge_nodes(items.len())?;
    Ok(items)
}

fn copied_pairs(builder: &mut Builder<'_>, value: NodeId) -> Made<Vec<(NodeId, NodeId)>> {
    let count = builder.tree.pairs(value).map(<[_]>::len);
    let count = count.or_else(|| builder.tree.items(value).map(<[_]>::len));
    builder.charge_nodes(count.unwrap_or(0).saturating_mul(2))?;
    if let Some(pairs) = builder.tree.pairs(value) {
        return Ok(pairs.to_vec());
    }
    let items = builder
        .tree
        .items(value)
        .ok_or("it is made of what is no dict")?;
    let pair = |item: &NodeId| match builder.tree.items(*item) {
        Some(&[key, value]) => Some((key, value)),
        _ => None,
    };
    let pairs: Option<Vec<_>> = items.iter().map(pair).collect();
    pairs.ok_or_else(|| "it is made of what are no pairs".into())
}

fn byte_array(builder: &mut Builder<'_>, bytes: NodeId) -> Made<Node> {
    match &builder.tree[bytes] {
        Node::Bytes(Data::Memory(bytes)) => {
            let bytes = bytes.clone();
            builder.charge_bytes(bytes.len())?;
            Ok(Node::ByteArray(Data::Memory(bytes)))
        }
        Node::Bytes(Data::Storage(storage)) => Ok(Node::ByteArray(Data::Storage(*storage))),
        _ => Err("it is made of what are no bytes".into()),
    }
}

/// The bytes of a text in a named encoding.
fn encode(builder: &mut Builder<'_>, list: &[NodeId]) -> Made<Data> {
    let Node::Str(text) = &builder.tree[list[0]] else {
        return Err("it encodes what is no text".into());
    };
    let encoding = builder
        .tree
        .text(list[1])
        .ok_or("its encoding is no text")?;
    let size = text.as_bytes().len();
    let text = text.as_str().ok_or("its text has lone surrogates")?;
    let bytes = match encoding.to_ascii_lowercase().as_str() {
        "latin1" | "latin-1" | "iso-8859-1" | "iso8859-1" | "l1" => {
            let letters = text
                .chars()
                .map(|letter| u8::try_from(u32::from(letter)).ok());
            letters
                .collect::<Option<Vec<u8>>>()
                .ok_or("its text is not of Latin 1")?
        }
        "utf-8" | "utf8" => text.as_bytes().to_vec(),
        "ascii" | "us-ascii" if text.is_ascii() => text.as_bytes().to_vec(),
        _ => return Err("its encoding is not known".into()),
    };
    builder.charge_bytes(size)?;
    if bytes.len() as u64 <= super::opcodes::SMALL_BYTES {
        return Ok(Data::Memory(bytes));
    }
    let id = builder.push(Node::Bytes(Data::Memory(bytes)))?;
    let storage = builder.storage_of_bytes(id)?;
    Ok(Data::Storage(storage.expect("the node is bytes")))
}

fn float(builder: &Builder<'_>, id: NodeId) -> Made<f64> {
    match builder.tree[id] {
        Node::Float(number) => Ok(number),
        Node::Int(number) => Ok(number as f64),
        _ => Err("a part of it is no number".into()),
    }
}

fn range(builder: &Builder<'_>, parts: [NodeId; 3]) -> Made<Node> {
    let is_integer = |id: &NodeId| matches!(builder.tree[*id], Node::Int(_) | Node::BigInt(_));
    if !parts.iter().all(is_integer) {
        return Err("its bounds are no integers".into());
    }
    Ok(Node::Range(parts))
}

fn default_dict(builder: &Builder<'_>, factory: NodeId) -> Made<Node> {
    let factory = match (&builder.tree[factory], builder.global_of(factory)) {
        (Node::None, _) => None,
        (_, Some((_, Known::Call(Call::Builtin(factory))))) => Some(factory),
        _ => return Err("what makes its values is no plain type".into()),
    };
    Ok(Node::DefaultDict {
        factory,
        pairs: Vec::new(),
    })
}

fn torch_value(builder: &mut Builder<'_>, call: Call, list: &[NodeId]) -> Made {
    let node = match (call, list) {
        (Call::Size, []) => Node::Size(Vec::new()),
        (Call::Size, &[items]) => Node::Size(rebuild::sizes(builder, items)?),
        (Call::Layout, &[name]) => {
            let name = builder
                .tree
                .text(name)
                .and_then(|name| name.strip_prefix("torch."));
            let found = LAYOUTS.into_iter().find(|layout| Some(*layout) == name);
            Node::Layout(found.ok_or("its layout is not known")?)
        }
        (Call::Device, &[kind]) => Node::Device(
            builder
                .tree
                .text(kind)
                .ok_or("its device is no text")?
                .into(),
        ),
        (Call::Device, &[kind, number]) => {
            let kind = builder.tree.text(kind).ok_or("its device is no text")?;
            let number = builder
                .tree
                .integer(number)
                .ok_or("its device has no number")?;
            Node::Device(format!("{kind}:{number}"))
        }
        _ => {
            return Err(Refusal::Odd(format!(
                "it is called with {} arguments",
                list.len()
            )));
        }
    };
    Ok(builder.push(node)?)
}
