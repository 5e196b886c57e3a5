//! The settings that TGI's `quantize` stores as tensors, beside the weights.

use tensorhold_core::{ByteRange, Dtype, Result, TensorInfo};

use super::super::evidence::Evidence;
use super::super::json::Json;

/// The names of tensors, and the keys that other configurations have for them.
const SCALARS: [(&str, &str); 3] = [
    ("gptq_bits", "bits"),
    ("gptq_groupsize", "group_size"),
    ("gptq_sym", "sym"),
];

/// The settings, where the tensors are there.
///
/// # Errors
/// What reading them fails with.
pub(in super::super) fn settings(evidence: &Evidence<'_>) -> Result<Option<Json>> {
    let mut entries = Vec::new();
    for info in &evidence.tensors {
        let scalar = SCALARS.iter().find(|(name, _)| *name == info.name);
        let Some(((_, key), number)) = scalar.zip(number(evidence, info)?) else {
            continue;
        };
        let value = match *key {
            "sym" => Json::Flag(number != 0),
            _ => Json::Number(number as f64),
        };
        entries.push(((*key).to_owned(), value));
    }
    Ok((!entries.is_empty()).then_some(Json::Object(entries)))
}

/// The only number in a tensor of whole numbers.
fn number(evidence: &Evidence<'_>, info: &TensorInfo<'_>) -> Result<Option<i64>> {
    let width = match info.dtype {
        Dtype::I64 => 8,
        Dtype::I32 => 4,
        Dtype::U8 | Dtype::BOOL => 1,
        _ => return Ok(None),
    };
    if info.size_bytes() != width {
        return Ok(None);
    }
    let bytes = (evidence.read)(info.name, ByteRange::new(0, width))?;
    Ok(match *bytes {
        [byte] => Some(byte.into()),
        [a, b, c, d] => Some(i32::from_le_bytes([a, b, c, d]).into()),
        _ => bytes.try_into().map(i64::from_le_bytes).ok(),
    })
}
