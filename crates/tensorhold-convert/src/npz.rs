//! NumPy's `.npz` archives.
