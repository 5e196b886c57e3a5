//! Keeps model weights: opens, reads, slices, saves and checks safetensors checkpoints.
//!
//! ```
//! use tensorhold::{Checkpoint, Dtype, OpenOptions, SaveOptions, TensorSpec};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.safetensors");
//! let bias = [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
//! let tensors = [TensorSpec { name: "bias", dtype: Dtype::F32, shape: &[3] }];
//! tensorhold::save_file(&path, &tensors, None, &SaveOptions::default(), |_| Ok((&bias[..]).into()))?;
//!
//! let checkpoint = Checkpoint::open(&path, &OpenOptions::default())?;
//! let tensor = checkpoint.tensor("bias")?;
//! assert_eq!(tensor.info().shape, [3]);
//! assert_eq!(tensor.read()?, bias);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It holds no tensor library, knows no Python and never runs what a file contains. What bytes mean is
//! decided in `tensorhold-core`, how files are read and written in `tensorhold-io`; this crate joins them.

mod assembled;
mod cache;
mod checkpoint;
mod convert;
mod diff;
mod file;
mod foreign;
mod parallel;
mod pieces;
mod quantize;
mod quantized;
mod read;
mod repack;
mod report;
mod reshard;
mod residence;
mod rewrite;
mod save;
mod scan;
mod stream;
mod subbyte;
mod transfer;
mod units;
mod verify;

pub use assembled::{
    Assembled, Chunk, WholeTensor, assemble, consolidate, existing_chunks, reshard,
};
pub use checkpoint::{Checkpoint, Tensor};
pub use convert::{ConvertOptions, ConvertProgress, Converted, Values, convert};
pub use diff::{Change, DiffEvent, TensorChange, diff};
pub use file::{Backend, File, OpenOptions};
pub use foreign::{ForeignFile, PlacedForeign, TREE_KEY};
pub use parallel::{CheckpointRules, NamedHeld, RankPlan};
pub use quantize::{
    IntLayout, Kept, QuantizeOptions, QuantizeProgress, QuantizeScheme, Quantized, QuantizedTensor,
    WeightError, quantize,
};
pub use quantized::{
    Dequantize, DequantizeOptions, DequantizeProgress, Dequantized, Logical, Proof, ProofNote,
    dequantize_checkpoint, read_quantization_config,
};
pub use repack::{RepackLayout, RepackOptions, RepackProgress, Repacked, repack};
pub use report::{Module, Report, Row, SchemeTotals, Shape, Totals, rows};
pub use reshard::{merge, shard};
pub use residence::Residence;
pub use rewrite::{
    Companions, Existing as ExistingConfig, RewriteOptions, RewriteProgress, companions,
    existing_beside,
};
pub use save::{
    BackgroundOptions, BackgroundProgress, DEFAULT_SHARD_BYTES, Outcome as SaveOutcome,
    PendingSave, SaveOptions, SaveProgress, TensorData, TensorView, Turn, existing_shards,
    save_file, save_in_background, save_shards, save_view_shards, save_views, serialize,
    serialize_views, shard_target,
};
pub use scan::{Scan, scan};
pub use stream::{StreamOptions, StreamWriter};
pub use subbyte::{DTYPE_KEY, NarrowInt, NarrowSelection, NarrowTensor, NarrowTensors, Widths};
pub use tensorhold_convert::{Class, Finding, FindingKind, Foreign, Format, Global, Limits};
pub use tensorhold_core::*;
pub use tensorhold_device::{
    CopyQueue, Device, DeviceBuffer, DeviceView, RawStream, RingUsage, Runtime, Vendor,
    release_ring, ring_usage, set_ring_limit,
};
pub use tensorhold_io::{
    AtomicFile, Buffer, Durability, Map, Way, release_pool, set_interrupt_check, set_pool_limit,
};
pub use tensorhold_quant::can_cast;
pub use tensorhold_quant::detect::{
    DtypeFrom, Layout as QuantLayout, QuantFinding, QuantFindingKind, Quantization,
    QuantizedWeight, SchemeName,
};
pub use transfer::{
    GdsStats, Memory, Numbered, Promised, Transfer, TransferOptions, TransferStats,
};
pub use units::{Bytes, Count, Exact, parse_bytes};
pub use verify::{Holding, Outcome, Verdict, VerifyEvent, verify, verify_as};
