//! What this machine has, or the container that this process runs in (its cgroup): values for options that are `auto`.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the number of processors that this process may use, by its affinity and the limit of its cgroup.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns the bytes of memory that there are: of the machine, or of the cgroup if it has a smaller limit. `None` where the
/// system does not say.
pub fn memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(limits(&own, Path::new("/sys/fs/cgroup"))).min()
}

/// The total of /proc/meminfo (proc_meminfo(5)).
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Limits of the cgroup that `own` (/proc/self/cgroup) names, and of those above it, version 2 or 1 (cgroups(7)). In a
/// container the root is its own group, so a name that is not there stands for the root.
fn limits(own: &str, root: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file): (PathBuf, _) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(name.trim_start_matches('/'));
        let above = group.ancestors().take_while(|folder| folder.starts_with(&root));
        // Version 1 says with a number close to the largest that there is no limit, version 2 with a word.
        found.extend(
            above.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok()),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
    }

    #[test]
    fn limits_of_the_own_group_and_of_those_above_it_count() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("site.slice/memory.max", "1000\n");
        write("site.slice/web.service/memory.max", "max\n");
        write("memory/docker/memory.limit_in_bytes", "500\n");
        assert_eq!(limits("0::/site.slice/web.service\n", root.path()), [1000]);
        assert_eq!(limits("3:cpu:/\n2:memory,x:/docker\n", root.path()), [500]);
        assert_eq!(limits("0::/elsewhere\n", root.path()), [0_u64; 0]);
    }
}
