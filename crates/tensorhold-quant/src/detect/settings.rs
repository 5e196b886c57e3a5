//! What a configuration says of one module.

use super::json::Json;

/// Whether a configuration names a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// It says nothing of it.
    Unsaid,
    /// It has settings for it.
    Quantized,
    /// It says that it is not quantized.
    Ignored,
}

/// What a configuration says of one module: the nearest layer that has a key counts.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub layers: Vec<&'a Json>,
    pub method: Option<&'a str>,
    pub listed: Listed,
}

/// How many inputs share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupSize {
    All,
    Of(u64),
}

impl GroupSize {
    /// As the schemes take it.
    pub fn of(self) -> Option<u64> {
        match self {
            GroupSize::All => None,
            GroupSize::Of(size) => Some(size),
        }
    }
}

impl<'a> Settings<'a> {
    /// What is under the first of `keys` that there is, in the nearest layer.
    pub fn get(&self, keys: &[&str]) -> Option<&'a Json> {
        let mut layers = self.layers.iter();
        layers.find_map(|layer| keys.iter().find_map(|key| layer.get(key)))
    }

    pub fn text(&self, keys: &[&str]) -> Option<&'a str> {
        self.get(keys)?.text()
    }

    pub fn flag(&self, keys: &[&str]) -> Option<bool> {
        self.get(keys)?.flag()
    }

    pub fn size(&self, keys: &[&str]) -> Option<u64> {
        self.get(keys)?.size()
    }

    /// The width of a code in bits.
    pub fn bits(&self) -> Option<u32> {
        let bits = self.size(&["bits", "num_bits", "w_bit"])?;
        u32::try_from(bits).ok()
    }

    /// The size of a group; -1 stands for all inputs, and so does what compressed-tensors calls `channel`.
    pub fn group_size(&self) -> Option<GroupSize> {
        let stated = self.get(&["group_size", "q_group_size"]);
        match stated.and_then(Json::integer) {
            Some(-1) => Some(GroupSize::All),
            Some(size) => u64::try_from(size).ok().map(GroupSize::Of),
            None => matches!(self.text(&["strategy"]), Some("channel" | "tensor"))
                .then_some(GroupSize::All),
        }
    }

    /// Rows and columns of a block.
    pub fn block(&self) -> Option<[u64; 2]> {
        let block = self.get(&["weight_block_size", "block_structure"])?;
        match block.text() {
            // compressed-tensors once wrote `128x128`.
            Some(text) => {
                let (rows, columns) = text.split_once('x')?;
                Some([rows.parse().ok()?, columns.parse().ok()?])
            }
            None => block.sizes()?.try_into().ok(),
        }
    }

    pub fn is_method(&self, methods: &[&str]) -> bool {
        self.method.is_some_and(|method| methods.contains(&method))
    }

    /// Whether `format`, `quant_algo` or another key that names a format has `word` in it, in any case.
    pub fn names(&self, word: &str) -> bool {
        const KEYS: [&str; 5] = [
            "format",
            "quant_algo",
            "mode",
            "weight_dtype",
            "weight_format",
        ];
        let said = KEYS.iter().filter_map(|key| self.text(&[key]));
        said.map(str::to_ascii_lowercase)
            .any(|said| said.contains(word))
    }
}
