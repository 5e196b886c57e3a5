//! The index of a checkpoint in several files, `*.safetensors.index.json`: which tensor lies in
//! which shard.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use crate::error::{Error, ErrorKind, Result};
use crate::escape::Named;
use crate::extent::ByteRange;
use crate::header::json::{Cursor, JsonStr};

/// A parsed index. The names of its shards are names of files beside it, never paths.
///
/// ```
/// use tensorhold_core::ShardIndex;
///
/// let index = ShardIndex::parse(br#"{"weight_map": {"w": "b.safetensors", "v": "a.safetensors"}}"#)?;
/// assert_eq!(index.shards(), ["a.safetensors", "b.safetensors"]);
/// assert_eq!(index.shard_of("w"), Some(1));
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ShardIndex {
    shards: Vec<String>,
    /// The names of all tensors, one behind the other.
    names: String,
    /// In the order of the names.
    entries: Vec<Entry>,
    metadata: Option<String>,
    total_size: Option<u64>,
}

/// One tensor: where its name stands in `names`, and which shard holds it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name_start: u32,
    name_length: u32,
    shard: u32,
}

impl Entry {
    fn name(self, names: &str) -> &str {
        &names[self.name_start as usize..][..self.name_length as usize]
    }
}

impl ShardIndex {
    /// The index in `text`, the whole of an index file.
    ///
    /// # Errors
    /// `InvalidIndex` if it is no JSON object with a `weight_map` from names of tensors to names of
    /// files, if a key stands twice, and if a shard's name could lead out of the index's folder.
    pub fn parse(text: &[u8]) -> Result<ShardIndex> {
        if u32::try_from(text.len()).is_err() {
            let message = format!("the index has {} bytes, over the limit of 2^32", text.len());
            return Err(Error::new(ErrorKind::InvalidIndex, message));
        }
        let text = core::str::from_utf8(text).map_err(|error| not_utf8(error.valid_up_to()))?;
        Parser::new(text).index()
    }

    /// The names of the files that hold the tensors, sorted, each once.
    #[must_use]
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The place in [`shards`](ShardIndex::shards) of the file that holds this tensor.
    #[must_use]
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        let place = self
            .entries
            .binary_search_by(|entry| entry.name(&self.names).cmp(tensor))
            .ok()?;
        Some(self.entries[place].shard as usize)
    }

    /// Each tensor with the place of its shard, sorted by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, usize)> + Clone {
        self.entries
            .iter()
            .map(|entry| (entry.name(&self.names), entry.shard as usize))
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `metadata` as JSON text, as it stands in the file.
    #[must_use]
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// The bytes of all tensors as the metadata states them; not checked against the shards.
    #[must_use]
    pub fn total_size(&self) -> Option<u64> {
        self.total_size
    }

    /// The text of an index file for tensors and the shards that hold them.
    ///
    /// The metadata holds `total_size` and the given entries as strings. The bytes are those that
    /// `json.dumps(index, indent=2, sort_keys=True) + "\n"` gives in Python, which is how Hugging
    /// Face's libraries write an index. Of a tensor or a key that is given twice, the last counts.
    pub fn to_json<'a>(
        entries: impl Iterator<Item = (&'a str, &'a str)>,
        total_size: u64,
        metadata: &[(&str, &str)],
    ) -> String {
        let mut fields: BTreeMap<&str, String> = BTreeMap::new();
        for (key, value) in metadata {
            fields.insert(key, json_string(value));
        }
        fields.insert("total_size", total_size.to_string());
        let weight_map: BTreeMap<&str, &str> = entries.collect();

        let mut json = String::from("{\n  \"metadata\": {\n");
        for (nth, (key, value)) in fields.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ",\n" };
            write_to(
                &mut json,
                format_args!("{comma}    {}: {value}", json_string(key)),
            );
        }
        json.push_str("\n  },\n  \"weight_map\": {");
        for (nth, (tensor, shard)) in weight_map.iter().enumerate() {
            let comma = if nth == 0 { "\n" } else { ",\n" };
            let (tensor, shard) = (json_string(tensor), json_string(shard));
            write_to(&mut json, format_args!("{comma}    {tensor}: {shard}"));
        }
        json.push_str(if weight_map.is_empty() {
            "}\n}\n"
        } else {
            "\n  }\n}\n"
        });
        json
    }
}

struct Parser<'a> {
    text: &'a str,
    cursor: Cursor<'a>,
    names: String,
    entries: Vec<Entry>,
    /// The number that each shard got when it came first.
    shards: BTreeMap<Cow<'a, str>, u32>,
    last_shard: Option<(&'a str, u32)>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser {
            text,
            cursor: Cursor::new(text, 0, ErrorKind::InvalidIndex),
            names: String::new(),
            entries: Vec::new(),
            shards: BTreeMap::new(),
            last_shard: None,
        }
    }

    fn index(mut self) -> Result<ShardIndex> {
        let (mut metadata, mut total_size, mut has_map) = (None, None, false);
        self.cursor.expect(b'{', "`{`")?;
        let mut first = true;
        while let Some(key) = self.cursor.next_key(&mut first)? {
            match &*key.resolve() {
                twice @ "weight_map" if has_map => return Err(self.stands_twice(key, twice)),
                twice @ "metadata" if metadata.is_some() => {
                    return Err(self.stands_twice(key, twice));
                }
                "weight_map" => {
                    has_map = true;
                    self.weight_map()?;
                }
                "metadata" => (metadata, total_size) = self.metadata()?,
                _ => self.cursor.skip_value(1)?,
            }
        }
        self.cursor.end()?;
        if !has_map {
            let message = "the index has no `weight_map`";
            return Err(Error::new(ErrorKind::InvalidIndex, message));
        }
        self.finish(metadata, total_size)
    }

    fn weight_map(&mut self) -> Result<()> {
        self.cursor
            .expect(b'{', "an object from tensors to files")?;
        let mut first = true;
        while let Some(key) = self.cursor.next_key(&mut first)? {
            let name_start = self.names.len();
            key.resolve_into(&mut self.names);
            let name_length = self.names.len() - name_start;
            let shard = self
                .shard()
                .map_err(|error| error.with_tensor(&self.names[name_start..]))?;
            // Resolved names are no longer than the text, which is shorter than 2^32.
            self.entries.push(Entry {
                name_start: name_start as u32,
                name_length: name_length as u32,
                shard,
            });
        }
        Ok(())
    }

    fn shard(&mut self) -> Result<u32> {
        let string = self.cursor.string("the name of a file")?;
        match (string.plain(), self.last_shard) {
            (Some(plain), Some((last, number))) if plain == last => return Ok(number),
            _ => {}
        }
        let name = string.resolve();
        if let Some(fault) = path_fault(&name) {
            let message = format!("the shard {} {fault}", Named(&name));
            return Err(self
                .cursor
                .fault_at(string.start(), message)
                .with_hint("the shards must lie beside the index, and be named without a folder"));
        }
        let next = self.shards.len() as u32;
        let number = *self.shards.entry(name).or_insert(next);
        self.last_shard = string.plain().map(|plain| (plain, number));
        Ok(number)
    }

    /// The metadata as it stands in the text, and its `total_size` where that is a whole number.
    fn metadata(&mut self) -> Result<(Option<String>, Option<u64>)> {
        self.cursor.peek();
        let start = self.cursor.position();
        self.cursor.skip_value(1)?;
        let raw = &self.text[start..self.cursor.position()];
        Ok((Some(raw.into()), total_size(raw)?))
    }

    fn finish(mut self, metadata: Option<String>, total_size: Option<u64>) -> Result<ShardIndex> {
        let names = &self.names;
        self.entries
            .sort_unstable_by(|left, right| left.name(names).cmp(right.name(names)));
        let mut neighbours = self.entries.windows(2);
        if let Some(twice) = neighbours.find(|two| two[0].name(names) == two[1].name(names)) {
            let name = twice[0].name(names);
            let message = format!("the tensor {} stands twice in the index", Named(name));
            return Err(Error::new(ErrorKind::InvalidIndex, message).with_tensor(name));
        }
        let mut places = alloc::vec![0; self.shards.len()];
        for (place, number) in self.shards.values().enumerate() {
            places[*number as usize] = place as u32;
        }
        for entry in &mut self.entries {
            entry.shard = places[entry.shard as usize];
        }
        self.names.shrink_to_fit();
        self.entries.shrink_to_fit();
        Ok(ShardIndex {
            shards: self.shards.into_keys().map(Cow::into_owned).collect(),
            names: self.names,
            entries: self.entries,
            metadata,
            total_size,
        })
    }

    fn stands_twice(&self, key: JsonStr<'_>, name: &str) -> Error {
        self.cursor
            .fault_at(key.start(), format!("the key `{name}` stands twice"))
    }
}

/// The `total_size` of a metadata object that has been read over once.
fn total_size(raw: &str) -> Result<Option<u64>> {
    let mut cursor = Cursor::new(raw, 0, ErrorKind::InvalidIndex);
    if cursor.expect(b'{', "`{`").is_err() {
        return Ok(None);
    }
    let mut size = None;
    let mut first = true;
    while let Some(key) = cursor.next_key(&mut first)? {
        cursor.peek();
        let start = cursor.position();
        cursor.skip_value(2)?;
        if key.resolve() == "total_size" {
            size = raw[start..cursor.position()].parse().ok();
        }
    }
    Ok(size)
}

/// Why a name could lead to another place than the index's folder, on any system.
fn path_fault(name: &str) -> Option<&'static str> {
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    Some(match name {
        "" => "has no name",
        "." | ".." => "is a folder",
        _ if name.contains('\0') => "has a NUL in its name",
        _ if name.starts_with(['/', '\\']) || has_drive => "is an absolute path",
        _ if name.contains(['/', '\\']) => "is a path through folders",
        _ => return None,
    })
}

fn not_utf8(valid_up_to: usize) -> Error {
    let start = valid_up_to as u64;
    Error::new(ErrorKind::InvalidIndex, "the index is no UTF-8")
        .with_bytes(ByteRange::new(start, start + 1))
}

/// A JSON string of ASCII characters only.
///
/// # Source
/// Python's `json.dumps` with its default of `ensure_ascii=True`.
fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='~' => json.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write_to(&mut json, format_args!("\\u{unit:04x}"));
                }
            }
        }
    }
    json.push('"');
    json
}

fn write_to(text: &mut String, arguments: core::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a String takes all that is written");
}
