//! Which device each tensor of a load goes to.

use pyo3::prelude::*;
use pyo3::types::PyMapping;

use crate::tensors::Maker;

/// What makes the tensors of a load, by their names.
pub(crate) struct Placement {
    /// Patterns of names, each with what makes the tensors that it is the first to match.
    patterns: Vec<(String, Maker)>,
    /// Makes the others.
    usual: Maker,
}

impl Placement {
    /// What a caller named: a device, or a mapping from patterns of names to devices; `usual` where it is None or matches none.
    pub(crate) fn of(
        py: Python<'_>,
        usual: &Maker,
        device: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Placement> {
        let Some(mapping) = device.and_then(|device| device.cast::<PyMapping>().ok()) else {
            return Ok(usual.on(py, device)?.into());
        };
        let mut patterns = Vec::new();
        for item in mapping.items()?.iter() {
            let (pattern, device) = item.extract::<(String, Bound<'_, PyAny>)>()?;
            patterns.push((pattern, usual.on(py, Some(&device))?));
        }
        Ok(Placement {
            patterns,
            usual: usual.clone(),
        })
    }

    /// What makes the tensors that no pattern matches.
    pub(crate) fn usual(&self) -> &Maker {
        &self.usual
    }

    /// The makers, and for each of `names` the number of its own.
    pub(crate) fn makers<'a>(
        &self,
        py: Python<'_>,
        names: impl ExactSizeIterator<Item = &'a str>,
    ) -> PyResult<(Vec<Maker>, Vec<usize>)> {
        let of_patterns = self.patterns.iter().map(|(_, maker)| maker.clone());
        let makers: Vec<Maker> = of_patterns.chain([self.usual.clone()]).collect();
        if self.patterns.is_empty() {
            return Ok((makers, vec![0; names.len()]));
        }
        let matches = py.import("fnmatch")?.getattr("fnmatchcase")?;
        let number = |name: &str| {
            for (number, (pattern, _)) in self.patterns.iter().enumerate() {
                let is_rest = pattern.is_empty() || pattern == "*";
                if is_rest || matches.call1((name, pattern))?.extract()? {
                    return Ok(number);
                }
            }
            Ok(self.patterns.len())
        };
        let maker_of = names.map(number).collect::<PyResult<_>>()?;
        Ok((makers, maker_of))
    }
}

impl From<Maker> for Placement {
    fn from(maker: Maker) -> Placement {
        Placement {
            patterns: Vec::new(),
            usual: maker,
        }
    }
}
