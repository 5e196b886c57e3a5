//! A checkpoint in memory.

use std::collections::BTreeMap;

use tensorhold_core::{ByteRange, Dtype, Error, Result, TensorInfo, shape_size_bytes};
use tensorhold_quant::detect::{
    ConfigText, Evidence, Layout, QuantFindingKind, Quantization, QuantizedWeight, detect,
};

#[derive(Default)]
pub struct Checkpoint {
    tensors: Vec<(String, Dtype, Vec<u64>)>,
    bytes: BTreeMap<String, Vec<u8>>,
    metadata: Vec<(String, String)>,
    configs: Vec<(Option<&'static str>, String)>,
}

impl Checkpoint {
    pub fn of(tensors: &[(&str, Dtype, &[u64])]) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for (name, dtype, shape) in tensors {
            checkpoint = checkpoint.tensor(name, *dtype, shape);
        }
        checkpoint
    }

    pub fn tensor(mut self, name: &str, dtype: Dtype, shape: &[u64]) -> Checkpoint {
        self.tensors.push((name.to_owned(), dtype, shape.to_vec()));
        self
    }

    /// A tensor whose bytes are these, or zeros after them.
    pub fn bytes(mut self, name: &str, dtype: Dtype, shape: &[u64], bytes: &[u8]) -> Checkpoint {
        self.bytes.insert(name.to_owned(), bytes.to_vec());
        self.tensor(name, dtype, shape)
    }

    pub fn metadata(mut self, key: &str, value: &str) -> Checkpoint {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn config(self, text: &str) -> Checkpoint {
        let text = format!(r#"{{"quantization_config": {text}}}"#);
        self.file("config.json", &text)
    }

    pub fn file(mut self, name: &'static str, text: &str) -> Checkpoint {
        self.configs.push((Some(name), text.to_owned()));
        self
    }

    pub fn given(mut self, text: &str) -> Checkpoint {
        self.configs.push((None, text.to_owned()));
        self
    }

    fn read(&self, name: &str, range: ByteRange) -> Result<Vec<u8>> {
        assert!(range.len() <= 64 << 10, "{name}: {range}");
        let (_, dtype, shape) = self
            .tensors
            .iter()
            .find(|(other, ..)| other == name)
            .unwrap();
        assert!(
            range.end <= shape_size_bytes(*dtype, shape).unwrap(),
            "{name}: {range}"
        );
        let bytes = self.bytes.get(name).map_or(&[][..], |bytes| bytes);
        let at = |at: u64| bytes.get(at as usize).copied().unwrap_or(0);
        Ok((range.start..range.end).map(at).collect())
    }

    pub fn try_detect(&self) -> Result<Quantization, Error> {
        let tensors = self.tensors.iter().map(|(name, dtype, shape)| TensorInfo {
            name,
            dtype: *dtype,
            shape,
            offsets: ByteRange::new(0, shape_size_bytes(*dtype, shape).unwrap()),
        });
        let metadata = self.metadata.iter();
        let configs = self.configs.iter();
        detect(&Evidence {
            tensors: tensors.collect(),
            metadata: metadata.map(|(key, value)| (&**key, &**value)).collect(),
            configs: configs
                .map(|(file, text)| ConfigText {
                    file: *file,
                    text: Ok(text),
                })
                .collect(),
            read: &|name, range| self.read(name, range),
        })
    }

    pub fn detect(&self) -> Quantization {
        self.try_detect().unwrap()
    }
}

/// `name: scheme shape dtype` of each weight, or what is wrong with it.
pub fn lines(found: &Quantization) -> Vec<String> {
    let line = |weight: &QuantizedWeight| {
        let QuantizedWeight {
            name,
            scheme,
            dtype,
            layout,
            ..
        } = weight;
        match layout {
            Layout::Known(recipe) => format!("{name}: {scheme} {:?} {dtype}", recipe.shape),
            Layout::Sparse(sparse) => format!("{name}: {scheme} {:?} {dtype}", sparse.shape()),
            Layout::Opaque(why) => format!("{name}: {scheme} opaque: {why}"),
            Layout::Broken(error) => format!("{name}: {scheme} broken: {}", error.message()),
        }
    };
    found.weights.iter().map(line).collect()
}

/// What is told of the only weight, as `kind: message`.
pub fn told(found: &Quantization) -> Vec<String> {
    let [weight] = &found.weights[..] else {
        panic!("{:?}", lines(found));
    };
    weight.findings.iter().map(ToString::to_string).collect()
}

/// What is told of the checkpoint, as `kind: message`.
pub fn told_of_all(found: &Quantization) -> Vec<String> {
    found.findings.iter().map(ToString::to_string).collect()
}

pub fn has(found: &Quantization, kind: QuantFindingKind) -> bool {
    found.findings.iter().any(|finding| finding.kind == kind)
}
