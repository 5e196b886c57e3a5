//! The verdict on every header is that of crate `safetensors` 0.8.0, and so is the table.

mod generator;
mod oracle;

use proptest::prelude::*;

use generator::{Choices, whole};
use oracle::check;

fn choices() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 0..160)
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn right_headers_give_the_reference_table(choices in choices()) {
        check(&generator::file(&mut Choices(choices.iter()), 0));
    }

    #[test]
    fn changed_headers_get_the_reference_verdict(choices in choices(), n_changes in 1..4_usize) {
        check(&generator::file(&mut Choices(choices.iter()), n_changes));
    }

    #[test]
    fn changed_bytes_get_the_reference_verdict(
        choices in choices(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut file = generator::file(&mut Choices(choices.iter()), 0);
        for (place, byte, change) in changes {
            if file.len() == 8 {
                break;
            }
            let place = 8 + place.index(file.len() - 8);
            match change {
                0 => file[place] = byte,
                1 => file.insert(place, byte),
                _ => drop(file.remove(place)),
            }
            let length = file.len() as u64 - 8;
            let length = length.min(u64::from_le_bytes(*file.first_chunk().unwrap()));
            file[..8].copy_from_slice(&length.to_le_bytes());
        }
        check(&file);
    }
}

#[test]
fn the_generator_reaches_both_verdicts() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut n_accepted, mut n_files) = (0, 0);
    for _ in 0..2000 {
        let tree = choices().new_tree(&mut runner).unwrap();
        let choices = proptest::strategy::ValueTree::current(&tree);
        n_accepted += usize::from(check(&generator::file(&mut Choices(choices.iter()), 1)));
        n_files += 1;
    }
    assert!(
        (n_files / 10..n_files * 9 / 10).contains(&n_accepted),
        "{n_accepted} of {n_files}"
    );
}

#[test]
fn corner_cases_get_the_reference_verdict() {
    let nested = |n: usize| {
        format!(
            r#"{{"a":{{"x":{}1{},"dtype":"U8","shape":[],"data_offsets":[0,1]}}}}"#,
            "[".repeat(n),
            "]".repeat(n)
        )
    };
    let number = |number: &str| {
        format!(r#"{{"a":{{"x":{number},"dtype":"U8","shape":[],"data_offsets":[0,1]}}}}"#)
    };
    let mut accepted = Vec::new();
    let mut texts: Vec<String> = (120..132).map(nested).collect();
    for exponent in 280..312 {
        for significand in [
            "1",
            "18446744073709551615",
            "18446744073709551616",
            "0.1",
            "1797693134862315708",
            "1.7976931348623157",
            "1.7976931348623158",
            "1.7976931348623159",
            "17976931348623157081",
            "179769313486231570814",
            "0",
        ] {
            texts.push(number(&format!("{significand}e{exponent}")));
            texts.push(number(&format!("-{significand}e+{exponent}")));
        }
    }
    texts.push(number(&"9".repeat(308)));
    texts.push(number(&"9".repeat(309)));
    texts.push(number(&"9".repeat(310)));
    texts.push(number(&format!("0.{}1e700", "0".repeat(400))));
    texts.push(number(&format!("0.{}1e720", "0".repeat(400))));
    for text in &texts {
        accepted.push(check(&whole(text.as_bytes(), 1)));
    }
    assert!(accepted.contains(&true) && accepted.contains(&false));
}

#[test]
fn header_lengths_get_the_reference_verdict() {
    for length in [
        0,
        1,
        2,
        3,
        7,
        8,
        99_999_999,
        100_000_000,
        100_000_001,
        u64::MAX,
        u64::MAX - 7,
    ] {
        for n_bytes in [0, 1, 7, 8, 9, 10, 16] {
            let mut file = length.to_le_bytes().to_vec();
            file.extend_from_slice(b"{}      ");
            file.truncate(n_bytes);
            check(&file);
        }
    }
}
