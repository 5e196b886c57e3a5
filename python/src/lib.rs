//! The extension module of the Python package `tensorhold`: arguments in, calls out.

mod assembly;
mod buffer;
mod checkpoint;
mod collector;
mod dequantize;
mod device;
mod dlpack;
mod error;
mod foreign;
mod framework;
mod in_memory;
mod index;
mod interrupt;
mod load;
mod loader;
mod making;
mod memory;
mod narrow;
mod ndarray;
mod on_device;
mod parallel;
mod pieces;
mod pinned;
mod placement;
mod prefetch;
mod quantization;
mod quantize;
mod safe_open;
mod save;
mod save_async;
mod single;
mod spec;
mod stats;
mod tensors;
mod torch;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interrupt::install();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<safe_open::SafeOpen>()?;
    module.add_class::<safe_open::SafeOpenHandle>()?;
    module.add_class::<safe_open::PySafeSlice>()?;
    module.add_class::<safe_open::TensorMeta>()?;
    module.add_class::<checkpoint::Checkpoint>()?;
    module.add_class::<checkpoint::PlanView>()?;
    module.add_class::<loader::Loader>()?;
    module.add_class::<stats::Stats>()?;
    module.add_class::<stats::Gds>()?;
    module.add_class::<checkpoint::TensorInfo>()?;
    module.add_class::<checkpoint::TensorSlice>()?;
    module.add_class::<quantization::Quantization>()?;
    module.add_class::<quantization::QuantizedWeight>()?;
    module.add_class::<quantization::Finding>()?;
    module.add_class::<quantization::Logical>()?;
    module.add_class::<dequantize::DequantizedSlice>()?;
    module.add_function(wrap_pyfunction!(dequantize::logical_names, module)?)?;
    module.add_function(wrap_pyfunction!(dequantize::dequantize, module)?)?;
    module.add_function(wrap_pyfunction!(dequantize::dequantized_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(dequantize::dequantize_all, module)?)?;
    module.add_class::<spec::TensorSpec>()?;
    module.add_class::<parallel::Share>()?;
    module.add_class::<pieces::Pieces>()?;
    module.add_function(wrap_pyfunction!(spec::on_device, module)?)?;
    module.add_function(wrap_pyfunction!(narrow::pack, module)?)?;
    module.add_function(wrap_pyfunction!(spec::serialize, module)?)?;
    module.add_function(wrap_pyfunction!(spec::serialize_file, module)?)?;
    module.add_function(wrap_pyfunction!(in_memory::deserialize, module)?)?;
    module.add_function(wrap_pyfunction!(in_memory::load_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(torch::torch_flatten, module)?)?;
    module.add_function(wrap_pyfunction!(torch::torch_stream, module)?)?;
    module.add_function(wrap_pyfunction!(ndarray::numpy_flatten, module)?)?;
    module.add_function(wrap_pyfunction!(save::save, module)?)?;
    module.add_function(wrap_pyfunction!(foreign::open_foreign, module)?)?;
    module.add_function(wrap_pyfunction!(foreign::convert, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::dequantize_files, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::quantize, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::repack, module)?)?;
    module.add_function(wrap_pyfunction!(foreign::scan, module)?)?;
    module.add_class::<save_async::SaveHandle>()?;
    module.add_function(wrap_pyfunction!(save_async::save_async, module)?)?;
    module.add_function(wrap_pyfunction!(save_async::finish_saves, module)?)?;
    module.add_class::<pinned::PinnedMemory>()?;
    module.add_function(wrap_pyfunction!(pinned::pinned_memory, module)?)?;
    module.add_function(wrap_pyfunction!(pinned::set_pinned_limit, module)?)?;
    module.add_function(wrap_pyfunction!(empty_cache, module)?)?;
    module.add_function(wrap_pyfunction!(set_cache_limit, module)?)?;
    module.add_function(wrap_pyfunction!(cli_main, module)?)?;
    Ok(())
}

/// Gives memory that is kept for the next tensors back to the system: that of freed ones, and pinned memory that nothing is
/// copied from. Returns its bytes.
#[pyfunction]
fn empty_cache(py: Python<'_>) -> u64 {
    py.detach(|| tensorhold::release_pool() as u64 + tensorhold::release_ring())
}

/// Sets how many bytes of the memory of freed tensors are kept for the next ones: 256 MiB unless set, none with 0.
#[pyfunction]
fn set_cache_limit(py: Python<'_>, limit_bytes: usize) {
    py.detach(|| tensorhold::set_pool_limit(limit_bytes));
}

/// Runs the command line; `arguments` without the program's name. Returns the exit code.
#[pyfunction]
fn cli_main(py: Python<'_>, arguments: &Bound<'_, PyAny>) -> PyResult<u8> {
    let arguments: PyResult<Vec<std::ffi::OsString>> = arguments
        .try_iter()?
        .map(|argument| argument?.extract())
        .collect();
    let arguments = arguments?;
    Ok(py.detach(|| tensorhold_cli::run(arguments)))
}
