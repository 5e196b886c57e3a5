//! Bytes that CPython's unpickler was given, each with whether it came to an import (`fixtures/make_imports.py`).

// The lint's exception for tests knows only the functions that are tests themselves.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use tensorhold_convert::first_import;

fn cases() -> Vec<(Vec<u8>, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imports.json");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<(String, bool)> = serde_json::from_str(&text).unwrap();
    let bytes = |text: String| {
        let pairs = text.as_bytes().as_chunks::<2>().0.iter();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        pairs.map(|pair| byte(pair).unwrap()).collect()
    };
    cases
        .into_iter()
        .map(|(text, imports)| (bytes(text), imports))
        .collect()
}

#[test]
fn what_python_imports_is_found() {
    let mut n_imports = 0;
    let mut n_others = 0;
    for (pickle, imports) in cases() {
        let found = first_import(&pickle.as_slice()).unwrap();
        assert!(found.is_some() || !imports, "{}", pickle.escape_ascii());
        n_imports += u32::from(imports);
        n_others += u32::from(found.is_some() && !imports);
    }
    assert!(n_imports > 100, "{n_imports}");
    // Python refuses more values than this looks at.
    assert!(n_others * 2 < n_imports, "{n_others} of {n_imports}");
}
