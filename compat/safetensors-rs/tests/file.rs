//! What a save leaves on the disk.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors, serialize, serialize_to_file};

fn tensors(data: &[u8]) -> [(&'static str, TensorView<'_>); 1] {
    [(
        "x",
        TensorView::new(Dtype::U8, vec![data.len()], data).unwrap(),
    )]
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_can_be_saved_over_its_own_map() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let data: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    serialize_to_file(tensors(&data), None, &path).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: the file is replaced and never written to while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let mapped = SafeTensors::deserialize(&map).unwrap();
    serialize_to_file(mapped.iter(), None, &path).unwrap();
    assert!(mapped.tensor("x").unwrap().data() == data);
    let saved = std::fs::read(&path).unwrap();
    assert!(saved == serialize(tensors(&data), None).unwrap());
}

#[test]
fn a_name_without_a_folder_is_in_the_current_one() {
    let name = format!("compat-{}.safetensors", std::process::id());
    serialize_to_file(tensors(&[1]), None, Path::new(&name)).unwrap();
    let saved = std::fs::read(&name).unwrap();
    std::fs::remove_file(&name).unwrap();
    assert_eq!(SafeTensors::deserialize(&saved).unwrap().names(), ["x"]);
}

#[test]
fn a_save_that_the_system_refuses_says_where_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("x.safetensors");
    let error = serialize_to_file(tensors(&[1]), None, &path).unwrap_err();
    let text = error.to_string();
    let SafeTensorError::IoError(error) = error else {
        panic!("{text}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(text.starts_with("I/O error: "), "{text}");
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    assert!(serialize_to_file(tensors(&[1]), None, folder.path()).is_err());
    assert!(names(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn the_mode_stays_and_links_are_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    std::fs::write(&target, b"old").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
    symlink("target", &link).unwrap();
    serialize_to_file(tensors(&[1, 2]), None, &link).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(
        target.metadata().unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(
        std::fs::read(&target).unwrap(),
        serialize(tensors(&[1, 2]), None).unwrap()
    );
    assert_eq!(names(folder.path()), ["link", "target"]);
}

#[test]
fn tensors_go_by_the_order_of_the_names_own_type() {
    use std::cmp::Reverse;
    use std::fmt;

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Backwards(Reverse<&'static str>);

    impl AsRef<str> for Backwards {
        fn as_ref(&self) -> &str {
            self.0.0
        }
    }

    impl fmt::Display for Backwards {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0.0)
        }
    }

    let view = |data| TensorView::new(Dtype::U8, vec![1], data).unwrap();
    let tensors = || [("a", view(&[1])), ("b", view(&[2]))];
    let named = || tensors().map(|(name, view)| (Backwards(Reverse(name)), view));
    let file = serialize(named(), None).unwrap();
    assert_eq!(SafeTensors::deserialize(&file).unwrap().names(), ["b", "a"]);
    let published_view =
        |data| published::tensor::TensorView::new(published::Dtype::U8, vec![1], data).unwrap();
    let theirs = [("a", published_view(&[1])), ("b", published_view(&[2]))]
        .map(|(name, view)| (Backwards(Reverse(name)), view));
    assert_eq!(file, published::serialize(theirs, None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    serialize_to_file(named(), None, &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), file);
}
