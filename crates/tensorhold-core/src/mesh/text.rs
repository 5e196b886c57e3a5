//! Styles and placements as people write them: `colwise`, `Shard(0)`, `Fused(0, [4096, 1024, 1024])`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use super::placement::{FusedPart, Placement};
use super::rules::Style;
use crate::error::{Error, ErrorKind};

impl FromStr for Style {
    type Err = Error;

    /// Reads a style by its name, or what it is printed as.
    fn from_str(text: &str) -> Result<Style, Error> {
        parse(text).ok_or_else(|| {
            let message = format!("`{text}` is no style of parallelism and no placement");
            Error::new(ErrorKind::InvalidArgument, message).with_hint(
                "write a style of a `tp_plan` such as `colwise`, `stages`, `first_stage`, `last_stage`, `experts`, \
                 `Shard(0)`, `StridedShard(0, 2)`, `Blocks(0, 128)`, `Heads(0, 8)` or `Fused(0, [64, 16, 16])`",
            )
        })
    }
}

fn parse(text: &str) -> Option<Style> {
    let text = text.trim();
    if let Some(style) = Style::named(text) {
        return Some(style);
    }
    let (name, rest) = text.split_once('(')?;
    let arguments = rest.strip_suffix(')')?;
    let arguments: String = arguments.chars().filter(|c| !c.is_whitespace()).collect();
    let (first, later) = arguments.split_once(',').unwrap_or((&arguments, ""));
    let dim = || first.parse::<i64>().ok();
    Some(match name {
        "Replicate" if arguments.is_empty() => Style::Replicate,
        "Stages" => Style::Stages(Some(numbers(&arguments)?)),
        "Shard" if later.is_empty() => Style::Place(Placement::Shard { dim: dim()? }),
        "StridedShard" => Style::Place(Placement::StridedShard {
            dim: dim()?,
            split_factor: later
                .strip_prefix("split_factor=")
                .unwrap_or(later)
                .parse()
                .ok()?,
        }),
        "Blocks" => Style::Place(Placement::Blocks {
            dim: dim()?,
            size: later.parse().ok()?,
        }),
        "Heads" => Style::Place(Placement::Heads {
            dim: dim()?,
            n_heads: later.parse().ok()?,
        }),
        "Fused" => {
            let part = |size| FusedPart {
                size,
                n_heads: None,
            };
            Style::Place(Placement::Fused {
                dim: dim()?,
                parts: numbers(later)?.into_iter().map(part).collect(),
            })
        }
        _ => return None,
    })
}

/// `[1,2,3]`, without spaces.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(|number| number.parse().ok()).collect()
}
