//! What a test asks of the double, from text.

use crate::fail::Failure;

/// The settings of the crate's table.
#[derive(Clone, Default)]
pub(crate) struct Config {
    pub devices: usize,
    pub memory_bytes: u64,
    pub is_integrated: bool,
    /// Bytes per nanosecond; 0 for no limit.
    pub gb_per_s: f64,
    pub latency_us: u64,
    pub delay_us: u64,
    pub seed: Option<u64>,
    pub is_held: bool,
    pub register_max_bytes: Option<u64>,
    pub pinned_bytes: Option<u64>,
    pub scribbles: bool,
    pub reuses: bool,
    /// Whether there is a driver for reads of files into devices.
    pub has_storage: bool,
    pub keeps_compatibility: bool,
    pub most_read_bytes: usize,
    pub closes_input: bool,
    pub failures: Vec<Failure>,
}

impl Config {
    /// The settings of the environment; a process with a wrong one must not run on without it.
    pub(crate) fn from_environment() -> Config {
        let plain = Config {
            devices: 2,
            memory_bytes: 16 << 30,
            has_storage: true,
            most_read_bytes: usize::MAX,
            ..Config::default()
        };
        let Some(text) = std::env::var_os("TENSORHOLD_DOUBLE") else {
            return plain;
        };
        let text = text.to_string_lossy();
        match plain.with(&text) {
            Ok(config) => config,
            Err(fault) => panic!("TENSORHOLD_DOUBLE: {fault}"),
        }
    }

    /// These settings with those that a text names changed.
    pub(crate) fn with(&self, text: &str) -> Result<Config, String> {
        let mut config = self.clone();
        let settings: Vec<(&str, &str)> = text
            .split(',')
            .filter(|setting| !setting.trim().is_empty())
            .map(|setting| match setting.split_once('=') {
                Some((key, value)) => Ok((key.trim(), value.trim())),
                None => Err(format!("`{setting}` is not `key=value`")),
            })
            .collect::<Result<_, _>>()?;
        if settings.iter().any(|(key, _)| *key == "fail") {
            config.failures.clear();
        }
        for (key, value) in settings {
            config
                .set(key, value)
                .ok_or_else(|| format!("`{key}={value}` means nothing"))?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "devices" => self.devices = value.parse().ok()?,
            "memory_mb" => self.memory_bytes = megabytes(value)?,
            "integrated" => self.is_integrated = flag(value)?,
            "gb_per_s" => self.gb_per_s = rate(value)?,
            "latency_us" => self.latency_us = value.parse().ok()?,
            "delay_us" => self.delay_us = value.parse().ok()?,
            "seed" => self.seed = Some(value.parse().ok()?),
            "held" => self.is_held = flag(value)?,
            "register_max_mb" => self.register_max_bytes = Some(megabytes(value)?),
            "pinned_mb" => self.pinned_bytes = Some(megabytes(value)?),
            "scribble" => self.scribbles = flag(value)?,
            "reuse" => self.reuses = flag(value)?,
            "gds" => self.has_storage = flag(value)?,
            "gds_compat" => self.keeps_compatibility = flag(value)?,
            "gds_most" => self.most_read_bytes = value.parse().ok()?,
            "gds_closes" => self.closes_input = flag(value)?,
            "fail" if value.is_empty() => {}
            "fail" => self.failures.push(Failure::parse(value)?),
            _ => return None,
        }
        Some(())
    }
}

fn megabytes(value: &str) -> Option<u64> {
    value.parse::<u64>().ok()?.checked_mul(1 << 20)
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn rate(value: &str) -> Option<f64> {
    let rate = value.parse::<f64>().ok()?;
    (rate.is_finite() && rate >= 0.0).then_some(rate)
}
