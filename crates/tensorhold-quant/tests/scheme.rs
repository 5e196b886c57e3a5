//! What schemes say of parts that are not of one weight.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::prelude::*;
use tensorhold_core::Dtype;
use tensorhold_quant::codec::FloatCode;
use tensorhold_quant::scheme::{
    AwqGemm, Fp8, Gptq, GptqFormat, IntQuantized, Mx, MxNames, Nvfp4, Nvfp4Names, PackOrder,
    PackQuantized, Parts, Recipe, ScaleOrder, Scheme,
};

use Dtype::{BF16, F8_E4M3, F16, F32, I8, I32, U8};

type Shapes<'a> = &'a [(&'static str, Dtype, &'a [u64])];

fn refused(scheme: &impl Scheme, parts: Shapes<'_>) -> String {
    let parts: Parts<'_> = parts.iter().copied().collect();
    let error = scheme.recipe(&parts).unwrap_err();
    error.message().to_owned()
}

fn recipe(scheme: &impl Scheme, parts: Shapes<'_>) -> Recipe {
    let parts: Parts<'_> = parts.iter().copied().collect();
    scheme.recipe(&parts).unwrap()
}

#[test]
fn a_missing_part_is_named_with_those_that_there_are() {
    assert_eq!(
        refused(&Fp8::default(), &[("weight", F8_E4M3, &[20, 30])]),
        "part `weight_scale_inv` or `weight_scale` or `scale` or `qscale_weight` or `scale_weight` or `_scale_inv` or `weight._scale` is \
         missing; there are `weight`"
    );
    assert_eq!(
        refused(&AwqGemm { group_size: None }, &[("qzeros", I32, &[1, 1])]),
        "part `qweight` is missing; there are `qzeros`"
    );
}

#[test]
fn scales_of_blocks_are_as_many_as_blocks_with_partial_ones() {
    let scheme = Fp8 {
        block: Some([128, 128]),
    };
    let weight = ("weight", F8_E4M3, &[200, 300][..]);
    assert_eq!(
        refused(&scheme, &[weight, ("weight_scale_inv", F32, &[1, 2])]),
        "part `weight_scale_inv` is F32 [1, 2]: it must have shape [2, 3] or [2, 1, 3, 1] or [1, 2, 3]"
    );
    assert_eq!(
        refused(
            &Fp8::default(),
            &[weight, ("weight_scale_inv", F32, &[2, 3])]
        ),
        "part `weight_scale_inv` is F32 [2, 3]: without blocks it must be one scale, or 200 of rows"
    );
    assert_eq!(
        refused(&scheme, &[("weight", I8, &[2, 2])]),
        "part `weight` is I8 [2, 2]: it must be floats of 8 bits"
    );
    assert_eq!(
        refused(&scheme, &[weight, ("weight_scale_inv", I32, &[2, 3])]),
        "part `weight_scale_inv` is I32 [2, 3]: it must be floats or powers of two"
    );
    let experts: Shapes<'_> = &[
        ("", F8_E4M3, &[4, 200, 300]),
        ("_scale_inv", F32, &[4, 2, 3]),
    ];
    assert_eq!(recipe(&scheme, experts).shape, [4, 200, 300]);
}

#[test]
fn parts_of_gptq_are_held_to_each_other() {
    let scheme = |bits| Gptq {
        bits,
        group_size: Some(32),
        format: GptqFormat::V1,
    };
    let weight = ("qweight", I32, &[12, 64][..]);
    let scales = ("scales", F16, &[3, 64][..]);
    let parts = recipe(&scheme(4), &[weight, scales]);
    assert_eq!(parts.shape, [64, 96]);
    assert_eq!(
        refused(&scheme(4), &[weight, ("scales", F16, &[4, 64])]),
        "part `scales` is F16 [4, 64]: it must have shape [3, 64]"
    );
    assert_eq!(
        refused(&scheme(4), &[weight, scales, ("qzeros", I32, &[3, 9])]),
        "part `qzeros` is I32 [3, 9]: 1 x 64 x 3 codes of 4 bits take [1, 3, 8]"
    );
    assert_eq!(
        refused(&scheme(4), &[weight, scales, ("g_idx", I32, &[100])]),
        "part `qweight` is I32 [12, 64]: 1 x 64 x 100 codes of 4 bits take [1, 13, 64]"
    );
    assert_eq!(
        refused(&scheme(3), &[("qweight", I32, &[10, 64]), scales]),
        "part `qweight` is I32 [10, 64]: codes of 3 bits must fill its words"
    );
    assert_eq!(
        refused(&scheme(9), &[weight, scales]),
        "GPTQ has no codes of 9 bits: it has 2 to 8"
    );
}

#[test]
fn parts_of_awq_are_held_to_each_other() {
    let scheme = AwqGemm {
        group_size: Some(32),
    };
    let (weight, scales) = (
        ("qweight", I32, &[96, 3][..]),
        ("scales", F16, &[3, 24][..]),
    );
    assert_eq!(
        refused(&scheme, &[weight, scales, ("qzeros", I32, &[3, 4])]),
        "part `qzeros` is I32 [3, 4]: it must have shape [3, 3]"
    );
    assert_eq!(
        refused(
            &AwqGemm {
                group_size: Some(0)
            },
            &[weight, scales]
        ),
        "groups of 0 inputs hold nothing"
    );
}

#[test]
fn parts_of_pack_quantized_are_held_to_its_shape() {
    let scheme = PackQuantized {
        bits: 4,
        group_size: Some(32),
        shape: [20, 96],
        order: None,
    };
    let weight = ("weight_packed", I32, &[20, 12][..]);
    let scale = ("weight_scale", BF16, &[20, 3][..]);
    assert_eq!(
        refused(&scheme, &[("weight_packed", I32, &[20, 11]), scale]),
        "part `weight_packed` is I32 [20, 11]: for 20 x 96 codes of 4 bits it must be [20, 12] (dense) or [20, 12] (padded)"
    );
    assert_eq!(
        refused(
            &scheme,
            &[weight, scale, ("weight_zero_point", I32, &[3, 4])]
        ),
        "part `weight_zero_point` is I32 [3, 4]: 1 x 20 x 3 codes of 4 bits take [1, 3, 3]"
    );
    assert_eq!(
        refused(&scheme, &[weight, scale, ("weight_g_idx", I32, &[95])]),
        "part `weight_g_idx` is I32 [95]: it must have shape [96]"
    );
}

#[test]
fn a_packed_width_of_both_generations_is_refused() {
    let parts: Shapes<'_> = &[
        ("weight_packed", I32, &[20, 10]),
        ("weight_scale", F32, &[20, 1]),
    ];
    let mut scheme = PackQuantized {
        bits: 3,
        group_size: None,
        shape: [20, 100],
        order: None,
    };
    assert_eq!(
        refused(&scheme, parts),
        "100 codes of 3 bits take as many words padded as dense"
    );
    let orders = [PackOrder::Padded, PackOrder::Dense].map(|order| {
        scheme.order = Some(order);
        recipe(&scheme, parts).codes
    });
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn parts_of_blocks_of_16_and_32_are_held_to_each_other() {
    let mx = Mx {
        float: FloatCode::E2m1,
        names: MxNames::CompressedTensors,
        scales: ScaleOrder::Rows,
    };
    let scale = ("weight_scale", U8, &[20, 3][..]);
    assert_eq!(
        refused(&mx, &[("weight_packed", U8, &[20, 40]), scale]),
        "part `weight_packed` is U8 [20, 40]: it must have shape [20, 48] or [20, 3, 16]"
    );
    let nvfp4 = |names| Nvfp4 { names };
    let weight = ("weight", U8, &[20, 40][..]);
    let scale = ("weight_scale", F8_E4M3, &[20, 5][..]);
    let global = ("weight_scale_2", F32, &[][..]);
    recipe(&nvfp4(Nvfp4Names::Modelopt), &[weight, scale, global]);
    assert_eq!(
        refused(
            &nvfp4(Nvfp4Names::Modelopt),
            &[weight, ("weight_scale", F8_E4M3, &[20, 3]), global]
        ),
        "part `weight_scale` is F8_E4M3 [20, 3]: it must have shape [20, 5]"
    );
    assert_eq!(
        refused(&nvfp4(Nvfp4Names::ComfyUi), &[weight, scale, global]),
        "part `weight_scale` is F8_E4M3 [20, 5]: 1 x 20 x 5 codes of 8 bits take [1, 128, 8]"
    );
    assert_eq!(
        refused(
            &nvfp4(Nvfp4Names::Modelopt),
            &[weight, scale, ("weight_scale_2", F32, &[2])]
        ),
        "part `weight_scale_2` is F32 [2]: it must have shape [] or [1]"
    );
}

#[test]
fn zeros_of_whole_bytes_have_the_shape_of_the_scales() {
    let parts: Shapes<'_> = &[
        ("weight", I8, &[20, 75]),
        ("weight_scale", F32, &[20, 1]),
        ("weight_zero_point", I8, &[20]),
    ];
    assert_eq!(
        refused(&IntQuantized::default(), parts),
        "part `weight_zero_point` is I8 [20]: it must have shape [20, 1]"
    );
}

/// Sizes that are one, odd, whole words, or past what can be multiplied.
fn sizes() -> impl Strategy<Value = u64> {
    const ODD: [u64; 10] = [0, 1, 2, 3, 8, 32, 96, 1 << 31, 1 << 61, u64::MAX];
    (0..ODD.len()).prop_map(|place| ODD[place])
}

fn dtypes() -> impl Strategy<Value = Dtype> {
    const SOME: [Dtype; 9] = [
        F32,
        F16,
        BF16,
        F8_E4M3,
        Dtype::F8_E8M0,
        U8,
        I8,
        I32,
        Dtype::F4,
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
        try_scheme(&Mx { float, names, scales: ScaleOrder::default() }, &made);
        let names = [Nvfp4Names::Modelopt, Nvfp4Names::CompressedTensors, Nvfp4Names::ComfyUi];
        try_scheme(&Nvfp4 { names: names[choice] }, &made);
    }
}
