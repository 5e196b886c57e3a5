//! What `verify` says of the numbers in quantized weights.

// The lint's exception for tests knows only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

use std::fs;

use tensorhold::{Dtype, Outcome, Rules, SaveOptions, TensorSpec, VerifyEvent, save_file, verify};

type Part = (&'static str, Dtype, &'static [u64], Vec<u8>);

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// What is wrong with a checkpoint of these parts, and what is noted of it.
fn told(parts: &[Part], config: &str) -> (Outcome, Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    if !config.is_empty() {
        let config = format!(r#"{{"quantization_config": {config}}}"#);
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    let specs: Vec<TensorSpec<'_>> = parts
        .iter()
        .map(|(name, dtype, shape, _)| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let path = folder.path().join("model.safetensors");
    let bytes = |index: usize| Ok((&parts[index].3).into());
    save_file(&path, &specs, None, &SaveOptions::default(), bytes).unwrap();
    let (mut wrong, mut notes) = (Vec::new(), Vec::new());
    let outcome = verify(&path, Rules::Strict, &mut |event| {
        if let VerifyEvent::Proven(proof) = event {
            let error = |error: &tensorhold::Error| {
                format!("{}: {}", error.tensor().unwrap(), error.message())
            };
            wrong.extend(proof.wrong.iter().map(error));
            notes.extend(proof.notes.iter().map(|note| note.finding.message.clone()));
        }
    });
    (outcome, wrong, notes)
}

fn fp8(scales: [f32; 2]) -> Vec<Part> {
    vec![
        ("a.weight", Dtype::F8_E4M3, &[2, 4], vec![0x38; 8]),
        ("a.weight_scale", Dtype::F32, &[2, 1], floats(&scales)),
    ]
}

fn gptq(scale: f32) -> Vec<Part> {
    let mut scales = [0.5; 32];
    scales[3] = scale;
    vec![
        ("a.qweight", Dtype::I32, &[4, 32], vec![0x53; 512]),
        ("a.qzeros", Dtype::I32, &[1, 4], vec![0x88; 16]),
        ("a.scales", Dtype::F32, &[1, 32], floats(&scales)),
    ]
}

const GPTQ: &str =
    r#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"}"#;

#[test]
fn a_negative_scale_is_wrong_where_no_program_writes_one() {
    let (outcome, wrong, notes) = told(&fp8([0.5, -0.25]), "");
    assert_eq!(outcome, Outcome::Wrong);
    let message = "element 1 of these numbers is -0.25: scales of fp8 are not negative";
    assert_eq!(wrong, [format!("a.weight_scale: {message}")]);
    assert!(notes.is_empty(), "{notes:?}");

    let (outcome, wrong, notes) = told(&fp8([0.5, 0.25]), "");
    assert_eq!((outcome, wrong, notes), (Outcome::Fine, vec![], vec![]));
}

#[test]
fn a_negative_scale_is_noted_where_one_program_writes_it() {
    let note = "some of its scales are negative, as AutoRound writes them and most programs do not";
    let expected = (Outcome::Fine, vec![], vec![note.to_owned()]);
    assert_eq!(told(&gptq(-0.5), GPTQ), expected);
    assert_eq!(told(&gptq(0.5), GPTQ), (Outcome::Fine, vec![], vec![]));
}

#[test]
fn negative_scales_of_mlx_are_like_others() {
    let parts: [Part; 3] = [
        ("a.weight", Dtype::U32, &[2, 8], vec![0x53; 64]),
        ("a.scales", Dtype::F32, &[2, 1], floats(&[-0.5, 0.5])),
        ("a.biases", Dtype::F32, &[2, 1], floats(&[1.0, -1.0])),
    ];
    let config = r#"{"group_size": 64, "bits": 4}"#;
    assert_eq!(told(&parts, config), (Outcome::Fine, vec![], vec![]));

    let mut zero = parts;
    zero[1].3 = floats(&[0.0, 0.5]);
    let note = "some of its scales are 0, so that the weights of their groups are the bias whatever the codes are";
    let expected = (Outcome::Fine, vec![], vec![note.to_owned()]);
    assert_eq!(told(&zero, config), expected);
}

#[test]
fn scales_that_make_weights_vanish_are_noted() {
    let some = "some of its scales are 0, so that the weights of their groups are 0 whatever the codes are";
    let all = "all its scales are 0, so that its weights are 0 whatever the codes are";
    for (parts, config, note) in [
        (fp8([0.5, -0.0]), "", some),
        (fp8([0.0, 0.0]), "", all),
        (gptq(0.0), GPTQ, some),
    ] {
        let expected = (Outcome::Fine, vec![], vec![note.to_owned()]);
        assert_eq!(told(&parts, config), expected);
    }
}

#[test]
fn a_scale_by_which_weights_are_divided_is_not_0() {
    let parts = |global: f32| -> [Part; 3] {
        [
            ("a.weight_packed", Dtype::U8, &[2, 16], vec![0x21; 32]),
            ("a.weight_scale", Dtype::F8_E4M3, &[2, 2], vec![0x38; 4]),
            ("a.weight_global_scale", Dtype::F32, &[1], floats(&[global])),
        ]
    };
    let (outcome, wrong, _) = told(&parts(0.0), "");
    assert_eq!(outcome, Outcome::Wrong);
    let message = "element 0 of these numbers is 0, and weights are divided by it";
    assert_eq!(wrong, [format!("a.weight_global_scale: {message}")]);
    assert_eq!(told(&parts(2.0), "").0, Outcome::Fine);
}
