//! One sample: how long a work took, and how much memory it asked for at most.

use std::fs;
use std::time::Instant;

/// What one run of a work showed.
pub struct Sample {
    seconds: f64,
    /// The most memory that was held beyond what was held before; `None` where the system does not tell.
    peak_bytes: Option<u64>,
    /// Equal for equal tables; `None` where there is none.
    digest: Option<u64>,
}

impl Sample {
    /// The time and memory of `work`, and outside of both the digest of what it gave.
    pub fn take<T>(work: impl FnOnce() -> T, digest: impl FnOnce(&T) -> Option<u64>) -> Sample {
        let before = reset_peak().and_then(|()| status("VmRSS:"));
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        let peak = status("VmHWM:");
        Sample {
            seconds,
            peak_bytes: peak
                .zip(before)
                .map(|(peak, before)| peak.saturating_sub(before)),
            digest: digest(&result),
        }
    }

    /// The sample as one line.
    pub fn to_json(&self) -> String {
        self.to_json_with("\"resident\": null")
    }

    /// The sample as one line, with one field more.
    pub fn to_json_with(&self, field: &str) -> String {
        let peak = self
            .peak_bytes
            .map_or("null".into(), |bytes| bytes.to_string());
        let digest = self
            .digest
            .map_or("null".into(), |digest| format!("\"{digest:016x}\""));
        let seconds = self.seconds;
        format!(
            "{{\"seconds\": {seconds:e}, \"peak_bytes\": {peak}, \"digest\": {digest}, {field}}}"
        )
    }
}

/// Makes the system count the peak from here on.
fn reset_peak() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// A size that the system tells about this process, in bytes.
fn status(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}
