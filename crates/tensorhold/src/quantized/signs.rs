//! What the signs of scales tell of a quantized weight.
//!
//! Most packages make a scale of the largest magnitude of a group, so that none is below 0. Two do not: MLX takes the sign of the end of a
//! group that is farther from 0, and so does AutoRound, which writes GPTQ, AWQ and the integers of compressed-tensors. A scale of 0 is what some
//! packages have for a group of zeros, and what is left where scales were lost.
//!
//! # Source
//! MLX 0.32.4, `affine_quantize`; AutoRound, `data_type/int.py`; bitsandbytes 0.50.2, `quantize_blockwise`; compressed-tensors
//! 0.20.0, `calculate_qparams`; modelopt 0.47.0, `NVFP4QTensor`.

use tensorhold_quant::detect::{QuantFinding, QuantFindingKind, SchemeName};
use tensorhold_quant::scheme::{Change, Effect, Numbers, Recipe, Zeros};

/// The place of an element, and what is wrong with it.
pub(super) type Fault = Option<(usize, String)>;

/// What the packages that write a scheme make of scales below 0.
#[derive(Clone, Copy, PartialEq)]
enum Negative {
    /// They write them like others.
    Usual,
    /// One of them writes them.
    Rare,
    /// None writes them.
    Wrong,
}

/// The scales of one weight, counted by their signs.
pub(super) struct Signs {
    scheme: SchemeName,
    negative: Negative,
    /// Whether weights are divided by the scales.
    divide: bool,
    /// Whether something is added to what a scale of 0 leaves.
    has_bias: bool,
    n_groups: u64,
    n_scales: u64,
    n_negative: u64,
    n_zero: u64,
}

impl Signs {
    /// For scales of `recipe` that do `effect`; `None` where they have no sign of their own.
    pub(super) fn of(
        scheme: SchemeName,
        recipe: &Recipe,
        scales: &Numbers,
        effect: Effect,
    ) -> Option<Signs> {
        let is_plain = !matches!(scales.change, Change::Nested(_));
        is_plain.then(|| Signs {
            scheme,
            negative: Negative::of(scheme),
            divide: (effect == Effect::Divides) != (scales.change == Change::Inverted),
            has_bias: matches!(recipe.zeros, Zeros::Bias(_)),
            n_groups: n_groups(recipe),
            n_scales: 0,
            n_negative: 0,
            n_zero: 0,
        })
    }

    /// Counts some more scales; the first that no package writes is a fault.
    pub(super) fn look(&mut self, scales: &[f32]) -> Fault {
        self.n_scales += scales.len() as u64;
        for (place, &scale) in scales.iter().enumerate() {
            if scale == 0.0 {
                self.n_zero += 1;
                if self.divide {
                    let message = "of these numbers is 0, and weights are divided by it";
                    return Some((place, message.to_owned()));
                }
            } else if scale < 0.0 {
                self.n_negative += 1;
                if self.negative == Negative::Wrong {
                    let scheme = self.scheme;
                    let message =
                        format!("of these numbers is {scale}: scales of {scheme} are not negative");
                    return Some((place, message));
                }
            }
        }
        None
    }

    /// What is worth knowing of the scales that were counted.
    pub(super) fn findings(&self) -> Vec<QuantFinding> {
        let rest = if self.has_bias { "the bias" } else { "0" };
        // What fills up a part is 0, too.
        let n_others = self.n_scales.saturating_sub(self.n_groups);
        let vanished = match self.n_zero.saturating_sub(n_others) {
            0 => None,
            _ if self.n_zero == self.n_scales => Some(format!(
                "all its scales are 0, so that its weights are {rest} whatever the codes are"
            )),
            _ => Some(format!(
                "some of its scales are 0, so that the weights of their groups are {rest} whatever the codes are"
            )),
        };
        let is_told = self.n_negative > 0 && self.negative == Negative::Rare;
        let negative = is_told.then(|| {
            "some of its scales are negative, as AutoRound writes them and most programs do not"
                .to_owned()
        });
        let messages = vanished.into_iter().chain(negative);
        messages
            .map(|message| QuantFinding::new(QuantFindingKind::Note, message))
            .collect()
    }
}

/// The groups of codes that share a scale.
fn n_groups(recipe: &Recipe) -> u64 {
    let [experts, rows, columns] = recipe.codes.size;
    let rows = rows.div_ceil(recipe.groups.rows.max(1));
    let columns = columns.div_ceil(recipe.groups.columns.max(1));
    experts.saturating_mul(rows).saturating_mul(columns)
}

impl Negative {
    fn of(scheme: SchemeName) -> Negative {
        match scheme {
            SchemeName::Mlx => Negative::Usual,
            SchemeName::Fp8
            | SchemeName::Mxfp4
            | SchemeName::Mxfp6
            | SchemeName::Mxfp8
            | SchemeName::Nvfp4
            | SchemeName::Nf4
            | SchemeName::BnbFp4
            | SchemeName::BnbInt8 => Negative::Wrong,
            _ => Negative::Rare,
        }
    }
}
