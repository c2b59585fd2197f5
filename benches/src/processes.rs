//! The kernel's counts for processes and files: processor time, memory, writes and disk space.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::Process;
use procfs::{ProcError, ProcResult};

use crate::Result;

/// Resources that processes have used since they started.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceUsage {
    /// Processor time in user and system mode, in seconds.
    pub cpu_seconds: f64,
    /// Bytes that the processes caused to be written to the disk.
    pub written_bytes: u64,
}

impl ResourceUsage {
    /// Returns the sum over these processes. This includes children that they have waited for,
    /// because the kernel adds the counts of a child to its parent's.
    pub fn of(pids: &[i32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let found = Process::new(*pid).and_then(|p| Ok((p.stat()?, p.io()?)));
            let Some((stat, io)) = ignore_ended(found)? else {
                continue;
            };
            let ended = stat.cutime + stat.cstime;
            let ticks = (stat.utime + stat.stime) as f64 + ended as f64;
            sum.cpu_seconds += ticks / procfs::ticks_per_second() as f64;
            sum.written_bytes += io.write_bytes;
        }
        Ok(sum)
    }

    /// Returns the resources used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: (self.cpu_seconds - before.cpu_seconds).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// Memory of processes, in bytes. Memory that several of them share is counted once for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryUsage {
    /// Resident memory.
    pub resident: u64,
    /// The part of the resident memory that is not file pages. The kernel can reclaim file
    /// pages at any time.
    pub anonymous: u64,
    /// Peak resident memory since the processes started.
    pub peak: u64,
}

impl MemoryUsage {
    /// Returns the sum over these processes.
    pub fn of(pids: &[i32]) -> Result<Self> {
        let bytes = |kib: Option<u64>| kib.unwrap_or(0) * 1024;
        let mut sum = Self::default();
        for pid in pids {
            let found = Process::new(*pid).and_then(|p| p.status());
            let Some(status) = ignore_ended(found)? else {
                continue;
            };
            sum.resident += bytes(status.vmrss);
            sum.anonymous += bytes(status.rssanon);
            sum.peak += bytes(status.vmhwm);
        }
        Ok(sum)
    }
}

/// Returns `None` if the process has ended. Redis, for example, starts a short-lived process
/// to rewrite its log.
fn ignore_ended<T>(found: ProcResult<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Process id of this process.
pub fn current_pid() -> Result<i32> {
    Ok(Process::myself()?.pid())
}

/// Returns these processes and all their descendants.
pub fn tree(roots: &[i32]) -> Result<Vec<i32>> {
    let parents: Vec<(i32, i32)> = procfs::process::all_processes()?
        // Processes that end during the iteration are skipped.
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

/// Disk space in use below a folder, in bytes, without holes: the sum, and the space of each
/// folder directly inside it.
pub fn disk_bytes(dir: &Path) -> Result<(u64, BTreeMap<String, u64>)> {
    let mut sum = 0;
    let mut folders = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // The contender may have removed the file since it was listed.
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

/// Drops the kernel's page cache. Returns false if this process may not do that.
pub fn drop_page_cache() -> bool {
    let synced = std::process::Command::new("sync").status();
    synced.is_ok_and(|status| status.success())
        && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tree_contains_children_and_their_memory_counts() {
        let this = current_pid().unwrap();
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
    fn ended_process_counts_as_zero() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(ResourceUsage::of(&[pid]).unwrap().written_bytes, 0);
        assert_eq!(MemoryUsage::of(&[pid]).unwrap().resident, 0);
    }
}
