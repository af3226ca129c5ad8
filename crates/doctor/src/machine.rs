//! What the machine has, or the container that this process runs in. What the system does not tell is not judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anygate_config::machine as limits;
use anygate_sys::limits::open_files_max;

/// Facts about the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Files that a process may open at most.
    pub open_files: Option<u64>,
    /// Longest queue of connections that the kernel keeps for a socket.
    pub somaxconn: Option<u64>,
    /// Processors that this process may use.
    pub processors: usize,
    /// Bytes of memory, of the machine or its cgroup.
    pub memory: Option<u64>,
    /// File systems that lie in memory.
    pub in_memory: Vec<PathBuf>,
    /// Other file systems.
    pub on_disk: Vec<PathBuf>,
    /// The time of its clock.
    pub now: SystemTime,
    /// When this program was installed: no clock is right that is behind it.
    pub installed: Option<SystemTime>,
}

impl Machine {
    /// Looks at this one. `module`: a file of this program.
    pub fn look(module: Option<&Path>) -> Machine {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let (in_memory, on_disk) = mounts_of(&mounts);
        let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        Machine {
            open_files: open_files_max().ok(),
            somaxconn: somaxconn.and_then(|text| text.trim().parse().ok()),
            processors: limits::processors(),
            memory: limits::memory(),
            in_memory,
            on_disk,
            now: SystemTime::now(),
            installed: module.and_then(|file| fs::metadata(file).ok()?.modified().ok()),
        }
    }

    /// Whether files of a folder lie in memory.
    pub fn is_in_memory(&self, folder: &Path) -> bool {
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let depth = |mounts: &[PathBuf]| {
            let of = mounts.iter().filter(|mount| folder.starts_with(mount));
            of.map(|mount| mount.components().count()).max()
        };
        depth(&self.in_memory) > depth(&self.on_disk)
    }
}

/// The file systems of /proc/self/mounts (proc_pid_mounts(5)) that lie in memory, and the others.
fn mounts_of(text: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        Some((PathBuf::from(path.replace("\\040", " ")), matches!(kind, "tmpfs" | "ramfs")))
    });
    let (in_memory, on_disk): (Vec<_>, Vec<_>) = mounts.partition(|(_, is_in_memory)| *is_in_memory);
    let paths = |mounts: Vec<(PathBuf, bool)>| mounts.into_iter().map(|(path, _)| path).collect();
    (paths(in_memory), paths(on_disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_file_system_counts() {
        let (in_memory, on_disk) =
            mounts_of("/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk ext4 rw 0 0\n");
        let machine = Machine { in_memory, on_disk, ..Machine::look(None) };
        for (folder, expected) in
            [("/var/tmp-none", false), ("/tmp", true), ("/tmp/a-none/b", true), ("/tmp/disk/a", false)]
        {
            assert_eq!(machine.is_in_memory(Path::new(folder)), expected, "{folder}");
        }
    }
}
