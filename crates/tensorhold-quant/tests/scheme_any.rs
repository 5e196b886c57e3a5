//! Schemes with parts and descriptions of any kind: nothing that a file says ends the program.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::prelude::*;
use tensorhold_core::Dtype;
use tensorhold_quant::codec::{FloatCode, FourBitTable};
use tensorhold_quant::scheme::{
    AwqGemm, AwqGemv, AwqGemvFast, Axis, BitNet, BitNetScale, Bitsandbytes4, Bitsandbytes8, Fp8,
    Gptq, GptqFormat, Hqq, IntQuantized, Mlx, MlxMode, Mx, MxNames, NestedScales, Nvfp4,
    Nvfp4Names, PackOrder, PackQuantized, Parts, QuantoBits, ScaleOrder, Scheme, Sparse,
    SparseBitmask, W4a16Awq,
};

use Dtype::{BF16, F8_E4M3, F16, F32, I8, I32, U8};

/// Sizes that are one, odd, whole words, or past what can be multiplied.
fn sizes() -> impl Strategy<Value = u64> {
    const ODD: [u64; 10] = [0, 1, 2, 3, 8, 32, 96, 1 << 31, 1 << 61, u64::MAX];
    (0..ODD.len()).prop_map(|place| ODD[place])
}

fn dtypes() -> impl Strategy<Value = Dtype> {
    const SOME: [Dtype; 11] = [
        F32,
        F16,
        BF16,
        F8_E4M3,
        Dtype::F8_E8M0,
        U8,
        I8,
        I32,
        Dtype::F4,
        Dtype::I16,
        Dtype::U32,
    ];
    (0..SOME.len()).prop_map(|place| SOME[place])
}

/// Nothing of a scheme ends the program, whatever the parts.
fn try_scheme<S: Scheme>(scheme: &S, made: &[(Dtype, Vec<u64>)]) {
    let parts = S::PARTS.iter().zip(made);
    let parts: Parts<'_> = parts
        .map(|(name, (dtype, shape))| (*name, *dtype, &shape[..]))
        .collect();
    if let Ok(recipe) = scheme.recipe(&parts) {
        let _ = recipe.granularity();
        for need in recipe.needs(&recipe.whole()).unwrap() {
            need.size_bytes().unwrap();
        }
    }
}

proptest! {
    #[test]
    fn no_shape_from_a_file_ends_the_program(
        made in prop::collection::vec((dtypes(), prop::collection::vec(sizes(), 0..4)), 8),
        (rows, columns, group) in (sizes(), sizes(), sizes()),
        bits in 0u32..10,
        choice in 0usize..3,
    ) {
        let group_size = Some(group);
        try_scheme(&Fp8 { block: Some([rows, columns]) }, &made);
        try_scheme(&Fp8::default(), &made);
        let format = [GptqFormat::V1, GptqFormat::V2, GptqFormat::Planar][choice];
        try_scheme(&Gptq { bits, group_size, format }, &made);
        try_scheme(&AwqGemm { group_size }, &made);
        let order = [None, Some(PackOrder::Padded), Some(PackOrder::Dense)][choice];
        try_scheme(&PackQuantized { bits, group_size, shape: [rows, columns], order }, &made);
        try_scheme(&IntQuantized { group_size }, &made);
        let names = [MxNames::CompressedTensors, MxNames::Modelopt, MxNames::GptOss][choice];
        let float = [FloatCode::E2m1, FloatCode::E2m3, FloatCode::E4m3][bits as usize % 3];
        let scales = [ScaleOrder::Rows, ScaleOrder::Tiles][choice % 2];
        try_scheme(&Mx { float, names, scales }, &made);
        let names = [Nvfp4Names::Modelopt, Nvfp4Names::CompressedTensors, Nvfp4Names::TorchaoTiles];
        try_scheme(&Nvfp4 { names: names[choice] }, &made);
    }

    #[test]
    fn no_description_from_a_file_ends_the_program(
        made in prop::collection::vec((dtypes(), prop::collection::vec(sizes(), 0..4)), 8),
        shape in prop::collection::vec(sizes(), 0..5),
        (block_size, group) in (sizes(), sizes()),
        bits in 0u32..10,
        choice in 0usize..3,
    ) {
        let nested = [None, Some(NestedScales { block_size, offset: 0.0 })][choice % 2];
        let table = FourBitTable::NF4;
        let shape_of_two = [block_size, group];
        try_scheme(&Bitsandbytes4 { shape: shape.clone(), block_size: group, table, nested }, &made);
        try_scheme(&Bitsandbytes8, &made);
        let axis = [Axis::Rows, Axis::Columns][choice % 2];
        let group_size = Some(group);
        try_scheme(&Hqq { bits, group_size, axis, shape }, &made);
        try_scheme(&QuantoBits { bits, shape: shape_of_two }, &made);
        let mode = [MlxMode::Affine, MlxMode::Mxfp8, MlxMode::Nvfp4][choice];
        try_scheme(&Mlx { mode, bits, group_size: group }, &made);
        try_scheme(&BitNet { scale: BitNetScale::Divides }, &made);
        try_scheme(&AwqGemv { group_size }, &made);
        try_scheme(&AwqGemvFast { group_size }, &made);
        try_scheme(&W4a16Awq { group_size: group }, &made);
        let parts = SparseBitmask::PARTS.iter().zip(&made);
        let parts: Parts<'_> =
            parts.map(|(name, (dtype, shape))| (*name, *dtype, &shape[..])).collect();
        if let Ok(weight) = SparseBitmask::new(&parts, shape_of_two) {
            weight.mask_bytes(0..block_size).unwrap();
            weight.offset_bytes(0..block_size).unwrap();
            let sparse = Sparse::new(weight, None).unwrap();
            sparse.needs(&sparse.whole()).unwrap();
        }
    }
}
