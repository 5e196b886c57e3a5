//! The machine that follows a pickle: a stack, marks and a memo, over an arena of inert values.
//!
//! It does what an unpickler does to its stack, and nothing else: where an unpickler would import, it keeps the name;
//! where it would call, `calls` makes a value of what it knows, and of everything else an opaque node.

use std::collections::HashMap;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::numbers::{of_c, parse_integer, small_integer};
use super::opcodes::{Argument, Operation, SMALL_BYTES, name_of};
use super::stream::Stream;
use super::{build, calls, constants};
use crate::builder::Builder;
use crate::finding::{Class, FindingKind};
use crate::limits::Limits;
use crate::storage::Place;
use crate::tree::{Data, Node, NodeId};

/// What the values are that a pickle names by persistent numbers: those beside the pickle.
pub(crate) trait Persistent {
    /// The value of a persistent number.
    ///
    /// # Errors
    /// `ForeignFormat` if the number is none that the container can have.
    fn load(&mut self, builder: &mut Builder<'_>, number: NodeId) -> Result<NodeId>;
}

/// A machine in the middle of a pickle.
pub(crate) struct Machine<'m, 'a> {
    pub(crate) builder: &'m mut Builder<'a>,
    persistent: &'m mut dyn Persistent,
    /// What to add to positions in the stream to have positions in the file; `None` where the pickle is no part of it.
    pub(crate) in_file: Option<u64>,
    stack: Vec<NodeId>,
    marks: Vec<usize>,
    memo: Memo,
    /// Where the last frame ends in the stream.
    frame_end: u64,
}

/// The values of a machine's memo, by number.
#[derive(Default)]
struct Memo {
    dense: Vec<Option<NodeId>>,
    sparse: HashMap<u64, NodeId>,
    count: u64,
}

impl Memo {
    fn put(&mut self, number: u64, id: NodeId) {
        let is_near = number <= self.dense.len() as u64 * 2 + 64;
        let old = match usize::try_from(number) {
            Ok(at) if is_near => {
                if at >= self.dense.len() {
                    self.dense.resize(at + 1, None);
                }
                self.sparse.remove(&number).or(self.dense[at].replace(id))
            }
            _ => self.sparse.insert(number, id),
        };
        self.count += u64::from(old.is_none());
    }

    fn entry(&self, number: u64) -> Option<NodeId> {
        let dense = usize::try_from(number)
            .ok()
            .and_then(|at| *self.dense.get(at)?);
        dense.or_else(|| self.sparse.get(&number).copied())
    }
}

impl<'m, 'a> Machine<'m, 'a> {
    pub(crate) fn new(
        builder: &'m mut Builder<'a>,
        persistent: &'m mut dyn Persistent,
        in_file: Option<u64>,
    ) -> Machine<'m, 'a> {
        let (stack, marks, memo) = (Vec::new(), Vec::new(), Memo::default());
        Machine {
            builder,
            persistent,
            in_file,
            stack,
            marks,
            memo,
            frame_end: 0,
        }
    }

    /// Follows one pickle to its STOP, and gives its value.
    ///
    /// # Errors
    /// `ForeignFormat` where an unpickler would stop with an error, `Truncated` at the end of the stream, `Overflow`
    /// past a limit; with the bytes of the operation.
    pub(crate) fn run(&mut self, stream: &mut Stream<'_>) -> Result<NodeId> {
        let start = stream.position();
        let mut at = start;
        let followed = self.follow(stream, &mut at);
        if followed.is_err() && at > start {
            tell_rest(self.builder, stream, at);
        }
        followed
    }

    /// As `run`; `at` is the place of the last operation.
    fn follow(&mut self, stream: &mut Stream<'_>, at: &mut u64) -> Result<NodeId> {
        loop {
            self.builder.charge_operation()?;
            *at = stream.position();
            let operation = Operation::read(stream, self.builder.limits)?;
            if operation.code == b'.' {
                return self.pop(".");
            }
            let position = *at;
            let done = self.step(operation, stream);
            done.map_err(|error| {
                error.with_bytes(ByteRange::new(position, stream.position().max(position)))
            })?;
        }
    }

    /// Does what one operation does.
    ///
    /// # Errors
    /// Those of `run`.
    pub(crate) fn step(&mut self, operation: Operation, stream: &mut Stream<'_>) -> Result<()> {
        let (code, position) = (operation.code, operation.position);
        if self.tears_frame(&operation, stream) {
            let message = "an operation crosses the end of a frame, behind which readers go on at different bytes";
            return Err(Error::new(ErrorKind::ForeignFormat, message));
        }
        match (code, operation.argument) {
            (b'c', Argument::Lines(module, name)) => {
                let (module, name) = (utf8(module)?, utf8(name)?);
                let id = self.global(module, name, position)?;
                self.push(id)
            }
            (b'i', Argument::Lines(module, name)) => {
                let (module, name) = (utf8(module)?, utf8(name)?);
                let class = self.global(module, name, position)?;
                let args = self.pop_to_mark("INST")?;
                self.make_object(class, args, None)
            }
            (0x95, Argument::Number(size)) if size > stream.left() => {
                let end = stream.position() + stream.left();
                Err(Error::truncated(stream.position(), size, end))
            }
            (0x95, Argument::Number(size)) => {
                self.frame_end = stream.position() + size;
                Ok(())
            }
            (0x80, Argument::Number(version)) => check_protocol(version),
            (_, Argument::None) => self.plain(code, position),
            (b'h' | b'j', Argument::Number(number)) => self.recall(number),
            (b'q' | b'r', Argument::Number(number)) => self.memoize(number),
            (b'g', Argument::Bytes(line)) => self.recall(memo_number(&line)?),
            (b'p', Argument::Bytes(line)) => self.memoize(memo_number(&line)?),
            (0x82..=0x84, argument) => self.extension(&argument, position),
            (b'P', Argument::Bytes(line)) => {
                let number = constants::text(line)?;
                let number = self.builder.push(number)?;
                self.load_persistent(number)
            }
            (code, Argument::Left(range)) => {
                let place = self.in_file.and_then(|start| range.checked_add(start));
                let place = match place {
                    Some(place) => Place::InFile(place),
                    None => Place::Memory(stream.read(range)?),
                };
                let id = constants::push_left(self.builder, code, place, range.len())?;
                self.push(id)
            }
            (code, argument) => {
                let id = constants::push(self.builder, code, argument)?;
                self.push(id)
            }
        }
    }

    /// Whether an operation that was just read begins in a frame and does not end there, or begins a frame in a frame: where that is read
    /// from a file, CPython drops the rest of the frame; what unpickles bytes in memory does not.
    pub(crate) fn tears_frame(&self, operation: &Operation, stream: &Stream<'_>) -> bool {
        let is_inside = operation.position < self.frame_end;
        is_inside && (operation.code == 0x95 || stream.position() > self.frame_end)
    }

    /// Operations that have nothing after their code.
    fn plain(&mut self, code: u8, position: u64) -> Result<()> {
        match code {
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop_one(),
            b'1' => self.pop_to_mark("POP_MARK").map(drop),
            b'2' => {
                let top = self.top("DUP")?;
                self.push(top)
            }
            0x94 => self.memoize(self.memo.count),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(code),
            b'R' | 0x81 | 0x92 | b'o' | b'b' => self.make(code),
            0x93 => self.stack_global(position),
            b'Q' => {
                let number = self.pop("BINPERSID")?;
                self.load_persistent(number)
            }
            0x97 => {
                let message = "a buffer beside the pickle is missing";
                let id = self.builder.push(Node::None)?;
                self.builder
                    .find(FindingKind::Missing, Class::Unknown, message.into(), id);
                self.push(id)
            }
            0x98 => self.top("READONLY_BUFFER").map(drop),
            _ => self.container(code),
        }
    }

    /// Operations that make a container of what is on the stack, and constants.
    fn container(&mut self, code: u8) -> Result<()> {
        let node = match code {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b']' => Node::List(Vec::new()),
            b')' => Node::Tuple(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            0x8f => Node::Set(Vec::new()),
            b'l' => Node::List(self.pop_to_mark("LIST")?),
            b't' => Node::Tuple(self.pop_to_mark("TUPLE")?),
            b'd' => Node::Dict(pairs(self.pop_to_mark("DICT")?)?),
            0x91 => Node::FrozenSet(self.pop_to_mark("FROZENSET")?),
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let start = self.room(count).ok_or_else(|| empty(code_name(code)))?;
                Node::Tuple(self.split(start))
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::ForeignFormat,
                    "an operation has no meaning",
                ));
            }
        };
        let id = self.builder.push(node)?;
        self.push(id)
    }

    /// Operations that put what is on the stack into a container.
    fn fill(&mut self, code: u8) -> Result<()> {
        let name = code_name(code);
        let values = match code {
            b'a' => vec![self.pop(name)?],
            b's' => {
                let start = self.room(2).ok_or_else(|| empty(name))?;
                self.split(start)
            }
            _ => self.pop_to_mark(name)?,
        };
        let target = self.top(name)?;
        self.builder.charge_nodes(values.len())?;
        match code {
            b'a' | b'e' => build::append(self.builder, target, values),
            0x90 => build::add(self.builder, target, values),
            _ => build::set_items(self.builder, target, pairs(values)?),
        }
    }

    /// Operations that call something, or give it a state.
    fn make(&mut self, code: u8) -> Result<()> {
        let name = code_name(code);
        if code == b'o' {
            let mut args = self.pop_to_mark(name)?;
            if args.is_empty() {
                return Err(empty(name));
            }
            let class = args.remove(0);
            return self.make_object(class, args, None);
        }
        let kwargs = if code == 0x92 {
            Some(self.pop(name)?)
        } else {
            None
        };
        let args = self.pop(name)?;
        let target = self.pop(name)?;
        if code == b'b' {
            build::build(self, target, args)?;
            return self.push(target);
        }
        let id = match code {
            b'R' => calls::call(self, target, args)?,
            _ => calls::new_object(self, target, args, kwargs)?,
        };
        self.push(id)
    }

    fn make_object(
        &mut self,
        class: NodeId,
        args: Vec<NodeId>,
        kwargs: Option<NodeId>,
    ) -> Result<()> {
        self.builder.charge_nodes(args.len())?;
        let args = self.builder.push(Node::Tuple(args))?;
        let id = calls::instantiate(self, class, args, kwargs)?;
        self.push(id)
    }

    fn load_persistent(&mut self, number: NodeId) -> Result<()> {
        let id = self.persistent.load(self.builder, number)?;
        self.push(id)
    }

    fn stack_global(&mut self, position: u64) -> Result<()> {
        let name = self.pop("STACK_GLOBAL")?;
        let module = self.pop("STACK_GLOBAL")?;
        let [module, name] = [self.name_of(module)?, self.name_of(name)?];
        let id = self.global(module, name, position)?;
        self.push(id)
    }

    /// A text that is short enough for a name.
    fn name_of(&self, id: NodeId) -> Result<String> {
        let limit = SMALL_BYTES as usize;
        match &self.builder.tree[id] {
            Node::Str(text) if text.as_bytes().len() <= limit => Ok(text.to_string_lossy()),
            // Of long texts of Python 2 it is not known that they are none.
            Node::Str(_) | Node::Bytes(Data::Storage(_)) => {
                let message = format!("a name in a pickle is over the limit of {limit} bytes");
                Err(Error::new(ErrorKind::Overflow, message))
            }
            _ => {
                let message = "STACK_GLOBAL needs two texts";
                Err(Error::new(ErrorKind::ForeignFormat, message))
            }
        }
    }

    /// A code of `copyreg`'s registry, which is in no file.
    fn extension(&mut self, argument: &Argument, position: u64) -> Result<()> {
        let code = match argument {
            Argument::Number(code) => i64::try_from(*code).unwrap_or(0),
            Argument::Int(code) => *code,
            _ => 0,
        };
        if code <= 0 {
            return Err(Error::new(
                ErrorKind::ForeignFormat,
                format!("EXT specifies code {code}"),
            ));
        }
        let id = self.global(
            "copyreg".into(),
            format!("_inverted_registry[{code}]"),
            position,
        )?;
        self.push(id)
    }

    fn global(&mut self, module: String, name: String, position: u64) -> Result<NodeId> {
        let position = self.in_file.map_or(position, |start| position + start);
        let global = self.builder.mention(module, name, position);
        constants::push_global(self.builder, global)
    }

    fn push(&mut self, id: NodeId) -> Result<()> {
        self.builder.charge_nodes(0)?;
        self.stack.push(id);
        Ok(())
    }

    /// Where the last `count` values start, if there are so many after the last mark.
    fn room(&self, count: usize) -> Option<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .len()
            .checked_sub(count)
            .filter(|start| *start >= floor)
    }

    fn pop(&mut self, what: &'static str) -> Result<NodeId> {
        self.room(1)
            .and_then(|_| self.stack.pop())
            .ok_or_else(|| empty(what))
    }

    fn top(&self, what: &'static str) -> Result<NodeId> {
        let at = self.room(1).ok_or_else(|| empty(what))?;
        Ok(self.stack[at])
    }

    /// Takes the values from `start` on, in no more memory than they need.
    fn split(&mut self, start: usize) -> Vec<NodeId> {
        self.stack.drain(start..).collect()
    }

    /// POP takes a value, or the last mark where nothing is after it.
    fn pop_one(&mut self) -> Result<()> {
        match self.room(1) {
            Some(_) => self.pop("POP").map(drop),
            None => self.marks.pop().map(drop).ok_or_else(|| empty("POP")),
        }
    }

    fn pop_to_mark(&mut self, what: &'static str) -> Result<Vec<NodeId>> {
        let start = self.marks.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::ForeignFormat,
                format!("{what} has no mark to go back to"),
            )
        })?;
        let values = self.split(start);
        self.builder.charge_nodes(values.len())?;
        Ok(values)
    }

    fn memoize(&mut self, number: u64) -> Result<()> {
        let top = self.top("PUT")?;
        self.memo.put(number, top);
        if self.memo.count > self.builder.limits.nodes {
            self.builder.charge_nodes(usize::MAX >> 1)?;
        }
        Ok(())
    }

    fn recall(&mut self, number: u64) -> Result<()> {
        let id = self.memo.entry(number).ok_or_else(|| {
            let message = format!("memo value {number} is used before it is there");
            Error::new(ErrorKind::ForeignFormat, message)
        })?;
        self.push(id)
    }
}

/// Tells the names in the operations from `position` to the next STOP: where this machine stops, one with other limits
/// may go on.
fn tell_rest(builder: &mut Builder<'_>, stream: &mut Stream<'_>, position: u64) {
    let limits = Limits {
        text_bytes: u64::MAX,
        integer_bytes: u64::MAX,
        ..builder.limits.clone()
    };
    stream.seek(position);
    let mut texts = (String::new(), String::new());
    while builder.charge_operation().is_ok() {
        let Ok(operation) = Operation::read(stream, &limits) else {
            return;
        };
        match (operation.code, operation.argument) {
            (b'.', _) => return,
            (b'c' | b'i', Argument::Lines(module, name)) => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                builder.mention(text(module), text(name), operation.position);
            }
            (0x8c | b'X' | b'V', Argument::Bytes(text)) if text.len() <= 4096 => {
                let text = String::from_utf8_lossy(&text).into_owned();
                texts = (std::mem::take(&mut texts.1), text);
            }
            (0x93, _) => {
                builder.mention(texts.0.clone(), texts.1.clone(), operation.position);
            }
            _ => {}
        }
    }
}

/// Keys and values one after another, as pairs.
fn pairs(values: Vec<NodeId>) -> Result<Vec<(NodeId, NodeId)>> {
    if values.len() % 2 == 1 {
        return Err(Error::new(
            ErrorKind::ForeignFormat,
            "a key of a dict has no value",
        ));
    }
    Ok(values
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

fn memo_number(line: &[u8]) -> Result<u64> {
    let number = parse_integer(of_c(line), 10).and_then(|bytes| small_integer(&bytes));
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| Error::new(ErrorKind::ForeignFormat, "a memo number is no number"))
}

fn check_protocol(version: u64) -> Result<()> {
    if version <= 5 {
        return Ok(());
    }
    let message = format!("pickle protocol {version} is not known; the newest is 5");
    Err(Error::new(ErrorKind::ForeignFormat, message))
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::ForeignFormat, "a name in a pickle is not UTF-8"))
}

fn code_name(code: u8) -> &'static str {
    name_of(code).unwrap_or("an operation")
}

fn empty(what: &'static str) -> Error {
    let what = if what == "." { "STOP" } else { what };
    Error::new(
        ErrorKind::ForeignFormat,
        format!("{what} finds nothing on the stack"),
    )
}
