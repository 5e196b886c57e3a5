//! Headers that are right, and headers that are nearly right.

use std::fmt::Write;

/// JSON text in pieces that can be changed one by one.
#[derive(Debug, Clone)]
pub enum Json {
    /// Text that stands as it is: a number, a string with its quotes, a word, or no JSON at all.
    Raw(String),
    Array(Vec<Json>),
    /// Members with their keys as raw text.
    Object(Vec<(String, Json)>),
}

/// Answers questions from a list of numbers, so that a shorter list is a simpler header.
pub struct Choices<'a>(pub std::slice::Iter<'a, u16>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n.max(1)
    }

    fn one_of<'b>(&mut self, options: &[&'b str]) -> &'b str {
        options[self.below(options.len())]
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

const DTYPES: [(&str, u64); 24] = [
    ("F32", 32),
    ("F32", 32),
    ("U8", 8),
    ("BOOL", 8),
    ("F4", 4),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

const STRINGS: &[&str] = &[
    r#""a""#,
    r#""""#,
    r#""__metadata__""#,
    r#""\u005f_metadata__""#,
    r#""a b""#,
    r#""\n\t\"\\\/\b\f\r""#,
    r#""\u0000""#,
    r#""\u00e9\uD83D\ude00""#,
    r#""\ud83d""#,
    r#""\ud83d\u0041""#,
    r#""\ud83dx""#,
    r#""\ude00""#,
    r#""\ud83d\ude0""#,
    r#""\u12g4""#,
    r#""\x""#,
    r#""\""#,
    "\"\u{7f}\u{85}\"",
    "\"a\u{1}\"",
    "\"a\nb\"",
    "\"é🙂\"",
    r#""F32""#,
    r#""f32""#,
    r#""F\u00332""#,
    r#""dtype""#,
    r#""shape""#,
    r#""data_offsets""#,
    r#""dty\u0070e""#,
    r#"'a'"#,
    "a",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "8",
    "-0",
    "-1",
    "1.0",
    "0.0",
    "1e0",
    "1E2",
    "01",
    "00",
    "+1",
    ".5",
    "1.",
    "1e",
    "1e+",
    "1e999",
    "0e999",
    "-1e400",
    "1e308",
    "2e308",
    "1.8e308",
    "1797693134862315708e290",
    "18446744073709551615e289",
    "99999999999999999999e288",
    "99999999999999999999e289",
    "18446744073709551616.5e288",
    "0.00000000000000000000000001e330",
    "0.00000000000000000000000001e335",
    "1e2147483648",
    "0e2147483648",
    "1e-2147483648",
    "1e99999999999999999999",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "4611686018427387904",
    "2305843009213693951",
    "2305843009213693952",
    "36893488147419103232",
    "-9223372036854775809",
    "1 1",
    "0x1",
    "NaN",
    "Infinity",
    "-",
    "1e5,",
];

const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "nul",
    "nulll",
    "True",
    "{}",
    "[]",
    "[1,2]",
    "{\"F32\":null}",
    "{\"F32\":{}}",
    "{\"U8\":null,\"F32\":null}",
    "[0,0,0]",
    "[0]",
    "[,]",
    "[1,]",
    "{,}",
    "",
    ",",
    "}",
    "]",
    "\u{feff}",
    "\0",
    "/**/",
    "[[[[]]]]",
    "{\"a\":{\"a\":[{}]}}",
];

const SPACES: &[&str] = &["", " ", "\n", "\t\r\n ", "", "\u{a0}", "\u{c}"];

/// A header, and the bytes of data it describes before its changes.
pub fn header(choices: &mut Choices<'_>) -> (Json, u64) {
    let mut members = Vec::new();
    if choices.once_in(2) {
        members.push(("\"__metadata__\"".into(), metadata(choices)));
    }
    let mut end = 0;
    for index in 0..choices.below(5) {
        let (tensor, size) = tensor(choices, end);
        end += size;
        let name = if choices.once_in(4) {
            choices.one_of(STRINGS).into()
        } else {
            format!("\"t{index}\"")
        };
        let place = if choices.once_in(3) {
            choices.below(members.len() + 1)
        } else {
            members.len()
        };
        members.insert(place, (name, tensor));
    }
    (Json::Object(members), end)
}

fn metadata(choices: &mut Choices<'_>) -> Json {
    let pairs = (0..choices.below(4)).map(|_| {
        let key = choices.one_of(&STRINGS[..8]).into();
        (key, Json::Raw(choices.one_of(&STRINGS[..8]).into()))
    });
    Json::Object(pairs.collect())
}

fn tensor(choices: &mut Choices<'_>, start: u64) -> (Json, u64) {
    let (dtype, width_bits) = DTYPES[choices.below(DTYPES.len())];
    let mut shape: Vec<u64> = (0..choices.below(4))
        .map(|_| choices.below(5) as u64)
        .collect();
    if choices.once_in(12) {
        let n_more = choices.below(100);
        let place = choices.below(shape.len() + 1);
        shape.splice(place..place, std::iter::repeat_n(1, n_more));
    }
    if width_bits % 8 != 0 && !choices.once_in(8) {
        shape.push(4);
    }
    let size = shape.iter().product::<u64>() * width_bits / 8;
    let numbers = |numbers: &[u64]| {
        Json::Array(
            numbers
                .iter()
                .map(|number| Json::Raw(number.to_string()))
                .collect(),
        )
    };
    let fields = vec![
        ("\"dtype\"".into(), Json::Raw(format!("\"{dtype}\""))),
        ("\"shape\"".into(), numbers(&shape)),
        ("\"data_offsets\"".into(), numbers(&[start, start + size])),
    ];
    (Json::Object(fields), size)
}

/// Changes one place of `json`.
pub fn mutate(json: &mut Json, choices: &mut Choices<'_>) {
    let n_inside = match json {
        Json::Raw(_) => 0,
        Json::Array(items) => items.len(),
        Json::Object(members) => members.len(),
    };
    if n_inside > 0 && !choices.once_in(4) {
        let inside = choices.below(n_inside);
        return match json {
            Json::Raw(_) => {}
            Json::Array(items) => mutate(&mut items[inside], choices),
            Json::Object(members) => mutate(&mut members[inside].1, choices),
        };
    }
    match json {
        Json::Raw(text) => *text = scalar(text, choices),
        Json::Array(items) => mutate_array(items, choices),
        Json::Object(_) => mutate_object(json, choices),
    }
}

fn scalar(old: &str, choices: &mut Choices<'_>) -> String {
    match choices.below(6) {
        0 | 1 => choices.one_of(NUMBERS).into(),
        2 => choices.one_of(STRINGS).into(),
        3 => choices.one_of(WORDS).into(),
        4 => format!(
            "{{{old}:{}}}",
            choices.one_of(&["null", " null", "{}", "[]", "0"])
        ),
        _ => format!("{}{old}{}", choices.one_of(SPACES), choices.one_of(SPACES)),
    }
}

fn mutate_array(items: &mut Vec<Json>, choices: &mut Choices<'_>) {
    let place = choices.below(items.len().max(1));
    match choices.below(4) {
        0 => items.insert(place, Json::Raw(choices.one_of(NUMBERS).into())),
        1 if !items.is_empty() => drop(items.remove(place)),
        2 => items.insert(place, Json::Raw(choices.one_of(WORDS).into())),
        _ => items.reverse(),
    }
}

fn mutate_object(json: &mut Json, choices: &mut Choices<'_>) {
    let Json::Object(members) = json else { return };
    let place = choices.below(members.len().max(1));
    match choices.below(9) {
        0 if !members.is_empty() => drop(members.remove(place)),
        1 if !members.is_empty() => {
            let twin = members[place].clone();
            members.insert(choices.below(members.len() + 1), twin);
        }
        2 if !members.is_empty() => members[place].0 = choices.one_of(STRINGS).into(),
        3 | 4 => {
            let value = unknown_value(choices);
            members.insert(place, (choices.one_of(STRINGS).into(), value));
        }
        5 => *json = Json::Array(members.drain(..).map(|(_, value)| value).collect()),
        6 if !members.is_empty() => {
            let other = choices.below(members.len());
            members.swap(place, other);
        }
        7 if !members.is_empty() => members[place].1 = Json::Raw(choices.one_of(WORDS).into()),
        _ if !members.is_empty() => {
            let key = &mut members[place].0;
            *key = format!("{}{key}{}", choices.one_of(SPACES), choices.one_of(SPACES));
        }
        _ => {}
    }
}

fn unknown_value(choices: &mut Choices<'_>) -> Json {
    let leaf = match choices.below(3) {
        0 => choices.one_of(NUMBERS),
        1 => choices.one_of(STRINGS),
        _ => choices.one_of(WORDS),
    };
    // The nesting limit of the reference lies between these, wherever the value stands.
    let depth = if choices.once_in(4) {
        120 + choices.below(12)
    } else {
        choices.below(4)
    };
    let mut json = Json::Raw(leaf.into());
    for level in 0..depth {
        json = if (level + depth) % 2 == 0 {
            Json::Array(vec![json])
        } else {
            Json::Object(vec![("\"x\"".into(), json)])
        };
    }
    json
}

/// The text of `json`, with `space` after each comma and colon.
pub fn render(json: &Json, space: &str, text: &mut String) {
    match json {
        Json::Raw(raw) => text.push_str(raw),
        Json::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                comma(index, space, text);
                render(item, space, text);
            }
            text.push(']');
        }
        Json::Object(members) => {
            text.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                comma(index, space, text);
                let _ = write!(text, "{key}:{space}");
                render(value, space, text);
            }
            text.push('}');
        }
    }
}

fn comma(index: usize, space: &str, text: &mut String) {
    if index > 0 {
        let _ = write!(text, ",{space}");
    }
}

/// A whole file: a header with `n_changes` changes, and about as much data as it had before.
pub fn file(choices: &mut Choices<'_>, n_changes: usize) -> Vec<u8> {
    let (mut json, data_size) = header(choices);
    for _ in 0..n_changes {
        mutate(&mut json, choices);
    }
    let mut text = String::new();
    if n_changes > 0 && choices.once_in(6) {
        text.push_str(choices.one_of(SPACES));
    }
    render(&json, choices.one_of(&["", " ", "\n"]), &mut text);
    if choices.once_in(6) {
        text.push_str(choices.one_of(SPACES));
    }
    let data_size = match choices.below(12) {
        10 => data_size.saturating_sub(1),
        11 => data_size + 1,
        _ => data_size,
    };
    whole(text.as_bytes(), data_size)
}

/// The file with this header and `data_size` zeros.
pub fn whole(text: &[u8], data_size: u64) -> Vec<u8> {
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text);
    file.resize(file.len() + data_size as usize, 0);
    file
}
