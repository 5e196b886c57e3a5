//! Groups: the names in them, and where the headers of what they name lie.

use tensorhold_core::{ByteRange, Result};

use super::object::Message;
use super::{File, address_at, wrong};
use crate::container::{u16_at, u32_at, u64_at};

const LINK_INFO: u8 = 2;
const LINK: u8 = 6;
const SYMBOL_TABLE: u8 = 0x11;
const LONGEST_HEAP_BYTES: u64 = 1 << 26;
const DEEPEST: u32 = 16;

/// The names and addresses of a group; `None` where the messages are not those of a group.
pub(super) fn links(
    file: &mut File<'_>,
    messages: &[Message],
) -> Result<Option<Vec<(String, u64)>>> {
    let find = |kind: u8| messages.iter().find(|message| message.kind == kind);
    let links = if let Some(message) = find(SYMBOL_TABLE) {
        symbol_table(file, message)?
    } else if let Some(message) = find(LINK_INFO) {
        refuse_dense(message)?;
        let links = messages.iter().filter(|message| message.kind == LINK);
        links.map(link).collect::<Result<_>>()?
    } else {
        return Ok(None);
    };
    let mut names: Vec<&str> = links.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(Some(links)),
        Some(pair) => {
            let here = messages[0].place;
            Err(wrong(
                format!("the name `{}` stands twice in a group", pair[0]),
                here,
            ))
        }
    }
}

/// The links of a group of the older form: a tree of tables, and a heap of names.
fn symbol_table(file: &mut File<'_>, message: &Message) -> Result<Vec<(String, u64)>> {
    let broken = || wrong("a group has no table of names", message.place);
    if message.body.len() < 16 {
        return Err(broken());
    }
    let tree = address_at(&message.body, 0).ok_or_else(broken)?;
    let heap = address_at(&message.body, 8).ok_or_else(broken)?;
    let heap = file.record(heap, 32, b"HEAP")?;
    let n_bytes = u64_at(&heap, 8);
    if n_bytes > LONGEST_HEAP_BYTES {
        return Err(wrong(
            format!("a heap of names has {n_bytes} bytes"),
            message.place,
        ));
    }
    let names = file.bytes(address_at(&heap, 24).ok_or_else(broken)?, n_bytes)?;
    let mut links = Vec::new();
    tables(file, tree, DEEPEST, &names, &mut links)?;
    Ok(links)
}

/// Adds the links of all tables that a node of the tree leads to.
fn tables(
    file: &mut File<'_>,
    address: u64,
    depth: u32,
    names: &[u8],
    links: &mut Vec<(String, u64)>,
) -> Result<()> {
    let node = file.record(address, 24, b"TREE")?;
    let here = ByteRange::new(address, address + 24);
    let (kind, level, n_children) = (node[4], node[5], u64::from(u16_at(&node, 6)));
    if kind != 0 || u32::from(level) >= depth {
        return Err(wrong("the tree of a group is none", here));
    }
    // Keys and children take turns: a key, a child, and so on.
    let children = file.bytes(address + 24, n_children * 16)?;
    for child in children.chunks_exact(16) {
        let child =
            address_at(child, 8).ok_or_else(|| wrong("the tree of a group is none", here))?;
        if level == 0 {
            table(file, child, names, links)?;
        } else {
            tables(file, child, u32::from(level), names, links)?;
        }
    }
    Ok(())
}

fn table(
    file: &mut File<'_>,
    address: u64,
    names: &[u8],
    links: &mut Vec<(String, u64)>,
) -> Result<()> {
    let head = file.record(address, 8, b"SNOD")?;
    let entries = file.bytes(address + 8, u64::from(u16_at(&head, 6)) * 40)?;
    let here = ByteRange::new(address, address + 8);
    file.count(entries.len() as u64 / 40)?;
    for entry in entries.chunks_exact(40) {
        let name = usize::try_from(u64_at(entry, 0))
            .ok()
            .and_then(|at| names.get(at..));
        let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next());
        let name = name.ok_or_else(|| wrong("a name lies outside its heap", here))?;
        let name = name_of(name, here)?;
        file.count(name.len() as u64 / 64)?;
        // A link by name has no header.
        if u32_at(entry, 16) == 2 {
            return Err(wrong(format!("`{name}` is a link to another name"), here));
        }
        let header = address_at(entry, 8);
        let header = header.ok_or_else(|| wrong(format!("`{name}` lies nowhere"), here))?;
        links.push((name, header));
    }
    Ok(())
}

fn name_of(bytes: &[u8], here: ByteRange) -> Result<String> {
    let name = std::str::from_utf8(bytes)
        .ok()
        .filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong("a name is empty or not UTF-8", here))?;
    Ok(name.to_owned())
}

/// Groups of the newer form keep many links in a heap of another kind, which Keras never makes.
fn refuse_dense(message: &Message) -> Result<()> {
    let body = &message.body;
    let at = if body.get(1).is_some_and(|flags| flags & 1 != 0) {
        10
    } else {
        2
    };
    match body.get(at..at + 8) {
        Some(_) if address_at(body, at).is_none() => Ok(()),
        _ => Err(wrong(
            "a group keeps its links in a fractal heap",
            message.place,
        )),
    }
}

/// A link of the newer form.
fn link(message: &Message) -> Result<(String, u64)> {
    let broken = || {
        wrong(
            "a link is broken or leads to another name or file",
            message.place,
        )
    };
    let body = &message.body[..];
    let [1, flags, rest @ ..] = body else {
        return Err(broken());
    };
    // The kind of the link, when it was made, and the character set of its name.
    let kind_bytes = usize::from(flags & 8 != 0);
    let skipped = kind_bytes + if flags & 4 != 0 { 8 } else { 0 } + usize::from(flags & 16 != 0);
    if kind_bytes == 1 && rest.first() != Some(&0) {
        return Err(broken());
    }
    let width = 1 << (flags & 3);
    let rest = rest.get(skipped..).ok_or_else(broken)?;
    let (digits, rest) = rest.split_at_checked(width).ok_or_else(broken)?;
    let mut length = [0; 8];
    length[..width].copy_from_slice(digits);
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| broken())?;
    let (name, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
    if rest.len() < 8 {
        return Err(broken());
    }
    let header = address_at(rest, 0).ok_or_else(broken)?;
    Ok((name_of(name, message.place)?, header))
}
