//! What schemes say of parts that are not of one weight.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use tensorhold_core::Dtype;
use tensorhold_quant::codec::{FloatCode, FourBitTable};
use tensorhold_quant::scheme::{
    AwqGemm, AwqGemv, AwqGemvFast, Axis, BitNet, BitNetScale, Bitsandbytes4, Fp8, Gptq, GptqFormat,
    Hqq, IntQuantized, Mlx, MlxMode, Mx, MxNames, NestedScales, Nvfp4, Nvfp4Names, PackOrder,
    PackQuantized, Parts, QuantoBits, Recipe, ScaleOrder, Scheme, SparseBitmask,
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
    let blocks = ("scale_weight", F32, &[200, 5, 1][..]);
    let units = recipe(&Fp8::default(), &[weight, blocks])
        .granularity()
        .units;
    assert_eq!(units, [1, 60]);
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

#[test]
fn scales_of_awq_may_be_more_than_groups_and_no_fewer() {
    let gemv = AwqGemv {
        group_size: Some(32),
    };
    let weight = ("qweight", I32, &[16, 48][..]);
    let more: Shapes<'_> = &[
        weight,
        ("qzeros", I32, &[16, 4]),
        ("scales", F16, &[16, 32]),
    ];
    assert_eq!(recipe(&gemv, more).shape, [16, 384]);
    assert_eq!(
        refused(&gemv, &[weight, ("qzeros", I32, &[16, 1]), more[2]]),
        "part `qzeros` is I32 [16, 1]: it must have shape [16, 2] or more columns"
    );
    assert_eq!(
        refused(&gemv, &[weight, more[1], ("scales", F16, &[16, 16])]),
        "part `scales` is F16 [16, 16]: it must have shape [16, 32]"
    );
    let fast = AwqGemvFast {
        group_size: Some(64),
    };
    let weight = ("qweight", Dtype::I16, &[4, 384][..]);
    let numbers = |name| (name, F16, &[8, 16][..]);
    let made = recipe(&fast, &[weight, numbers("scales"), numbers("scaled_zeros")]);
    assert_eq!(
        (made.shape.as_slice(), made.granularity().units),
        (&[16, 384][..], vec![4, 64])
    );
    assert_eq!(
        refused(
            &fast,
            &[weight, ("scales", F16, &[5, 16]), numbers("qzeros")]
        ),
        "part `scales` is F16 [5, 16]: it must have shape [6, 16] or more rows"
    );
    assert_eq!(
        refused(
            &fast,
            &[
                ("qweight", Dtype::I16, &[4, 300]),
                numbers("scales"),
                numbers("qzeros")
            ]
        ),
        "part `qweight` is I16 [4, 300]: 1 x 16 x 300 codes of 4 bits take [1, 4, 320]"
    );
}

/// NF4 in blocks of 64.
fn nf4(shape: &[u64], nested: Option<NestedScales>) -> Bitsandbytes4 {
    Bitsandbytes4 {
        shape: shape.to_vec(),
        block_size: 64,
        table: FourBitTable::NF4,
        nested,
    }
}

#[test]
fn blocks_of_bitsandbytes_are_those_of_the_shape_in_its_state() {
    let absmax = ("weight.absmax", F32, &[40][..]);
    let parts: Shapes<'_> = &[("weight", U8, &[1280, 1]), absmax];
    let units = |shape: &[u64]| recipe(&nf4(shape, None), parts).granularity().units;
    assert_eq!(units(&[20, 128]), [1, 64]);
    // Blocks cross rows of 40: eight rows are five blocks, and no row can be cut.
    assert_eq!(units(&[64, 40]), [8, 40]);
    assert_eq!(units(&[2560]), [64]);
    assert_eq!(
        refused(&nf4(&[20, 64], None), parts),
        "part `weight` is U8 [1280, 1]: 1 x 20 x 64 codes of 4 bits take [1, 20, 32]"
    );
    assert_eq!(
        refused(&nf4(&[1, 1, 1, 2560], None), parts),
        "part `weight` is U8 [1280, 1]: it can be no weight of [1, 1, 1, 2560]"
    );
    assert_eq!(
        refused(&nf4(&[1 << 40, 1 << 30], None), parts),
        "part `weight` is U8 [1280, 1]: it can be no weight of [1099511627776, 1073741824]"
    );
}

#[test]
fn nested_scales_are_cut_between_their_own_blocks() {
    let nested = Some(NestedScales {
        block_size: 256,
        offset: 0.5,
    });
    let parts: Shapes<'_> = &[
        ("weight", U8, &[512 * 64, 1]),
        ("weight.absmax", U8, &[1024]),
        ("weight.nested_absmax", F32, &[4]),
        ("weight.nested_quant_map", F32, &[256]),
    ];
    let units = recipe(&nf4(&[512, 128], nested), parts).granularity().units;
    assert_eq!(units, [128, 128]);
    let mut missing = parts.to_vec();
    missing.remove(3);
    assert_eq!(
        refused(&nf4(&[512, 128], nested), &missing),
        "part `weight.nested_quant_map` or `weight_nested_quant_map` is missing; there are `weight`, `weight.absmax`, \
         `weight.nested_absmax`"
    );
    let mut short = parts.to_vec();
    short[2].2 = &[3];
    assert_eq!(
        refused(&nf4(&[512, 128], nested), &short),
        "part `weight.nested_absmax` is F32 [3]: it must have shape [4]"
    );
}

#[test]
fn rows_that_share_bytes_with_far_ones_are_not_cut() {
    let parts: Shapes<'_> = &[("weight", U8, &[5, 30]), ("weight_scale", F32, &[1])];
    let scheme = BitNet {
        scale: BitNetScale::Divides,
    };
    assert_eq!(recipe(&scheme, parts).granularity().units, [20, 1]);
    let hqq = |axis| Hqq {
        bits: 4,
        group_size: Some(64),
        axis,
        shape: vec![32, 128],
    };
    let parts: Shapes<'_> = &[
        ("W_q", U8, &[32, 64]),
        ("scale", F16, &[64, 1]),
        ("zero", F16, &[64, 1]),
    ];
    assert_eq!(
        recipe(&hqq(Axis::Columns), parts).granularity().units,
        [32, 64]
    );
    assert_eq!(
        recipe(&hqq(Axis::Rows), parts).granularity().units,
        [32, 128]
    );
    assert_eq!(
        refused(
            &Hqq {
                group_size: Some(60),
                ..hqq(Axis::Rows)
            },
            parts
        ),
        "part `W_q` is U8 [32, 64]: a weight of [32, 128] has no groups of 60"
    );
}

#[test]
fn a_shape_of_quanto_that_groups_do_not_fill_is_refused() {
    let parts: Shapes<'_> = &[
        ("weight._data._data", U8, &[8, 128]),
        ("weight._scale", F32, &[16, 1]),
        ("weight._shift", F32, &[16, 1]),
    ];
    let quanto = |rows, columns| QuantoBits {
        bits: 4,
        shape: [rows, columns],
    };
    assert_eq!(recipe(&quanto(8, 256), parts).shape, [8, 256]);
    assert_eq!(
        refused(&quanto(32, 64), parts),
        "part `weight._data._data` is U8 [8, 128]: its groups do not fill rows of 64"
    );
    assert_eq!(
        refused(&quanto(8, 128), parts),
        "part `weight._data._data` is U8 [8, 128]: 1 x 8 x 128 codes of 4 bits take [1, 4, 128]"
    );
}

#[test]
fn parts_of_mlx_are_held_to_each_other() {
    let mlx = |mode, bits| Mlx {
        mode,
        bits,
        group_size: 64,
    };
    let weight = ("weight", Dtype::U32, &[10, 16][..]);
    let scales = ("scales", BF16, &[10, 2][..]);
    let biases = ("biases", BF16, &[10, 2][..]);
    recipe(&mlx(MlxMode::Affine, 4), &[weight, scales, biases]);
    assert_eq!(
        refused(&mlx(MlxMode::Affine, 3), &[weight, scales, biases]),
        "part `weight` is U32 [10, 16]: it must have shape [10, 12]"
    );
    assert_eq!(
        refused(&mlx(MlxMode::Affine, 4), &[weight, scales]),
        "part `biases` is missing; there are `scales`, `weight`"
    );
    assert_eq!(
        refused(&mlx(MlxMode::Mxfp4, 8), &[weight, scales]),
        "MLX has no codes of 8 bits in mode Mxfp4"
    );
}

#[test]
fn elements_narrower_than_a_byte_have_the_shape_of_the_weight() {
    let mx = |scales| Mx {
        float: FloatCode::E2m3,
        names: MxNames::Modelopt,
        scales,
    };
    let weight = ("weight", Dtype::F6_E2M3, &[20, 96][..]);
    let scale = ("weight_scale", Dtype::F8_E8M0, &[20, 3][..]);
    let made = recipe(&mx(ScaleOrder::Rows), &[weight, scale]);
    assert_eq!(made.shape, [20, 96]);
    let needs = made.needs(&made.whole()).unwrap();
    assert_eq!((needs[0].dtype, needs[0].view), (U8, [1, 20, 72]));
    let tiles = ("weight_scale", Dtype::F8_E8M0, &[128, 4][..]);
    assert_eq!(
        recipe(&mx(ScaleOrder::Tiles), &[weight, tiles]).shape,
        [20, 96]
    );
    let parts: Shapes<'_> = &[
        ("weight", Dtype::F4, &[20, 96]),
        ("weight_scale", F8_E4M3, &[20, 6]),
        ("weight_scale_2", F32, &[]),
    ];
    let nvfp4 = Nvfp4 {
        names: Nvfp4Names::Modelopt,
    };
    assert_eq!(recipe(&nvfp4, parts).shape, [20, 96]);
    assert_eq!(
        refused(&mx(ScaleOrder::Rows), &[parts[0], scale]),
        "part `weight` is F4 [20, 96]: it must be U8 or I8"
    );
}

#[test]
fn autoround_names_the_formats_of_gptq() {
    let names = [
        ("auto_round:auto_gptq", Some(GptqFormat::V1)),
        ("auto_round:gptq", Some(GptqFormat::V1)),
        ("auto_round", Some(GptqFormat::V2)),
        ("auto_round:gptqmodel", Some(GptqFormat::V2)),
        ("gptq_v2", Some(GptqFormat::V2)),
        ("gptq_p", Some(GptqFormat::Planar)),
        ("auto_round:auto_awq", None),
        ("marlin", None),
    ];
    for (name, format) in names {
        assert_eq!(GptqFormat::of_name(name), format, "{name}");
    }
}

#[test]
fn values_of_a_sparse_weight_that_bits_do_not_count_are_refused() {
    let parts: Shapes<'_> = &[
        ("compressed", BF16, &[10]),
        ("bitmask", U8, &[3, 2]),
        ("row_offsets", Dtype::I64, &[3]),
    ];
    let make =
        |parts: Shapes<'_>, shape| SparseBitmask::new(&parts.iter().copied().collect(), shape);
    let weight = make(parts, [3, 9]).unwrap();
    let offsets = |offsets: [i64; 3]| offsets.map(i64::to_le_bytes).concat();
    let message = |offsets: &[u8]| {
        let error = weight.value_bytes(0..3, offsets).unwrap_err();
        error.message().to_owned()
    };
    assert_eq!(
        message(&offsets([11, 0, 0])),
        "part `row_offsets`: row 0 begins at 11 and ends at 0 of 10 values"
    );
    assert_eq!(
        message(&offsets([-1, 0, 0])),
        "part `row_offsets`: row 0 begins at -1 and ends at 0 of 10 values"
    );
    assert_eq!(
        message(&[0; 8]),
        "these rows take 24 bytes of row_offsets, but there are 8"
    );
    assert_eq!(
        message(&offsets([0, 5, 11])),
        "part `row_offsets`: row 2 begins at 11 and ends at 10 of 10 values"
    );
    let check = |bits: &[u8], each: [i64; 3]| {
        let error = weight.check_rows(0..3, bits, &offsets(each)).unwrap_err();
        error.message().to_owned()
    };
    let bits = [0b1111, 1, 0b11, 0, 0b111, 0];
    assert!(weight.check_rows(0..3, &bits, &offsets([0, 5, 7])).is_ok());
    assert_eq!(
        check(&bits, [0, 4, 7]),
        "part `bitmask`: row 0 has 5 bits for 4 values"
    );
    assert_eq!(
        check(&bits, [0, 5, 4]),
        "part `row_offsets`: row 1 begins at 5 and ends at 4 of 10 values"
    );
    assert_eq!(
        check(&bits, [1, 5, 7]),
        "part `row_offsets`: row 0 begins at 1 and ends at 5 of 10 values"
    );
    assert_eq!(
        check(&[0b1111, 2, 0b11, 0, 0b111, 0], [0, 5, 7]),
        "part `bitmask`: row 0 has bits past its 9 columns"
    );
    let error = weight.scatter(
        2..3,
        &bits[4..],
        &offsets([0, 5, 7])[16..],
        &[0; 4],
        &mut [0; 18],
    );
    assert_eq!(
        error.unwrap_err().message(),
        "part `bitmask` has bits for 6 bytes of values, but there are 4"
    );
    let more: Shapes<'_> = &[("compressed", BF16, &[28]), parts[1], parts[2]];
    assert_eq!(
        make(more, [3, 9]).unwrap_err().message(),
        "part `compressed` is BF16 [28]: a weight of 3 x 9 has no more elements"
    );
    assert_eq!(
        make(parts, [3, 20]).unwrap_err().message(),
        "part `bitmask` is U8 [3, 2]: it must have shape [3, 3]"
    );
    assert_eq!(
        make(&parts[..2], [3, 9]).unwrap_err().message(),
        "part `compressed` is BF16 [10]: of 9 columns there are no two of each four"
    );
    assert_eq!(
        make(parts, [1 << 40, 1 << 40]).unwrap_err().kind(),
        tensorhold_core::ErrorKind::Overflow
    );
}
