//! The names that pickles may ask for: which are understood, which are harmless, which are known to be dangerous.

use crate::element::Element;
use crate::finding::Class;
use crate::tree::Factory;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// A value of its own.
    Dtype(Element),
    MemoryFormat(&'static str),
    Qscheme(&'static str),
    Ellipsis,
    /// A class of storages; `None` for the untyped one.
    StorageClass(Option<Element>),
    /// A class or function that is understood when it is called.
    Call(Call),
    /// A class whose objects are inert: kept as its parts, and harmless.
    Inert,
    /// A class of `torch.nn`.
    Module,
    /// A class of a TorchScript archive's own code.
    Script,
    /// On no list.
    Unknown,
    /// On the list of what attacks use.
    Dangerous,
}

/// What is understood when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Builtin(Factory),
    FrozenSet,
    Bytes,
    ByteArray,
    Bool,
    Complex,
    Slice,
    Range,
    Object,
    OrderedDict,
    Counter,
    DefaultDict,
    Encode,
    Reconstructor,
    NewObject,
    NewObjectExtended,
    Size,
    Device,
    Layout,
    TensorClass,
    ParameterClass,
    BufferClass,
    Tensor,
    TensorV2,
    TensorV3,
    Parameter,
    ParameterWithState,
    FromType,
    FromTypeV2,
    Quantized,
    Sparse,
    Nested,
    Meta,
    FromNumpy,
    FromCpu,
    FromBytes,
    ScriptList,
    ScriptTag,
    NpReconstruct,
    NpArrayClass,
    NpScalar,
    NpBuffer,
    NpDtype,
}

impl Known {
    /// How much a name of which this is known is to be feared.
    pub(crate) fn class(self) -> Class {
        match self {
            Known::Unknown => Class::Unknown,
            Known::Dangerous => Class::Dangerous,
            _ => Class::Harmless,
        }
    }
}

/// What is known of `name` in `module`; names are compared exactly.
pub(crate) fn known(module: &str, name: &str) -> Known {
    let module = modern(module);
    if let Some(known) = listed(&module, name) {
        return known;
    }
    if is_dangerous(&module, name) {
        Known::Dangerous
    } else {
        Known::Unknown
    }
}

/// The name that a module has today.
fn modern(module: &str) -> String {
    match module {
        "__builtin__" | "builtins" => "builtins".into(),
        "copy_reg" => "copyreg".into(),
        "torch.tensor" => "torch._tensor".into(),
        "numpy.core" => "numpy._core".into(),
        _ => match module.strip_prefix("numpy.core.") {
            Some(rest) => format!("numpy._core.{rest}"),
            None => module.into(),
        },
    }
}

fn listed(module: &str, name: &str) -> Option<Known> {
    let call = match module {
        "builtins" => builtin(name)?,
        "collections" => match name {
            "OrderedDict" => Call::OrderedDict,
            "Counter" => Call::Counter,
            "defaultdict" => Call::DefaultDict,
            "deque" => return Some(Known::Inert),
            _ => return None,
        },
        "_codecs" if name == "encode" => Call::Encode,
        "copyreg" => match name {
            "_reconstructor" => Call::Reconstructor,
            "__newobj__" => Call::NewObject,
            "__newobj_ex__" => Call::NewObjectExtended,
            _ => return None,
        },
        "numpy._core.multiarray" if name == "_reconstruct" => Call::NpReconstruct,
        "numpy._core.multiarray" if name == "scalar" => Call::NpScalar,
        "numpy._core.numeric" if name == "_frombuffer" => Call::NpBuffer,
        "numpy" if name == "dtype" => Call::NpDtype,
        "numpy" if name == "ndarray" => Call::NpArrayClass,
        _ if module == "__torch__" || module.starts_with("__torch__.") => {
            return Some(Known::Script);
        }
        _ if module == "torch" || module.starts_with("torch.") => return torch(module, name),
        _ => return INERT.contains(&(module, name)).then_some(Known::Inert),
    };
    Some(match (module, name) {
        ("builtins", "Ellipsis") => Known::Ellipsis,
        _ => Known::Call(call),
    })
}

fn builtin(name: &str) -> Option<Call> {
    Some(match name {
        "list" => Call::Builtin(Factory::List),
        "dict" => Call::Builtin(Factory::Dict),
        "int" | "long" => Call::Builtin(Factory::Int),
        "float" => Call::Builtin(Factory::Float),
        "set" => Call::Builtin(Factory::Set),
        "str" | "unicode" => Call::Builtin(Factory::Str),
        "tuple" => Call::Builtin(Factory::Tuple),
        "frozenset" => Call::FrozenSet,
        "bytes" => Call::Bytes,
        "bytearray" => Call::ByteArray,
        "bool" => Call::Bool,
        "complex" => Call::Complex,
        "slice" => Call::Slice,
        "range" | "xrange" => Call::Range,
        "object" | "Ellipsis" => Call::Object,
        _ => return None,
    })
}

fn torch(module: &str, name: &str) -> Option<Known> {
    let call = match (module, name) {
        ("torch" | "torch.cuda" | "torch.storage", _) if name.ends_with("Storage") => {
            return storage_class(name).map(Known::StorageClass);
        }
        ("torch", _) => return torch_name(name),
        // It makes a tensor of a class that it is given, which is told by itself.
        ("torch._utils", "_rebuild_wrapper_subclass") => return Some(Known::Inert),
        ("torch._utils", _) => rebuilder(name)?,
        ("torch._tensor", "_rebuild_from_type") => Call::FromType,
        ("torch._tensor", "_rebuild_from_type_v2") => Call::FromTypeV2,
        ("torch.serialization", "_get_layout") => Call::Layout,
        ("torch.storage", "_load_from_bytes") => Call::FromBytes,
        ("torch.jit._pickle", "restore_type_tag") => Call::ScriptTag,
        (
            "torch.jit._pickle",
            "build_intlist" | "build_tensorlist" | "build_doublelist" | "build_boollist",
        ) => Call::ScriptList,
        ("torch.nn.parameter", "Parameter") => Call::ParameterClass,
        ("torch.nn.parameter", "Buffer") => Call::BufferClass,
        ("torch.cuda", _) if is_tensor_class(name) => Call::TensorClass,
        _ => {
            let within = module.strip_prefix("torch.nn.modules.")?;
            let classes = MODULES.iter().find(|row| row.0 == within)?.1;
            let is_listed = classes.split(' ').any(|class| class == name);
            return is_listed.then_some(Known::Module);
        }
    };
    Some(Known::Call(call))
}

fn torch_name(name: &str) -> Option<Known> {
    if let Some(element) = Element::from_name(name) {
        return Some(Known::Dtype(element));
    }
    if let Some(found) = MEMORY_FORMATS.into_iter().find(|format| *format == name) {
        return Some(Known::MemoryFormat(found));
    }
    if let Some(found) = QSCHEMES.into_iter().find(|scheme| *scheme == name) {
        return Some(Known::Qscheme(found));
    }
    Some(Known::Call(match name {
        "Size" => Call::Size,
        "device" => Call::Device,
        "Tensor" => Call::TensorClass,
        _ if is_tensor_class(name) => Call::TensorClass,
        _ => return None,
    }))
}

/// `FloatTensor` and the like.
fn is_tensor_class(name: &str) -> bool {
    let element = name.strip_suffix("Tensor");
    element.is_some_and(|element| STORAGES.iter().any(|row| row.0 == element))
}

fn rebuilder(name: &str) -> Option<Call> {
    Some(match name {
        "_rebuild_tensor" => Call::Tensor,
        "_rebuild_tensor_v2" => Call::TensorV2,
        "_rebuild_tensor_v3" => Call::TensorV3,
        "_rebuild_parameter" => Call::Parameter,
        "_rebuild_parameter_with_state" => Call::ParameterWithState,
        "_rebuild_qtensor" => Call::Quantized,
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => Call::Sparse,
        "_rebuild_nested_tensor" => Call::Nested,
        "_rebuild_meta_tensor_no_storage" => Call::Meta,
        "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor" => Call::FromNumpy,
        "_rebuild_device_tensor_from_cpu_tensor" => Call::FromCpu,
        _ => return None,
    })
}

/// The element type of a class of storages.
fn storage_class(name: &str) -> Option<Option<Element>> {
    let element = name.strip_suffix("Storage")?;
    if element == "Untyped" {
        return Some(None);
    }
    let row = STORAGES.iter().find(|row| row.0 == element)?;
    Some(Some(row.1))
}

const STORAGES: [(&str, Element); 17] = [
    ("Double", Element::Float64),
    ("Float", Element::Float32),
    ("Half", Element::Float16),
    ("BFloat16", Element::Bfloat16),
    ("Long", Element::Int64),
    ("Int", Element::Int32),
    ("Short", Element::Int16),
    ("Char", Element::Int8),
    ("Byte", Element::Uint8),
    ("Bool", Element::Bool),
    ("ComplexDouble", Element::Complex128),
    ("ComplexFloat", Element::Complex64),
    ("QUInt8", Element::Quint8),
    ("QInt8", Element::Qint8),
    ("QInt32", Element::Qint32),
    ("QUInt4x2", Element::Quint4x2),
    ("QUInt2x4", Element::Quint2x4),
];

const MEMORY_FORMATS: [&str; 4] = [
    "contiguous_format",
    "channels_last",
    "channels_last_3d",
    "preserve_format",
];

pub(crate) const QSCHEMES: [&str; 5] = [
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
];

pub(crate) const LAYOUTS: [&str; 7] = [
    "strided",
    "sparse_coo",
    "sparse_csr",
    "sparse_csc",
    "sparse_bsr",
    "sparse_bsc",
    "jagged",
];

/// Classes whose objects hold values and do nothing.
const INERT: [(&str, &str); 24] = [
    ("argparse", "Namespace"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("numpy", "bool_"),
    ("numpy", "float16"),
    ("numpy", "float32"),
    ("numpy", "float64"),
    ("numpy", "int16"),
    ("numpy", "int32"),
    ("numpy", "int64"),
    ("numpy", "int8"),
    ("numpy", "uint16"),
    ("numpy", "uint32"),
    ("numpy", "uint64"),
    ("numpy", "uint8"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("types", "SimpleNamespace"),
    ("uuid", "UUID"),
];

/// The modules of `torch.nn.modules`, and their classes.
const MODULES: [(&str, &str); 21] = [
    (
        "activation",
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish \
         MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink \
         Softsign Tanh Tanhshrink Threshold",
    ),
    ("adaptive", "AdaptiveLogSoftmaxWithLoss"),
    (
        "batchnorm",
        "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    ),
    ("channelshuffle", "ChannelShuffle"),
    (
        "container",
        "Container ModuleDict ModuleList ParameterDict ParameterList Sequential",
    ),
    (
        "conv",
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    ),
    ("distance", "CosineSimilarity PairwiseDistance"),
    (
        "dropout",
        "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    ),
    ("flatten", "Flatten Unflatten"),
    ("fold", "Fold Unfold"),
    (
        "instancenorm",
        "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    ),
    (
        "linear",
        "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    ),
    (
        "loss",
        "BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss HingeEmbeddingLoss \
         HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss \
         MultiMarginLoss NLLLoss NLLLoss2d PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss \
         TripletMarginWithDistanceLoss",
    ),
    ("module", "Module"),
    (
        "normalization",
        "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    ),
    (
        "padding",
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d \
         ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d \
         ZeroPad3d",
    ),
    ("pixelshuffle", "PixelShuffle PixelUnshuffle"),
    (
        "pooling",
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d \
         AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d \
         LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d",
    ),
    ("rnn", "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell"),
    ("sparse", "Embedding EmbeddingBag"),
    (
        "transformer",
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer",
    ),
];

/// Modules whose functions run programs, import, evaluate, write files or open connections, all below them too.
const DANGEROUS_MODULES: &str = "os posix nt ntpath posixpath nturl2path genericpath sys subprocess _posixsubprocess shutil \
    socket _socket socketserver ssl pty tty commands popen2 runpy importlib _frozen_importlib imp zipimport pkgutil pip \
    ensurepip venv setuptools distutils site sitecustomize pdb bdb trace cProfile profile timeit doctest unittest test.support \
    code codeop dis inspect gc ctypes _ctypes cffi mmap multiprocessing _multiprocessing concurrent threading _thread \
    signal asyncio webbrowser antigravity idlelib lib2to3 tkinter turtle urllib urllib2 urllib3 http httplib \
    requests aiohttp httpx ftplib smtplib telnetlib poplib imaplib xmlrpc nntplib marshal pickle _pickle cPickle \
    pickletools dill cloudpickle joblib shelve sqlite3 dbm tempfile zipfile tarfile fileinput linecache logging.config \
    atexit faulthandler resource platform operator _operator functools _functools types io _io codecs \
    builtins __builtin__ getpass crypt readline rlcompleter cmd shlex glob fcntl select \
    selectors curses msilib winreg _winreg _winapi msvcrt py_compile compileall bz2 gzip lzma \
    paramiko fabric invoke psutil pexpect sh jinja2 yaml pandas.eval numexpr IPython jedi torchvision.datasets \
    torch.hub torch.jit torch.package torch.ops torch.classes torch.library torch._dynamo torch._inductor torch._C \
    torch.fx torch.distributed.rpc torch.distributed.run torch.distributed.launch torch.distributed.elastic \
    torch.multiprocessing torch.serialization torch.utils.cpp_extension torch.utils.data.datapipes torch.utils.bottleneck \
    torch.utils._config_module torch.utils.collect_env torch.utils.benchmark torch.utils.model_dump torch.testing \
    torch.onnx torch.export torch.compiler torch.profiler torch._utils_internal torch._jit_internal torch._classes \
    torch._ops torch._export torch._functorch torch._logging torch._lazy torch._higher_order_ops torch.overrides \
    numpy.testing numpy.f2py numpy.distutils numpy.lib numpy.ctypeslib numpy.ma.core tensorflow keras.utils";

/// Functions of `builtins` and others that are dangerous by themselves.
const DANGEROUS_NAMES: &str = "torch.load torch.save torch.compile numpy.load numpy.save numpy.savez numpy.loadtxt \
    numpy.savetxt numpy.genfromtxt numpy.fromfile numpy.memmap numpy.frompyfunc numpy.vectorize numpy.apply_along_axis \
    pandas.read_pickle copyreg.add_extension copyreg.pickle uuid._get_command_stdout";

/// Whether a name is one that attacks use. A name that reaches through its module (`a.os.system`) is judged by each
/// part.
fn is_dangerous(module: &str, name: &str) -> bool {
    let dotted = format!("{module}.{name}");
    let has_prefix = |prefix: &str| {
        let rest = dotted.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    DANGEROUS_MODULES.split_ascii_whitespace().any(has_prefix)
        || DANGEROUS_NAMES
            .split_ascii_whitespace()
            .any(|listed| listed == dotted)
        || reaches_through(module, name)
}

/// Whether a dotted name passes through a module or a name of Python's inner workings.
fn reaches_through(module: &str, name: &str) -> bool {
    let is_inner = |part: &str| part.starts_with("__") && part.ends_with("__") && part.len() > 4;
    let is_module = |part: &str| {
        DANGEROUS_MODULES
            .split_ascii_whitespace()
            .any(|row| row == part)
    };
    let parts = || name.split('.');
    parts().chain(module.split('.').skip(1)).any(is_inner)
        || (name.contains('.') && parts().any(is_module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_harmless() {
        let cases = [
            ("collections", "OrderedDict", Class::Harmless),
            (
                "collections",
                "OrderedDict.__init__.__globals__",
                Class::Dangerous,
            ),
            ("collections", "namedtuple", Class::Unknown),
            ("torch", "float8_e8m0fnu", Class::Harmless),
            ("torch", "load", Class::Dangerous),
            ("torch.nn.modules.linear", "Linear", Class::Harmless),
            (
                "torch.nn.modules.linear",
                "Linear.os.system",
                Class::Dangerous,
            ),
            ("torch.nn.modules.linear", "F", Class::Unknown),
            ("torch.storage", "_load_from_bytes", Class::Harmless),
            ("torch.serialization", "load", Class::Dangerous),
            ("__builtin__", "eval", Class::Dangerous),
            ("builtins", "getattr", Class::Dangerous),
            ("posix", "system", Class::Dangerous),
            ("numpy.core.multiarray", "scalar", Class::Harmless),
            (
                "numpy.testing._private.utils",
                "runstring",
                Class::Dangerous,
            ),
            ("mymodule", "Thing", Class::Unknown),
            ("OS", "system", Class::Unknown),
            ("os", "", Class::Dangerous),
        ];
        for (module, name, class) in cases {
            assert_eq!(known(module, name).class(), class, "{module}.{name}");
        }
    }
}
