//! Weights beside those that other programs make of the same parts, whole and in slices.
//!
//! `scheme_golden.py` makes the text files with the packages that write these formats.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use tensorhold_core::{ByteRange, Dtype, ErrorKind, Result};
use tensorhold_quant::codec::{FloatCode, FourBitTable};
use tensorhold_quant::dequantize;
use tensorhold_quant::scheme::{
    AwqGemm, AwqGemv, AwqGemvFast, Axis, BitNet, BitNetScale, Bitsandbytes4, Bitsandbytes8, Fp8,
    Gptq, GptqFormat, Hqq, IntQuantized, Mlx, MlxMode, Mx, MxNames, Need, NestedScales, Nvfp4,
    Nvfp4Names, PackQuantized, Parts, QuantoBits, Recipe, ScaleOrder, Scheme, SparseBitmask,
    W4a16Awq, Window,
};

const GOLDEN: &str = include_str!("scheme_golden.txt");
const GOLDEN_011: &str = include_str!("scheme_golden_011.txt");
const GOLDEN_MORE: &str = include_str!("scheme_golden_more.txt");

struct Part {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

struct Case {
    name: &'static str,
    parts: Vec<Part>,
    dtype: Dtype,
    shape: Vec<u64>,
    rows: Vec<u32>,
}

/// The cases of weights that have recipes.
fn cases() -> Vec<Case> {
    let cases = all_cases().into_iter();
    cases
        .filter(|case| !case.name.starts_with("sparse"))
        .collect()
}

fn all_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in [GOLDEN, GOLDEN_011, GOLDEN_MORE]
        .into_iter()
        .flat_map(str::lines)
    {
        let words: Vec<&'static str> = line.split(' ').collect();
        match words[..] {
            ["case", ..] => cases.push(Case {
                name: &line[5..],
                parts: Vec::new(),
                dtype: Dtype::F32,
                shape: Vec::new(),
                rows: Vec::new(),
            }),
            // The name of fused experts themselves has nothing after it.
            ["part", name, dtype, shape, bytes] => {
                let (dtype, shape) = (dtype.parse().unwrap(), numbers(shape));
                let part = Part {
                    name,
                    dtype,
                    shape,
                    bytes: from_hex(bytes),
                };
                cases.last_mut().unwrap().parts.push(part);
            }
            ["weight", dtype, shape, ..] => {
                let case = cases.last_mut().unwrap();
                (case.dtype, case.shape) = (dtype.parse().unwrap(), numbers(shape));
                let sums = words[3..]
                    .iter()
                    .map(|sum| u32::from_str_radix(sum, 16).unwrap());
                case.rows = sums.collect();
            }
            _ => panic!("`{line}`"),
        }
    }
    cases
}

fn numbers(text: &str) -> Vec<u64> {
    let numbers = text.split(',').filter(|number| *number != "-");
    numbers.map(|number| number.parse().unwrap()).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    let pairs = hex.as_bytes().as_chunks().0.iter();
    pairs
        .map(|[high, low]| digit(*high) << 4 | digit(*low))
        .collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ ((crc & 1) * 0xedb8_8320);
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

impl Case {
    fn find(&self, key: &str) -> Option<&'static str> {
        let fields = self.name.split(' ');
        let mut fields = fields.filter_map(|field| field.split_once('='));
        Some(fields.find(|field| field.0 == key)?.1)
    }

    fn field(&self, key: &str) -> &'static str {
        self.find(key)
            .unwrap_or_else(|| panic!("no {key} in {}", self.name))
    }

    fn number(&self, key: &str) -> u64 {
        self.field(key).parse().unwrap()
    }

    fn group(&self) -> Option<u64> {
        self.find("group")
            .map(|size| size.parse().unwrap())
            .filter(|size| *size > 0)
    }

    fn parts(&self) -> Parts<'_> {
        self.parts
            .iter()
            .map(|part| (part.name, part.dtype, &part.shape[..]))
            .collect()
    }

    fn recipe(&self) -> Recipe {
        let parts = self.parts();
        let kind = self.name.split(' ').next().unwrap();
        let recipe = match kind {
            "fp8" if self.name == "fp8" => Fp8::default().recipe(&parts),
            "fp8" => Fp8 {
                block: numbers(self.field("block")).try_into().ok(),
            }
            .recipe(&parts),
            "int8" => IntQuantized {
                group_size: self.group(),
            }
            .recipe(&parts),
            "awq" => AwqGemm {
                group_size: self.group(),
            }
            .recipe(&parts),
            "pack" => self.pack().recipe(&parts),
            "gptq" => self.gptq().recipe(&parts),
            "mx" => self.mx().recipe(&parts),
            "nvfp4" => self.nvfp4().recipe(&parts),
            _ => self.recipe_of_more(kind, &parts),
        };
        recipe.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The recipe of a weight that its program has quantized itself.
    fn recipe_of_more(&self, kind: &str, parts: &Parts<'_>) -> Result<Recipe> {
        match kind {
            "bnb4" => self.bitsandbytes().recipe(parts),
            "bnb8" => Bitsandbytes8.recipe(parts),
            "mlx" => self.mlx().recipe(parts),
            "hqq" => self.hqq().recipe(parts),
            "quanto" => QuantoBits {
                bits: self.number("bits") as u32,
                shape: numbers(self.field("shape")).try_into().unwrap(),
            }
            .recipe(parts),
            "bitnet" => BitNet {
                scale: match self.field("scale") {
                    "Divides" => BitNetScale::Divides,
                    _ => BitNetScale::Multiplies,
                },
            }
            .recipe(parts),
            "awqgemv" => AwqGemv {
                group_size: self.group(),
            }
            .recipe(parts),
            "awqfast" => AwqGemvFast {
                group_size: self.group(),
            }
            .recipe(parts),
            "w4a16awq" => W4a16Awq {
                group_size: self.number("group"),
            }
            .recipe(parts),
            _ => panic!("{}", self.name),
        }
    }

    fn nvfp4(&self) -> Nvfp4 {
        let names = match self.field("names") {
            "Modelopt" => Nvfp4Names::Modelopt,
            "ComfyUi" => Nvfp4Names::ComfyUi,
            "Torchao" => Nvfp4Names::Torchao,
            "TorchaoTiles" => Nvfp4Names::TorchaoTiles,
            _ => Nvfp4Names::CompressedTensors,
        };
        Nvfp4 { names }
    }

    fn bitsandbytes(&self) -> Bitsandbytes4 {
        let table = self
            .parts
            .iter()
            .find(|part| part.name.ends_with("quant_map") && !part.name.contains("nested"));
        let mut values = [0.0; 16];
        let bytes = table.unwrap().bytes.as_chunks().0;
        for (value, bytes) in values.iter_mut().zip(bytes) {
            *value = f32::from_le_bytes(*bytes);
        }
        let named = match self.field("table") {
            "nf4" => FourBitTable::NF4,
            _ => FourBitTable::BITSANDBYTES_FP4,
        };
        assert_eq!(named, FourBitTable(values), "{}", self.name);
        Bitsandbytes4 {
            shape: numbers(self.field("shape")),
            block_size: self.number("block"),
            table: named,
            nested: self.find("nested").map(|size| NestedScales {
                block_size: size.parse().unwrap(),
                offset: self.field("offset").parse().unwrap(),
            }),
        }
    }

    fn mlx(&self) -> Mlx {
        Mlx {
            mode: match self.field("mode") {
                "affine" => MlxMode::Affine,
                "mxfp4" => MlxMode::Mxfp4,
                "mxfp8" => MlxMode::Mxfp8,
                _ => MlxMode::Nvfp4,
            },
            bits: self.number("bits") as u32,
            group_size: self.number("group"),
        }
    }

    fn hqq(&self) -> Hqq {
        Hqq {
            bits: self.number("bits") as u32,
            group_size: self.group(),
            axis: match self.field("axis") {
                "0" => Axis::Rows,
                _ => Axis::Columns,
            },
            shape: numbers(self.field("shape")),
        }
    }

    fn pack(&self) -> PackQuantized {
        PackQuantized {
            bits: self.field("bits").parse().unwrap(),
            group_size: self.group(),
            shape: numbers(self.field("shape")).try_into().unwrap(),
            order: None,
        }
    }

    fn gptq(&self) -> Gptq {
        let format = match self.field("format") {
            "V1" => GptqFormat::V1,
            "V2" => GptqFormat::V2,
            _ => GptqFormat::Planar,
        };
        let bits = self.field("bits").parse().unwrap();
        Gptq {
            bits,
            group_size: self.group(),
            format,
        }
    }

    fn mx(&self) -> Mx {
        let float = match self.field("float") {
            "E2m1" => FloatCode::E2m1,
            "E4m3" => FloatCode::E4m3,
            _ => FloatCode::E2m3,
        };
        let names = match self.field("names") {
            "GptOss" => MxNames::GptOss,
            "Torchao" => MxNames::Torchao,
            "Modelopt" => MxNames::Modelopt,
            _ => MxNames::CompressedTensors,
        };
        let scales = match self.find("scales") {
            Some("Tiles") => ScaleOrder::Tiles,
            _ => ScaleOrder::Rows,
        };
        Mx {
            float,
            names,
            scales,
        }
    }

    /// The weights of a piece of the recipe, made of no more than its own parts.
    fn piece(&self, recipe: &Recipe, window: &Window, piece: &Recipe) -> Vec<u8> {
        let (needs, own) = (
            recipe.needs(window).unwrap(),
            piece.needs(&piece.whole()).unwrap(),
        );
        for (need, own) in needs.iter().zip(&own) {
            let size = need.ranges.each_ref().map(|range| range.end - range.start);
            assert_eq!(size, own.view, "{} {}", self.name, own.part);
        }
        let bytes: Vec<Vec<u8>> = needs.iter().map(|need| self.bytes_of(need)).collect();
        self.weights_of(piece, &piece.whole(), &bytes)
    }

    /// The weights of a window, made of the bytes that the recipe asks for and no others.
    fn weights(&self, recipe: &Recipe, window: &Window) -> Vec<u8> {
        let needs = recipe.needs(window).unwrap();
        let bytes: Vec<Vec<u8>> = needs.iter().map(|need| self.bytes_of(need)).collect();
        self.weights_of(recipe, window, &bytes)
    }

    /// The bytes that are needed of a part.
    fn bytes_of(&self, need: &Need) -> Vec<u8> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| part.name == need.part).unwrap();
        let view: u64 = need.view.iter().product();
        let width = u64::from(need.dtype.width_bytes().unwrap());
        assert_eq!(view * width, part.bytes.len() as u64, "{}", self.name);
        let mut bytes = Vec::new();
        for range in need.stretches() {
            bytes.extend_from_slice(&part.bytes[range.start as usize..range.end as usize]);
        }
        assert_eq!(bytes.len() as u64, need.size_bytes().unwrap());
        bytes
    }

    fn weights_of(&self, recipe: &Recipe, window: &Window, bytes: &[Vec<u8>]) -> Vec<u8> {
        let bytes: Vec<&[u8]> = bytes.iter().map(|bytes| &bytes[..]).collect();
        let sizes = [&window.experts, &window.rows, &window.columns];
        let n_weights: u64 = sizes.map(|range| range.end - range.start).iter().product();
        let width = self.dtype.width_bytes().unwrap();
        let mut into = vec![0xa5; n_weights as usize * width as usize];
        dequantize(recipe, window, &bytes, self.dtype, &mut into).unwrap();
        into
    }
}

#[test]
fn weights_are_those_of_other_programs() {
    let mut wrong = Vec::new();
    for case in cases() {
        let recipe = case.recipe();
        assert_eq!(recipe.shape, case.shape, "{}", case.name);
        let weights = case.weights(&recipe, &recipe.whole());
        let rows = weights.chunks(weights.len() / case.rows.len());
        let found: Vec<u32> = rows.map(crc32).collect();
        if found != case.rows {
            let n_wrong = found.iter().zip(&case.rows).filter(|(a, b)| a != b).count();
            wrong.push(format!(
                "{} {}: {n_wrong} of {} rows",
                case.name,
                case.dtype,
                found.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Windows that begin and end at every kind of place.
fn windows(recipe: &Recipe) -> Vec<Window> {
    let [experts, rows, columns] = recipe.size();
    let cuts = |size: u64| {
        let ends = [0, 1, 3, 8, 15, 32, 33, size / 2, size - 1, size];
        let ends: Vec<u64> = ends.into_iter().filter(|end| *end <= size).collect();
        let starts = ends.clone();
        starts.into_iter().flat_map(move |start| {
            let ends = ends.clone().into_iter().filter(move |end| start <= *end);
            ends.map(move |end| start..end).collect::<Vec<_>>()
        })
    };
    let mut windows = Vec::new();
    for (number, rows) in cuts(rows).enumerate() {
        for (other, columns) in cuts(columns).enumerate() {
            if (number + other) % 11 == 0 {
                let experts = number as u64 % experts..experts;
                windows.push(Window {
                    experts,
                    rows: rows.clone(),
                    columns,
                });
            }
        }
    }
    windows
}

#[test]
fn a_slice_is_the_slice_of_the_whole_and_needs_no_other_bytes() {
    for case in cases() {
        let recipe = case.recipe();
        let [_, n_rows, n_columns] = recipe.size();
        let width = u64::from(case.dtype.width_bytes().unwrap());
        let whole = case.weights(&recipe, &recipe.whole());
        for window in windows(&recipe) {
            let mut expected = Vec::new();
            for expert in window.experts.clone() {
                for row in window.rows.clone() {
                    let start = (expert * n_rows + row) * n_columns;
                    let (from, to) = (start + window.columns.start, start + window.columns.end);
                    expected
                        .extend_from_slice(&whole[(from * width) as usize..(to * width) as usize]);
                }
            }
            assert!(
                expected == case.weights(&recipe, &window),
                "{} {window:?}",
                case.name
            );
        }
    }
}

#[test]
fn cuts_lie_between_words_and_groups() {
    let units = |name: &str| {
        let all = cases();
        let case = all.iter().find(|case| case.name == name).unwrap();
        case.recipe().granularity().units
    };
    assert_eq!(units("fp8 block=32,16"), [32, 16]);
    assert_eq!(units("awq group=32"), [8, 32]);
    assert_eq!(units("gptq bits=3 group=32 format=V1"), [32, 32]);
    assert_eq!(units("gptq bits=4 group=0 format=V1"), [8, 8]);
    assert_eq!(units("mx float=E2m1 names=GptOss"), [1, 1, 32]);
    assert_eq!(units("nvfp4 names=Modelopt"), [1, 16]);
    // Tiles of scales are cut between rows alone.
    assert_eq!(units("nvfp4 names=ComfyUi"), [128, 80]);
    assert_eq!(units("int8"), [1, 1]);
}

/// The window of rank `rank` of `n_ranks` along a way of the weight.
fn of_rank(whole: &Window, axis: Axis, n_ranks: u64, rank: u64) -> Window {
    let mut window = whole.clone();
    let range = match axis {
        Axis::Rows => &mut window.rows,
        Axis::Columns => &mut window.columns,
    };
    *range = range.end * rank / n_ranks..range.end * (rank + 1) / n_ranks;
    window
}

#[test]
fn ranks_hold_weights_of_their_own_or_are_told_the_nearest_cut() {
    let (mut n_legal, mut n_refused) = (0, 0);
    for case in cases() {
        let recipe = case.recipe();
        for (axis, n_ranks) in [2, 4, 8]
            .into_iter()
            .flat_map(|n| [(Axis::Rows, n), (Axis::Columns, n)])
        {
            let windows: Vec<Window> = (0..n_ranks)
                .map(|rank| of_rank(&recipe.whole(), axis, n_ranks, rank))
                .collect();
            let pieces: Result<Vec<Recipe>> =
                windows.iter().map(|window| recipe.piece(window)).collect();
            let cut = match axis {
                Axis::Rows => windows[0].rows.end,
                Axis::Columns => windows[0].columns.end,
            };
            let units = recipe.granularity().units;
            let unit = units[units.len() - 1 - usize::from(axis == Axis::Rows)];
            let Ok(pieces) = pieces else {
                let message = pieces.unwrap_err().message().to_owned();
                assert!(
                    message.contains("the nearest cuts are at"),
                    "{}: {message}",
                    case.name
                );
                n_refused += 1;
                continue;
            };
            assert_eq!(cut % unit, 0, "{} {axis:?} {n_ranks}", case.name);
            for (window, piece) in windows.iter().zip(&pieces) {
                assert_eq!(
                    case.piece(&recipe, window, piece),
                    case.weights(&recipe, window),
                    "{}",
                    case.name
                );
            }
            n_legal += 1;
        }
    }
    assert!(n_legal > 300 && n_refused > 100, "{n_legal} {n_refused}");
}

#[test]
fn a_cut_inside_of_a_unit_is_refused_with_the_nearest() {
    let all = cases();
    let refused = |name: &str, rows, columns| {
        let case = all.iter().find(|case| case.name.starts_with(name)).unwrap();
        let recipe = case.recipe();
        let window = Window {
            rows,
            columns,
            ..recipe.whole()
        };
        recipe.piece(&window).unwrap_err().message().to_owned()
    };
    assert_eq!(
        refused("gptq bits=3 group=32", 0..40, 0..96),
        "dimension 0 of size 64 would be cut at 40, inside a unit of 32: the nearest cuts are at 32 and 64"
    );
    assert_eq!(
        refused("mlx mode=mxfp4", 0..20, 48..96),
        "dimension 1 of size 96 would be cut at 48, inside a unit of 32: the nearest cuts are at 32 and 64"
    );
    assert_eq!(
        refused("bitnet", 0..10, 0..30),
        "dimension 0 of size 20 would be cut at 10, inside a unit of 20: the nearest cuts are at 0 and 20"
    );
}

#[test]
fn pieces_at_a_legal_cut_share_whole_parts_or_nothing() {
    for case in cases() {
        let recipe = case.recipe();
        let whole = recipe.whole();
        let units = recipe.granularity().units;
        let [.., row_unit, column_unit] = units[..] else {
            panic!("{units:?}");
        };
        let (mut top, mut bottom) = (whole.clone(), whole.clone());
        let row = row_unit.min(whole.rows.end);
        (top.rows, bottom.rows) = (0..row, row..whole.rows.end);
        let (mut left, mut right) = (whole.clone(), whole.clone());
        let column = column_unit.min(whole.columns.end);
        (left.columns, right.columns) = (0..column, column..whole.columns.end);
        for (first, second) in [(top, bottom), (left, right)] {
            if second.rows.is_empty() || second.columns.is_empty() {
                continue;
            }
            let needs = [&first, &second].map(|window| recipe.needs(window).unwrap());
            let [first, second] = needs;
            for (first, second) in first.into_iter().zip(second) {
                for (a, b) in first.ranges.iter().zip(&second.ranges) {
                    let apart = a == b || a.end == b.start;
                    assert!(apart, "{} {}: {a:?} {b:?}", case.name, first.part);
                }
            }
        }
    }
}

#[test]
fn rows_of_weights_that_are_mostly_zero_are_those_of_other_programs() {
    let sparse = all_cases()
        .into_iter()
        .filter(|case| case.name.starts_with("sparse"));
    let mut n_cases = 0;
    for case in sparse {
        let weight = SparseBitmask::new(&case.parts(), case.shape[..].try_into().unwrap()).unwrap();
        assert_eq!(weight.dtype(), case.dtype);
        let part = |name: &str, range: ByteRange| {
            let part = case.parts.iter().find(|part| part.name == name);
            let bytes = part.map_or(&[][..], |part| &part.bytes);
            &bytes[range.start as usize..range.end as usize]
        };
        let size = case.shape[1] as usize * case.dtype.width_bytes().unwrap() as usize;
        for (start, end) in [(0, 12), (0, 1), (3, 4), (2, 7), (11, 12), (5, 5)] {
            let offsets = part("row_offsets", weight.offset_bytes(start..end).unwrap());
            let values = part(
                "compressed",
                weight.value_bytes(start..end, offsets).unwrap(),
            );
            let bits = part("bitmask", weight.mask_bytes(start..end).unwrap());
            let mut rows = vec![0xa5; (end - start) as usize * size];
            weight
                .scatter(start..end, bits, offsets, values, &mut rows)
                .unwrap();
            let sums: Vec<u32> = rows.chunks(size).map(crc32).collect();
            assert_eq!(
                sums,
                case.rows[start as usize..end as usize],
                "{start}..{end}"
            );
            let fewer = weight.scatter(
                start..end,
                bits,
                offsets,
                &[values, &[0]].concat(),
                &mut rows,
            );
            assert_eq!(fewer.unwrap_err().kind(), ErrorKind::InvalidTensor);
        }
        n_cases += 1;
    }
    assert_eq!(n_cases, 6);
}
