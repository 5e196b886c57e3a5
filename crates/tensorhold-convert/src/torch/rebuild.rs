//! What PyTorch's functions that rebuild tensors make.
//!
//! # Source
//! `torch/_utils.py` and `torch/_tensor.py` of PyTorch 2.15.

use tensorhold_core::ByteRange;

use crate::builder::Builder;
use crate::element::Element;
use crate::finding::{Class, Finding, FindingKind};
use crate::pickle::globals::{Call, Known, QSCHEMES};
use crate::pickle::{Machine, Refusal, attach, elements, understand};
use crate::storage::{Place, View};
use crate::tree::{
    BareStorage, Meta, Nested, Node, NodeId, Quantized, Scheme, Sparse, SparseLayout, Tensor,
};

type Made<T = NodeId> = std::result::Result<T, Refusal>;

/// The most dimensions that a tensor of PyTorch's has.
const MOST_DIMENSIONS: usize = 64;

/// What a rebuilding function makes of its arguments.
pub(crate) fn call(builder: &mut Builder<'_>, call: Call, list: &[NodeId]) -> Made {
    match call {
        Call::Tensor | Call::TensorV2 | Call::TensorV3 => tensor(builder, call, list),
        Call::Parameter => match *list {
            [data, requires_grad, _hooks] => parameter(builder, data, requires_grad, None),
            _ => Err(count(list)),
        },
        Call::ParameterWithState => match *list {
            [data, requires_grad, _hooks, state] => {
                parameter(builder, data, requires_grad, Some(state))
            }
            _ => Err(count(list)),
        },
        Call::Quantized => quantized(builder, list),
        Call::Sparse => sparse(builder, list),
        Call::Nested => nested(builder, list),
        Call::Meta => meta(builder, list),
        Call::FromNumpy | Call::FromCpu => on_device(builder, list),
        _ => Err("it is no function that rebuilds a tensor".into()),
    }
}

fn count(list: &[NodeId]) -> Refusal {
    Refusal::Odd(format!("it is called with {} arguments", list.len()))
}

/// `_rebuild_tensor(storage, offset, size, stride)`; the second has `requires_grad, hooks[, metadata]` after these,
/// the third `requires_grad, hooks, dtype[, metadata]`.
fn tensor(builder: &mut Builder<'_>, call: Call, list: &[NodeId]) -> Made {
    let expected = match call {
        Call::Tensor => 4..=4,
        Call::TensorV2 => 6..=7,
        _ => 7..=8,
    };
    if !expected.contains(&list.len()) {
        return Err(count(list));
    }
    let bare = bare_storage(builder, list[0])?;
    let element = match (call, bare.element) {
        (Call::TensorV3, _) => element(builder, list[6])?,
        (_, Some(element)) => element,
        _ => return Err("its storage has no element type".into()),
    };
    let view = view(builder, &bare, element, [list[1], list[2], list[3]])?;
    let mut tensor = Tensor::new(view);
    if call != Call::Tensor {
        tensor.requires_grad = truth(builder, list[4])?;
    }
    let metadata = match call {
        Call::TensorV2 => list.get(6),
        Call::TensorV3 => list.get(7),
        _ => None,
    };
    if let Some(&metadata) = metadata {
        let mut bit = |name| -> Made<bool> {
            let value = builder.entry(metadata, name)?;
            value.map_or(Ok(false), |value| truth(builder, value))
        };
        (tensor.is_conj, tensor.is_neg) = (bit("conj")?, bit("neg")?);
    }
    Ok(builder.push(Node::Tensor(Box::new(tensor)))?)
}

fn bare_storage(builder: &Builder<'_>, id: NodeId) -> Made<BareStorage> {
    match &builder.tree[id] {
        Node::Storage(bare) => Ok((**bare).clone()),
        _ => Err("its storage is none".into()),
    }
}

/// A view of part of a storage: offset, size and stride, in elements.
fn view(
    builder: &mut Builder<'_>,
    bare: &BareStorage,
    element: Element,
    parts: [NodeId; 3],
) -> Made<View> {
    let offset = builder
        .tree
        .integer(parts[0])
        .and_then(|offset| u64::try_from(offset).ok());
    let offset = offset.ok_or("its offset is no count")?;
    let (shape, strides) = (sizes(builder, parts[1])?, sizes(builder, parts[2])?);
    if shape.len() > MOST_DIMENSIONS {
        return Err(Refusal::Odd(format!("it has {} dimensions", shape.len())));
    }
    let width = element.width_bytes();
    if !bare.bytes.start.is_multiple_of(width) {
        return Err("its storage starts in the middle of an element".into());
    }
    let offset = offset
        .checked_add(bare.bytes.start / width)
        .ok_or("its offset passes 2^64")?;
    swap_by(builder, bare, element);
    let place = (bare.storage, bare.bytes.end);
    View::new(place, element, offset, shape, strides)
        .map_err(|error| Refusal::Lie(error.message().into()))
}

/// Storages without a type are turned around by the width of what is in them.
fn swap_by(builder: &mut Builder<'_>, bare: &BareStorage, element: Element) {
    let storage = &mut builder.storages[bare.storage.0 as usize];
    if storage.swap_width_bytes == UNKNOWN_SWAP {
        storage.swap_width_bytes = element.swap_width_bytes();
    }
}

/// Stands for the width of a big-endian storage until a tensor says what is in it.
pub(crate) const UNKNOWN_SWAP: u64 = 0;

/// The numbers of a tuple, list or size, none of which is negative.
pub(crate) fn sizes(builder: &mut Builder<'_>, id: NodeId) -> Made<Vec<u64>> {
    let items = match &builder.tree[id] {
        Node::Size(sizes) => {
            let sizes = sizes.clone();
            builder.charge_nodes(sizes.len())?;
            return Ok(sizes);
        }
        _ => builder.tree.items(id).ok_or("its sizes are no tuple")?,
    };
    let size = |item: &NodeId| match builder.tree[*item] {
        Node::Int(size) => u64::try_from(size).ok(),
        _ => None,
    };
    let sizes: Option<Vec<u64>> = items.iter().map(size).collect();
    let sizes = sizes.ok_or("a size or stride of it is no count")?;
    builder.charge_nodes(sizes.len())?;
    Ok(sizes)
}

fn truth(builder: &Builder<'_>, id: NodeId) -> Made<bool> {
    match builder.tree[id] {
        Node::Bool(truth) => Ok(truth),
        Node::Int(number @ (0 | 1)) => Ok(number == 1),
        _ => Err("a flag of it is no bool".into()),
    }
}

fn element(builder: &Builder<'_>, id: NodeId) -> Made<Element> {
    match builder.tree[id] {
        Node::Dtype(element) => Ok(element),
        _ => Err("its element type is none".into()),
    }
}

fn parameter(
    builder: &mut Builder<'_>,
    data: NodeId,
    requires_grad: NodeId,
    state: Option<NodeId>,
) -> Made {
    let requires_grad = truth(builder, requires_grad)?;
    let mut node = builder.tree[data].clone();
    match &mut node {
        Node::Tensor(tensor) => {
            (tensor.is_parameter, tensor.requires_grad) = (true, requires_grad);
        }
        Node::Meta(meta) => (meta.is_parameter, meta.requires_grad) = (true, requires_grad),
        Node::Sparse(sparse) => (sparse.is_parameter, sparse.requires_grad) = (true, requires_grad),
        Node::Quantized(quantized) => {
            (quantized.is_parameter, quantized.requires_grad) = (true, requires_grad);
        }
        _ => return Err("it is made of what is no tensor".into()),
    }
    let id = builder.push(node)?;
    if let Some(state) = state {
        attach(builder, id, state)?;
    }
    Ok(id)
}

/// `_rebuild_from_type_v2(function, type, args, state)`.
pub(crate) fn from_type(machine: &mut Machine<'_, '_>, list: &[NodeId]) -> Made {
    let &[function, class, args, state] = list else {
        return Err(count(list));
    };
    let Some((global, Known::Call(call))) = machine.builder.global_of(function) else {
        return Err("what rebuilds it is not known".into());
    };
    if matches!(
        call,
        Call::FromType
            | Call::FromTypeV2
            | Call::NewObject
            | Call::Reconstructor
            | Call::NewObjectExtended
            | Call::FromBytes
    ) {
        return Err("what rebuilds it rebuilds no tensor".into());
    }
    machine.builder.called(global);
    let id = understand(machine, call, args)?;
    let builder = &mut *machine.builder;
    match builder.global_of(class) {
        Some((_, Known::Call(Call::TensorClass))) => {}
        Some((_, Known::Call(Call::BufferClass))) => {
            if let Node::Tensor(tensor) = builder.tree.node_mut(id) {
                tensor.is_buffer = true;
            }
        }
        Some((_, Known::Call(Call::ParameterClass))) => {
            if let Node::Tensor(tensor) = builder.tree.node_mut(id) {
                tensor.is_parameter = true;
            }
        }
        _ => return subclass(builder, class, id, state),
    }
    attach(builder, id, state)?;
    Ok(id)
}

/// A tensor of a class that is not known: opaque, with the plain tensor as its argument.
fn subclass(builder: &mut Builder<'_>, class: NodeId, tensor: NodeId, state: NodeId) -> Made {
    let args = builder.push(Node::Tuple(vec![tensor]))?;
    let id = builder.push_opaque(class, Some(args), None)?;
    if let Node::Opaque(opaque) = builder.tree.node_mut(id) {
        opaque.state = Some(state);
    }
    Ok(id)
}

/// `_rebuild_qtensor(storage, offset, size, stride, quantizer, requires_grad, hooks)`.
fn quantized(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let &[
        storage,
        offset,
        size,
        stride,
        quantizer,
        requires_grad,
        _hooks,
    ] = list
    else {
        return Err(count(list));
    };
    let bare = bare_storage(builder, storage)?;
    let element = bare.element.ok_or("its storage has no element type")?;
    let requires_grad = truth(builder, requires_grad)?;
    let scheme = scheme(builder, quantizer)?;
    let ints = match element {
        Element::Quint4x2 | Element::Quint2x4 => packed(builder, &bare, element, size)?,
        _ => view(builder, &bare, element, [offset, size, stride])?,
    };
    let shape = sizes(builder, size)?;
    let strides = sizes(builder, stride)?;
    let quantized = Quantized {
        ints,
        shape,
        strides,
        scheme,
        is_parameter: false,
        requires_grad,
    };
    Ok(builder.push(Node::Quantized(Box::new(quantized)))?)
}

/// The whole storage of a tensor several elements of which share a byte: a row of bytes.
fn packed(
    builder: &mut Builder<'_>,
    bare: &BareStorage,
    element: Element,
    size: NodeId,
) -> Made<View> {
    let n_elements = sizes(builder, size)?
        .into_iter()
        .try_fold(1u64, u64::checked_mul);
    let in_byte = if element == Element::Quint4x2 { 2 } else { 4 };
    let needed = n_elements.ok_or("its size passes 2^64")?.div_ceil(in_byte);
    let place = (bare.storage, bare.bytes.end);
    View::contiguous(place, element, bare.bytes.start, vec![needed])
        .map_err(|error| Refusal::Lie(error.message().into()))
}

fn scheme(builder: &mut Builder<'_>, quantizer: NodeId) -> Made<Scheme> {
    let list = elements(builder, quantizer)?;
    let name = match list.first().map(|first| &builder.tree[*first]) {
        Some(Node::Qscheme(name)) if QSCHEMES.contains(name) => *name,
        _ => return Err("its scheme is not known".into()),
    };
    match (name.starts_with("per_tensor"), &list[1..]) {
        (true, &[scale, zero_point]) => {
            let scale = match builder.tree[scale] {
                Node::Float(scale) => scale,
                Node::Int(scale) => scale as f64,
                _ => return Err("its scale is no number".into()),
            };
            let zero_point = builder
                .tree
                .integer(zero_point)
                .ok_or("its zero point is no number")?;
            Ok(Scheme::PerTensor {
                name,
                scale,
                zero_point,
            })
        }
        (false, &[scales, zero_points, axis]) => {
            let axis = builder.tree.integer(axis).ok_or("its axis is no number")?;
            require_tensors(builder, &[scales, zero_points])?;
            Ok(Scheme::PerChannel {
                name,
                scales,
                zero_points,
                axis,
            })
        }
        _ => Err("its scheme has other parts".into()),
    }
}

fn require_tensors(builder: &Builder<'_>, ids: &[NodeId]) -> Made<()> {
    let is_tensor = |id: &NodeId| matches!(builder.tree[*id], Node::Tensor(_));
    if ids.iter().all(is_tensor) {
        Ok(())
    } else {
        Err("a part of it is no tensor".into())
    }
}

/// `_rebuild_sparse_tensor(layout, data)`.
fn sparse(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let &[layout, data] = list else {
        return Err(count(list));
    };
    let Node::Layout(name) = builder.tree[layout] else {
        return Err("its layout is none".into());
    };
    let data = elements(builder, data)?;
    let (layout, values, size) = match (name, &data[..]) {
        ("sparse_coo", &[indices, values, size]) => (
            SparseLayout::Coo {
                indices,
                is_coalesced: false,
            },
            values,
            size,
        ),
        ("sparse_coo", &[indices, values, size, is_coalesced]) => {
            let is_coalesced = truth(builder, is_coalesced)?;
            (
                SparseLayout::Coo {
                    indices,
                    is_coalesced,
                },
                values,
                size,
            )
        }
        (_, &[compressed, plain, values, size]) => {
            let layout = match name {
                "sparse_csr" => SparseLayout::Csr { compressed, plain },
                "sparse_csc" => SparseLayout::Csc { compressed, plain },
                "sparse_bsr" => SparseLayout::Bsr { compressed, plain },
                "sparse_bsc" => SparseLayout::Bsc { compressed, plain },
                _ => return Err("its layout is not sparse".into()),
            };
            (layout, values, size)
        }
        _ => return Err("its layout has other parts".into()),
    };
    require_tensors(
        builder,
        &data[..data.len().min(3) - usize::from(name == "sparse_coo")],
    )?;
    let shape = sizes(builder, size)?;
    let sparse = Sparse {
        layout,
        values,
        shape,
        is_parameter: false,
        requires_grad: false,
    };
    Ok(builder.push(Node::Sparse(Box::new(sparse)))?)
}

/// `_rebuild_nested_tensor(buffer, sizes, strides, offsets)`.
fn nested(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let &[values, sizes, strides, offsets] = list else {
        return Err(count(list));
    };
    require_tensors(builder, list)?;
    let nested = Nested {
        values,
        sizes,
        strides,
        offsets,
    };
    Ok(builder.push(Node::Nested(Box::new(nested)))?)
}

/// `_rebuild_meta_tensor_no_storage(dtype, size, stride, requires_grad)`.
fn meta(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let &[dtype, size, stride, requires_grad] = list else {
        return Err(count(list));
    };
    let (element, requires_grad) = (element(builder, dtype)?, truth(builder, requires_grad)?);
    let (shape, strides) = (sizes(builder, size)?, sizes(builder, stride)?);
    if shape.len() != strides.len() || shape.len() > MOST_DIMENSIONS {
        return Err("its shape and strides differ".into());
    }
    let meta = Meta {
        element,
        shape,
        strides,
        is_parameter: false,
        is_buffer: false,
        requires_grad,
        attributes: None,
    };
    Ok(builder.push(Node::Meta(Box::new(meta)))?)
}

/// `_rebuild_device_tensor_from_numpy(data, dtype, device, requires_grad)`, and the same from a tensor.
fn on_device(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let &[data, dtype, device, requires_grad] = list else {
        return Err(count(list));
    };
    let wanted = element(builder, dtype)?;
    let requires_grad = truth(builder, requires_grad)?;
    let view = match &builder.tree[data] {
        Node::Tensor(tensor) => tensor.view.clone(),
        Node::Ndarray(array) => array.view.clone(),
        _ => return Err("it is made of what is no tensor".into()),
    };
    if view.element() != wanted {
        return Err("its element type is not that of its data".into());
    }
    let device = match &builder.tree[device] {
        Node::Str(device) => device.to_string_lossy(),
        Node::Device(device) => device.clone(),
        _ => return Err("its device is none".into()),
    };
    builder.storages[view.storage().0 as usize].device = device;
    let mut tensor = Tensor::new(view);
    tensor.requires_grad = requires_grad;
    Ok(builder.push(Node::Tensor(Box::new(tensor)))?)
}

/// A storage as a value: all of it, as elements of one type.
pub(crate) fn whole(
    storage: crate::storage::StorageId,
    element: Option<Element>,
    size_bytes: u64,
) -> Node {
    let bytes = ByteRange::new(0, size_bytes);
    Node::Storage(Box::new(BareStorage {
        storage,
        element,
        bytes,
    }))
}

/// Says of every storage whose width nothing has said that it is bytes, and of those that are missing that they are.
pub(crate) fn settle(builder: &mut Builder<'_>) {
    for storage in &mut builder.storages {
        if storage.swap_width_bytes == UNKNOWN_SWAP {
            storage.swap_width_bytes = 1;
        }
    }
    let is_missing = |place: &Place| matches!(place, Place::Missing);
    let missing: Vec<String> = builder
        .storages
        .iter()
        .filter(|storage| is_missing(&storage.place) && storage.size_bytes > 0)
        .map(|storage| {
            format!(
                "storage `{}` of {} bytes is not in the file",
                storage.name, storage.size_bytes
            )
        })
        .collect();
    for message in missing {
        builder.note(Finding::new(FindingKind::Missing, Class::Unknown, message));
    }
}
