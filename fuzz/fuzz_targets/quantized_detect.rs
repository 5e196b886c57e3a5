//! Any names, types, shapes, metadata and configurations: what is quantized is found without a panic, no number becomes
//! memory, and a recipe asks for nothing but what its tensors have.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tensorhold_core::{ByteRange, Dtype, ErrorKind, TensorInfo, n_elements, shape_size_bytes};
use tensorhold_fuzz::memory::{Counting, peak_of};
use tensorhold_quant::detect::{ConfigText, Evidence, Layout, Quantization, detect};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Compiled patterns, and a blob or two.
const SPARE_BYTES: usize = 32 << 20;
/// Values of JSON for each byte of it.
const FOR_EACH_BYTE: usize = 1024;
const MAX_READ_BYTES: u64 = 64 << 10;

const SUFFIXES: [&str; 48] = [
    ".weight",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_scale_2",
    ".weight_packed",
    ".weight_shape",
    ".weight_global_scale",
    ".weight_zero_point",
    ".weight_g_idx",
    ".scale",
    ".scales",
    ".biases",
    ".bias",
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".B",
    ".s",
    ".trellis",
    ".comfy_quant",
    ".SCB",
    ".weight_format",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight.quant_state.bitsandbytes__fp4",
    "._weight_qdata",
    "._weight_scale",
    "._weight_zero_point",
    "._weight_per_tensor_scale",
    ".weight._data",
    ".weight._data._data",
    ".weight._scale",
    ".weight._shift",
    ".W_q",
    ".zero",
    ".axis",
    ".shape",
    ".group_size",
    ".packing",
    ".scaled_zeros",
    "_blocks",
    "_scales",
    "_scale_inv",
    "",
    ".compressed",
];
const FILES: [Option<&str>; 6] = [
    None,
    Some("config.json"),
    Some("hf_quant_config.json"),
    Some("quantize_config.json"),
    Some("quant_config.json"),
    Some("x_qmap.json"),
];

#[derive(Debug, Arbitrary)]
struct Input {
    tensors: Vec<(u8, u8, Vec<Size>)>,
    names: Vec<String>,
    metadata: Vec<(String, String)>,
    file: u8,
    config: String,
    bytes: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Size {
    Small(u8),
    Power(u8),
    Any(u64),
}

impl Size {
    fn value(&self) -> u64 {
        match *self {
            Size::Small(size) => size.into(),
            Size::Power(power) => 1 << (power % 64),
            Size::Any(size) => size,
        }
    }
}

fuzz_target!(|input: Input| {
    let mut tensors: Vec<(String, Dtype, Vec<u64>)> = Vec::new();
    for (n, (suffix, dtype, shape)) in input.tensors.iter().enumerate() {
        let name = match input.names.get(n) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("m{}", SUFFIXES[usize::from(*suffix) % SUFFIXES.len()]),
        };
        let dtype = Dtype::ALL[usize::from(*dtype) % Dtype::ALL.len()];
        let shape: Vec<u64> = shape.iter().take(4).map(Size::value).collect();
        let is_new = tensors.iter().all(|(other, ..)| *other != name);
        if is_new && shape_size_bytes(dtype, &shape).is_ok() {
            tensors.push((name, dtype, shape));
        }
    }
    let mut found = None;
    let peak = peak_of(|| found = Some(look(&input, &tensors)));
    let text = input.config.len()
        + input
            .metadata
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
    let allowed = SPARE_BYTES + FOR_EACH_BYTE * (text + 64 * tensors.len());
    assert!(peak < allowed, "{peak} bytes, where {allowed} are allowed");
    match found.expect("it was looked for") {
        Ok(found) => check(&found, &tensors),
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidConfig),
    }
});

fn look(
    input: &Input,
    tensors: &[(String, Dtype, Vec<u64>)],
) -> tensorhold_core::Result<Quantization> {
    let metadata = input.metadata.iter();
    let read = |name: &str, range: ByteRange| {
        let (_, dtype, shape) = tensors
            .iter()
            .find(|(other, ..)| other == name)
            .expect("only tensors are read");
        let size_bytes = shape_size_bytes(*dtype, shape).expect("it was checked");
        assert!(
            range.end <= size_bytes && range.len() <= MAX_READ_BYTES,
            "{name}: {range}"
        );
        let at = |at: u64| {
            input
                .bytes
                .get(at as usize % input.bytes.len().max(1))
                .copied()
                .unwrap_or(0)
        };
        Ok((range.start..range.end).map(at).collect())
    };
    detect(&Evidence {
        tensors: tensors
            .iter()
            .map(|(name, dtype, shape)| TensorInfo {
                name,
                dtype: *dtype,
                shape,
                offsets: ByteRange::new(
                    0,
                    shape_size_bytes(*dtype, shape).expect("it was checked"),
                ),
            })
            .collect(),
        metadata: metadata.map(|(key, value)| (&**key, &**value)).collect(),
        configs: vec![ConfigText {
            file: FILES[usize::from(input.file) % FILES.len()],
            text: Ok(&input.config),
        }],
        read: &read,
    })
}

/// Weights in order, each part one of the tensors, and what a weight needs as large as the tensor that it is of.
fn check(found: &Quantization, tensors: &[(String, Dtype, Vec<u64>)]) {
    assert!(
        found
            .weights
            .is_sorted_by(|left, right| left.name < right.name)
    );
    let size_of = |name: &str| {
        let (_, dtype, shape) = tensors.iter().find(|(other, ..)| other == name)?;
        shape_size_bytes(*dtype, shape).ok()
    };
    assert!(found.parts().all(|part| size_of(part).is_some()));
    for weight in &found.weights {
        let Ok(whole) = weight.whole() else {
            assert!(weight.recipe().is_err());
            continue;
        };
        if let Layout::Known(recipe) = &weight.layout {
            let _ = recipe.granularity();
        }
        let needs = weight.needs(&whole).expect("a weight can be computed");
        for need in needs {
            let name = weight
                .parts
                .get(need.part)
                .unwrap_or_else(|| panic!("{} of {weight:?}", need.part));
            let n_bits =
                n_elements(&need.view).map(|n| u128::from(n) * u128::from(need.dtype.width_bits()));
            let size_bytes = size_of(name).expect("it is a tensor");
            assert_eq!(
                n_bits,
                Some(u128::from(size_bytes) * 8),
                "{} of {weight:?}",
                need.part
            );
        }
    }
}
