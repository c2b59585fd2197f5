//! What processes have used so far, by the kernel's own count.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::Process;
use procfs::{Current, ProcError, ProcResult};

use crate::Result;

/// The counters of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceUsage {
    /// Seconds of the processor, user and system.
    pub cpu_seconds: f64,
    /// Bytes that they have caused to be written to the disk.
    pub written_bytes: u64,
}

impl ResourceUsage {
    /// Those of these processes together, as they stand, with what those of their
    /// children used that have ended: the kernel adds that up itself (of `io` as well).
    pub fn of(pids: &[i32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let found = Process::new(*pid).and_then(|p| Ok((p.stat()?, p.io()?)));
            let Some((stat, io)) = still_there(found)? else {
                continue;
            };
            let ended = stat.cutime + stat.cstime;
            let ticks = (stat.utime + stat.stime) as f64 + ended as f64;
            sum.cpu_seconds += ticks / procfs::ticks_per_second() as f64;
            sum.written_bytes += io.write_bytes;
        }
        Ok(sum)
    }

    /// What was used since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: (self.cpu_seconds - before.cpu_seconds).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// Memory of processes, in bytes. What they share is counted for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryUsage {
    /// What is resident.
    pub resident: u64,
    /// Of that what is no page of a file (which the kernel takes back when it wants).
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl MemoryUsage {
    /// That of these processes together, as it stands.
    pub fn of(pids: &[i32]) -> Result<Self> {
        let bytes = |kib: Option<u64>| kib.unwrap_or(0) * 1024;
        let mut sum = Self::default();
        for pid in pids {
            let found = Process::new(*pid).and_then(|p| p.status());
            let Some(status) = still_there(found)? else {
                continue;
            };
            sum.resident += bytes(status.vmrss);
            sum.anonymous += bytes(status.rssanon);
            sum.peak += bytes(status.vmhwm);
        }
        Ok(sum)
    }
}

/// `None` of a process that has ended: Redis, for one, rewrites its log by one that comes
/// and goes.
fn still_there<T>(found: ProcResult<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// This process.
pub fn this() -> Result<i32> {
    Ok(Process::myself()?.pid())
}

/// These processes and those that they have started, and they in turn.
pub fn tree(roots: &[i32]) -> Result<Vec<i32>> {
    let parents: Vec<(i32, i32)> = procfs::process::all_processes()?
        // Others come and go meanwhile.
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| (stat.pid, stat.ppid))
        .collect();
    let mut tree = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        let children = parents.iter().filter(|(_, ppid)| *ppid == parent);
        tree.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(tree)
}

/// Bytes that the files under a folder take on the disk, holes not counted: all, and for
/// each folder in it.
pub fn disk_bytes(dir: &Path) -> Result<(u64, BTreeMap<String, u64>)> {
    let mut sum = 0;
    let mut folders = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // It may have been removed meanwhile.
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if metadata.is_dir() {
            let (bytes, _) = disk_bytes(&entry.path())?;
            folders.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
            sum += bytes;
        } else {
            sum += metadata.blocks() * 512;
        }
    }
    Ok((sum, folders))
}

/// Has the kernel forget what it has read of files. Whether it was allowed.
pub fn drop_page_cache() -> bool {
    let synced = std::process::Command::new("sync").status();
    synced.is_ok_and(|status| status.success())
        && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// What is measured on.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its threads that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The file system under the data.
    pub file_system: String,
}

impl Machine {
    /// This one, with the data in `dir`.
    pub fn this(dir: &Path) -> Result<Self> {
        let processors = procfs::CpuInfo::current()?;
        let kernel = procfs::sys::kernel::Version::current()?;
        let dir = dir.canonicalize()?;
        let file_system = Process::myself()?
            .mountinfo()?
            .into_iter()
            .filter(|mount| dir.starts_with(&mount.mount_point))
            .max_by_key(|mount| mount.mount_point.as_os_str().len())
            .map_or_else(|| "unknown".to_owned(), |mount| mount.fs_type);
        Ok(Self {
            processor: processors.model_name(0).unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: procfs::Meminfo::current()?.mem_total,
            kernel: format!("{}.{}.{}", kernel.major, kernel.minor, kernel.patch),
            file_system,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_tree_has_the_children_and_their_memory_counts() {
        let this = this().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pids = tree(&[this]).unwrap();
        let alone = MemoryUsage::of(&[this]).unwrap();
        let both = MemoryUsage::of(&pids).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids.contains(&i32::try_from(child.id()).unwrap()));
        assert!(both.peak > alone.peak);
        assert!(alone.resident >= alone.anonymous);
    }

    #[test]
    fn what_has_ended_is_left_out() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(ResourceUsage::of(&[pid]).unwrap().written_bytes, 0);
        assert_eq!(MemoryUsage::of(&[pid]).unwrap().resident, 0);
    }
}
