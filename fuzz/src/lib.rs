//! What the fuzz targets share: the oracles of the core's own tests, and an allocator that counts.

pub mod bounded;
pub mod foreign;
#[path = "../../crates/tensorhold-core/tests/verdicts/generator.rs"]
pub mod generator;
#[path = "../../crates/tensorhold-core/tests/memory/counting.rs"]
pub mod memory;
#[path = "../../crates/tensorhold-core/tests/slice/naive.rs"]
pub mod naive;
#[path = "../../crates/tensorhold-core/tests/verdicts/oracle.rs"]
pub mod oracle;
