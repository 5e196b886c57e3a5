//! How much memory is left.

use std::fs;
use std::path::{Path, PathBuf};

/// The bytes that this process may still take without driving others out: of the machine, and of every control group
/// that it is in. `None` where the system does not tell.
pub(crate) fn free_memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| Some(field(&text, "MemAvailable:")?.saturating_mul(1024)));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups
        .lines()
        .flat_map(folders)
        .filter_map(|folder| in_group(&folder));
    machine.into_iter().chain(groups).min()
}

/// The folders of the control group that a line of `/proc/self/cgroup` names, and of those it is in.
fn folders(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let root = match controllers {
        "" => "/sys/fs/cgroup",
        _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
        _ => return Vec::new(),
    };
    let inner = Path::new(path.trim_start_matches('/'));
    inner
        .ancestors()
        .map(|folder| Path::new(root).join(folder))
        .collect()
}

fn in_group(folder: &Path) -> Option<u64> {
    let number = |name: &str| {
        fs::read_to_string(folder.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let limit: u64 = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used: u64 = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let details = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    // Pages of files are given up for other memory.
    let droppable = ["active_file", "inactive_file"].map(|name| field(&details, name).unwrap_or(0));
    Some(limit.saturating_sub(used.saturating_sub(droppable.iter().sum())))
}

/// The number behind `name` in lines of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_some_memory_left() {
        let free_bytes = free_memory_bytes().unwrap();
        assert!((1 << 20..1 << 50).contains(&free_bytes), "{free_bytes}");
    }

    #[test]
    fn a_group_is_limited_by_all_that_it_is_in() {
        let check = |line, expected: &[&str]| {
            assert_eq!(
                folders(line),
                expected.iter().map(Path::new).collect::<Vec<_>>()
            );
        };
        check(
            "0::/a/b",
            &["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"],
        );
        check("4:cpu,memory:/", &["/sys/fs/cgroup/memory/"]);
        check("5:cpuset:/a", &[]);
        check("odd", &[]);
    }

    #[test]
    fn what_a_group_holds_of_files_counts_as_free() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name, text| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(in_group(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(in_group(folder.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(in_group(folder.path()), Some(300));
        write(
            "memory.stat",
            "anon 300\ninactive_file 100\nactive_file 300\n",
        );
        assert_eq!(in_group(folder.path()), Some(700));
    }
}
