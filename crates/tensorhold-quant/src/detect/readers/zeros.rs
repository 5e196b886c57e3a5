//! What stored zeros of GPTQ tell of the version.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::reading::{ambiguous, assumed, conflict};
use super::super::weight::QuantFinding;
use crate::codec::BitOrder;
use crate::scheme::GptqFormat;

/// Zeros are looked at up to here.
const MAX_SAMPLE_BYTES: u64 = 2048;

/// What the first zeros of a weight are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    /// All of them this, in this order of bits.
    All(u8, Order),
    Various,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Words,
    Planes,
}

/// The format of a weight with zeros, by the configuration and by the zeros.
///
/// Symmetric weights have the same zero everywhere, half of the range, which is stored less one in version 1: that decides.
/// Others do not tell.
///
/// # Errors
/// `InvalidConfig` where both versions are possible.
pub(super) fn format(module: &Module<'_>, bits: u32) -> Result<(GptqFormat, Vec<QuantFinding>)> {
    let stated = stated(module)?;
    if stated == Some(GptqFormat::Planar) || matches!(bits, 5..=7) || !module.has("qzeros") {
        return Ok((stated.unwrap_or(GptqFormat::V2), Vec::new()));
    }
    let half = 1u8 << (bits - 1);
    let is_symmetric = module.settings().flag(&["sym"]);
    let shown = match look(module, bits)? {
        Seen::All(_, Order::Planes) => Some(GptqFormat::Planar),
        Seen::All(zero, _) if zero == half - 1 => Some(GptqFormat::V1),
        Seen::All(zero, _) if zero == half => Some(GptqFormat::V2),
        _ => None,
    };
    match (shown, stated) {
        (Some(shown), Some(stated)) if shown == stated || is_symmetric == Some(false) => {
            Ok((stated, Vec::new()))
        }
        (Some(shown), None) if is_symmetric != Some(false) => {
            Ok((shown, by_zeros(module, shown, half)))
        }
        (Some(shown), Some(stated)) => Ok((shown, differ(shown, stated, half))),
        (None, Some(stated)) => Ok((stated, vary(is_symmetric))),
        (_, None) => by_custom(module, is_symmetric),
    }
}

/// The format that the configuration states.
fn stated(module: &Module<'_>) -> Result<Option<GptqFormat>> {
    let settings = module.settings();
    if let Some(packing) = settings.text(&["packing_format"]) {
        return Ok(match packing {
            "auto_round" | "auto_round:gptqmodel" => Some(GptqFormat::V2),
            "auto_round:auto_gptq" | "auto_round:gptq" => Some(GptqFormat::V1),
            _ => None,
        });
    }
    Ok(match settings.text(&["checkpoint_format", "format"]) {
        Some("gptq") => Some(GptqFormat::V1),
        Some("gptq_v2") => Some(GptqFormat::V2),
        Some("gptq_p") => Some(GptqFormat::Planar),
        Some(other) if settings.is_method(&["gptq"]) => {
            let message =
                format!("`{other}` is no format of GPTQ: there are gptq, gptq_v2 and gptq_p");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        _ => None,
    })
}

/// The configuration says nothing of the version: what programs do then, where there is a configuration.
fn by_custom(
    module: &Module<'_>,
    is_symmetric: Option<bool>,
) -> Result<(GptqFormat, Vec<QuantFinding>)> {
    if module.settings().method.is_none() {
        let message = "zeros of GPTQ are stored less one (version 1) or as they are (version 2), and neither a configuration nor \
                       the zeros, which differ from each other, tell which";
        return Err(ambiguous(
            message.to_owned(),
            "say it by `checkpoint_format`: `gptq` is version 1, `gptq_v2` version 2",
        ));
    }
    let mut findings = vary(is_symmetric);
    let message = "the configuration has no `checkpoint_format`, which stands for `gptq`: zeros are stored less one";
    findings.push(assumed(message.to_owned()));
    Ok((GptqFormat::V1, findings))
}

fn by_zeros(module: &Module<'_>, shown: GptqFormat, half: u8) -> Vec<QuantFinding> {
    // Without a word on it, version 1 is what programs take for granted.
    if shown == GptqFormat::V1 && module.settings().method.is_some() {
        return Vec::new();
    }
    vec![assumed(format!(
        "no configuration says which version of GPTQ this is; all zeros are stored as {}, which symmetric weights have in {}",
        stored(shown, half),
        version(shown)
    ))]
}

fn differ(shown: GptqFormat, stated: GptqFormat, half: u8) -> Vec<QuantFinding> {
    vec![conflict(format!(
        "the configuration says {}, but all zeros are stored as {}, which symmetric weights have in {}",
        version(stated),
        stored(shown, half),
        version(shown)
    ))]
}

fn vary(is_symmetric: Option<bool>) -> Vec<QuantFinding> {
    match is_symmetric {
        Some(true) => vec![conflict(
            "the configuration says that weights are symmetric, but their zeros differ from each other".to_owned(),
        )],
        _ => Vec::new(),
    }
}

fn stored(shown: GptqFormat, half: u8) -> u8 {
    half - u8::from(shown == GptqFormat::V1)
}

fn version(format: GptqFormat) -> &'static str {
    match format {
        GptqFormat::V1 => "version 1 (`gptq`)",
        GptqFormat::V2 => "version 2 (`gptq_v2`)",
        GptqFormat::Planar => "planes (`gptq_p`)",
    }
}

/// Looks at the first zeros.
fn look(module: &Module<'_>, bits: u32) -> Result<Seen> {
    let Some(info) = module.find("qzeros") else {
        return Ok(Seen::Various);
    };
    let rows = info.shape.first().copied().unwrap_or(0).max(1);
    let row_bytes = info.size_bytes() / rows;
    // Whole runs of 32 codes lie together over rows; where rows end in between, the first row is enough.
    let run = u64::from(4 * bits);
    let max = if row_bytes.is_multiple_of(run) {
        MAX_SAMPLE_BYTES
    } else {
        row_bytes.min(MAX_SAMPLE_BYTES)
    };
    let bytes = module.scene.start_of(info, max)?;
    let n_codes = bytes.len() as u64 / run * 32;
    if n_codes == 0 {
        return Ok(Seen::Various);
    }
    let words = same(BitOrder::lsb_words(bits)?, &bytes, n_codes)?;
    let planes = match bits {
        3 => same(BitOrder::planar(bits)?, &bytes, n_codes)?,
        _ => None,
    };
    let half = 1u8 << (bits - 1);
    Ok(match (words, planes) {
        (_, Some(zero)) if zero == half => Seen::All(zero, Order::Planes),
        (Some(zero), _) => Seen::All(zero, Order::Words),
        _ => Seen::Various,
    })
}

/// The code that all are, if they are the same.
fn same(order: BitOrder, bytes: &[u8], n_codes: u64) -> Result<Option<u8>> {
    let mut codes = vec![0; usize::try_from(n_codes).unwrap_or(0)];
    let packed = order.bytes_of(0..n_codes)?;
    let packed = bytes.get(..usize::try_from(packed.end).unwrap_or(usize::MAX));
    order.unpack(packed.unwrap_or(&[]), 0, &mut codes)?;
    let first = codes.first().copied();
    Ok(first.filter(|first| codes.iter().all(|code| code == first)))
}
