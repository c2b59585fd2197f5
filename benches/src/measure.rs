//! What a process has used so far, by the kernel's own count.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::Current;
use procfs::process::Process;

use crate::Result;

/// The counters of this process.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    /// Seconds of the processor, user and system.
    pub cpu_seconds: f64,
    /// Bytes that it has caused to be written to the disk.
    pub written_bytes: u64,
}

impl Counters {
    /// As they stand.
    pub fn now() -> Result<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = (stat.utime + stat.stime) as f64;
        Ok(Self {
            cpu_seconds: ticks / procfs::ticks_per_second() as f64,
            written_bytes: process.io()?.write_bytes,
        })
    }
}

/// Memory of this process, in bytes: all that is resident, and of that what is no page of
/// a file (which the kernel takes back when it wants).
pub fn memory() -> Result<(u64, u64)> {
    let status = Process::myself()?.status()?;
    let bytes = |kib: Option<u64>| kib.unwrap_or(0) * 1024;
    Ok((bytes(status.vmrss), bytes(status.rssanon)))
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
