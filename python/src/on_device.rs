//! Tensors on a device that the engine itself copies to.
//!
//! PyTorch gives the memory, so that its allocator knows of it, and its current stream waits for the copies; the host does not.
//! Of the test double, which PyTorch knows nothing of, memory comes from the runtime.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use tensorhold::{
    CopyQueue, DeviceBuffer, Dtype, LoadPlan, Packing, RawStream, Request, Runtime, Vendor,
};

use crate::assembly::shape_of;
use crate::framework::Framework;
use crate::memory::{DlDevice, Memory};
use crate::spec::TensorSpec;
use crate::tensors::Maker;
use crate::{error, torch};

/// Names the library that is used as the runtime, also where PyTorch knows of no device.
const RUNTIME: &str = "TENSORHOLD_RUNTIME";

/// Smaller tensors share memory: PyTorch takes some microseconds for each request.
pub(crate) const PACKING: Packing = Packing {
    alignment: 256,
    own_bytes: 1 << 20,
    shared_bytes: 32 << 20,
};

/// Fewer bytes of a single tensor are PyTorch's to move: CUDA takes them along with the call.
const AT_ONCE_BYTES: u64 = 64 << 10;

/// The ways to devices that an open checkpoint has used.
#[derive(Default)]
pub(crate) struct Targets(Mutex<Vec<Arc<Target>>>);

impl Targets {
    /// The engine's way to where `maker` makes tensors; `None` where that is the host, or where PyTorch is to move them.
    pub(crate) fn find(&self, py: Python<'_>, maker: &Maker) -> PyResult<Option<Arc<Target>>> {
        let Some(ordinal) = maker.device.cuda_ordinal() else {
            return Ok(None);
        };
        if maker.framework != Framework::Torch {
            return Ok(None);
        }
        let known = |targets: &[Arc<Target>]| {
            let found = targets.iter().find(|target| target.ordinal == ordinal);
            found.map(Arc::clone)
        };
        if let Some(target) = known(&self.lock()) {
            return Ok(Some(target));
        }
        // Without the lock, as what is called may let go of the interpreter.
        let Some(made) = Target::of(py, ordinal)? else {
            return Ok(None);
        };
        let mut targets = self.lock();
        Ok(Some(known(&targets).unwrap_or_else(|| {
            let made = Arc::new(made);
            targets.push(Arc::clone(&made));
            made
        })))
    }

    /// The same for a single tensor of `size_bytes` bytes.
    pub(crate) fn find_for(
        &self,
        py: Python<'_>,
        maker: &Maker,
        size_bytes: u64,
    ) -> PyResult<Option<Arc<Target>>> {
        let target = self.find(py, maker)?;
        Ok(target.filter(|target| target.is_double || size_bytes >= AT_ONCE_BYTES))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Target>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device, and the way to it.
pub(crate) struct Target {
    queue: Arc<CopyQueue>,
    ordinal: usize,
    /// In PyTorch's words, which are those of CUDA for HIP as well.
    name: String,
    is_double: bool,
    dlpack: DlDevice,
}

/// What owns the memory of a buffer.
enum Base {
    /// The tensor that the buffer is for.
    Own(Py<PyAny>),
    /// Memory that several tensors share.
    Shared(Py<PyAny>),
}

impl Target {
    /// The way to device number `ordinal`; `None` where PyTorch is to move tensors there, or to say that it cannot.
    fn of(py: Python<'_>, ordinal: usize) -> PyResult<Option<Target>> {
        let is_named = is_runtime_named();
        if !is_named && !has_cuda(py)? {
            return Ok(None);
        }
        match (Target::new(ordinal), is_named) {
            (Ok(target), _) => Ok(Some(target)),
            (Err(error), true) => Err(error::to_py(py, &error)),
            // PyTorch finds its own words, or its own way.
            (Err(_), false) => Ok(None),
        }
    }

    fn new(ordinal: usize) -> tensorhold::Result<Target> {
        let runtime = Runtime::find()?;
        let queue = CopyQueue::new(runtime.device(ordinal)?)?;
        let is_double = runtime.is_double();
        let index = i32::try_from(ordinal).expect("the runtime has counted it");
        let dlpack = match runtime.vendor() {
            _ if is_double => DlDevice::CPU,
            Vendor::Cuda => DlDevice::cuda(index),
            Vendor::Hip => DlDevice::rocm(index),
        };
        Ok(Target {
            queue,
            ordinal,
            name: format!("cuda:{ordinal}"),
            is_double,
            dlpack,
        })
    }

    /// How PyTorch calls the device.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device has the host's memory, as far as it says.
    pub(crate) fn is_unified(&self) -> bool {
        self.queue.device().is_integrated().unwrap_or(false)
    }

    /// Whether `buffer` is filled by copies of this way.
    pub(crate) fn is_of(&self, buffer: &DeviceBuffer) -> bool {
        Arc::ptr_eq(buffer.queue(), &self.queue)
    }

    /// The memory of a caller's tensor, which is to be filled in place.
    ///
    /// # Safety
    /// `spec` describes memory of the device that is writable as long as `tensor` lives, and that nobody uses until the tensor
    /// is given back but in the order of the device's current stream.
    pub(crate) unsafe fn buffer_over(&self, spec: &TensorSpec, tensor: Py<PyAny>) -> DeviceBuffer {
        let address = usize::try_from(spec.data_ptr).expect("an address is as wide as a pointer");
        let owner = Box::new(Base::Own(tensor));
        // SAFETY: the caller's promise; `begin` orders the copies after what the current stream was given before, and
        // `signal` before what it is given later.
        unsafe { DeviceBuffer::from_raw(&self.queue, address, spec.data_len, owner) }
    }

    /// Memory for a buffer of `plan` that `requests` lie in. Copies may write to it after [`begin`](Target::begin).
    pub(crate) fn allocate(
        &self,
        py: Python<'_>,
        plan: &LoadPlan,
        requests: &[usize],
        size_bytes: u64,
    ) -> PyResult<DeviceBuffer> {
        match requests {
            _ if self.is_double => self.of_runtime(py, size_bytes),
            [request] if size_bytes >= PACKING.own_bytes => {
                self.own(py, plan, &plan.requests()[*request], size_bytes)
            }
            _ => self.shared(py, size_bytes),
        }
    }

    /// Lets copies from now on come after what the current stream was given until now.
    pub(crate) fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let begun = self.queue.begin_after(self.stream(py)?);
        begun.map_err(|error| error::to_py(py, &error))
    }

    fn own(
        &self,
        py: Python<'_>,
        plan: &LoadPlan,
        request: &Request,
        size_bytes: u64,
    ) -> PyResult<DeviceBuffer> {
        let info = plan.tensor(request);
        let dtype = request.dtype.unwrap_or(info.dtype);
        let tensor = torch::empty(py, dtype, shape_of(&info, request), &self.name)?;
        self.buffer(&tensor, size_bytes, Base::Own(tensor.clone().unbind()))
    }

    fn shared(&self, py: Python<'_>, size_bytes: u64) -> PyResult<DeviceBuffer> {
        let bytes = torch::empty(py, Dtype::U8, &[size_bytes], &self.name)?;
        let base = Base::Shared(bytes.clone().unbind());
        Ok(self.buffer(&bytes, size_bytes, base)?.with_free_gaps())
    }

    fn of_runtime(&self, py: Python<'_>, size_bytes: u64) -> PyResult<DeviceBuffer> {
        let allocated = py.detach(|| self.queue.allocate(size_bytes));
        allocated.map_err(|error| error::to_py(py, &error))
    }

    fn buffer(
        &self,
        memory: &Bound<'_, PyAny>,
        size_bytes: u64,
        base: Base,
    ) -> PyResult<DeviceBuffer> {
        let py = memory.py();
        let address: usize = memory.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let len = usize::try_from(size_bytes)?;
        // SAFETY: PyTorch has just made the tensor, which `base` keeps alive and which nobody else knows of; its size is that of
        // the buffer, as both follow from dtype and shape. What its memory was used for before is ordered by `begin`.
        Ok(unsafe { DeviceBuffer::from_raw(&self.queue, address, len, Box::new(base)) })
    }

    /// Lets what the current stream is given from now on come after all copies until now.
    pub(crate) fn signal(&self, py: Python<'_>) -> PyResult<()> {
        // The double's memory is used by the host at once.
        let signalled = match self.is_double {
            true => py.detach(|| self.queue.synchronize()),
            false => self.queue.signal(self.stream(py)?),
        };
        signalled.map_err(|error| error::to_py(py, &error))
    }

    /// The tensors of `requests`, all of which lie in `buffer`, to whose copies the current stream was signalled.
    pub(crate) fn tensors<'py>(
        &self,
        py: Python<'py>,
        plan: &LoadPlan,
        requests: &[usize],
        buffer: DeviceBuffer,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let address = buffer.address();
        let owner: Arc<dyn Any + Send + Sync> = match buffer.into_owner().downcast::<Base>() {
            Ok(base) => match *base {
                Base::Own(tensor) => return Ok(vec![tensor.into_bound(py)]),
                Base::Shared(bytes) => Arc::new(bytes),
            },
            // The runtime's; it is held, never looked at.
            Err(memory) => Arc::new(Mutex::new(memory)),
        };
        let tensor = |&number: &usize| {
            let request = &plan.requests()[number];
            let info = plan.tensor(request);
            let memory = Memory::of_device(
                address + usize::try_from(request.place.offset)?,
                usize::try_from(plan.size_of(request))?,
                Arc::clone(&owner),
                self.dlpack,
            );
            let dtype = request.dtype.unwrap_or(info.dtype);
            torch::tensor(py, memory, dtype, shape_of(&info, request))
        };
        requests.iter().map(tensor).collect()
    }

    /// PyTorch's current stream of the device.
    fn stream(&self, py: Python<'_>) -> PyResult<RawStream> {
        if self.is_double {
            return Ok(0);
        }
        let cuda = py.import("torch")?.getattr(intern!(py, "cuda"))?;
        let stream = cuda.call_method1(intern!(py, "current_stream"), (&self.name,))?;
        stream.getattr(intern!(py, "cuda_stream"))?.extract()
    }
}

/// Whether the user says which library is the runtime: then no other way is right where that one fails.
pub(crate) fn is_runtime_named() -> bool {
    std::env::var_os(RUNTIME).is_some()
}

fn has_cuda(py: Python<'_>) -> PyResult<bool> {
    let cuda = py.import("torch")?.getattr(intern!(py, "cuda"))?;
    cuda.call_method0(intern!(py, "is_available"))?.extract()
}
