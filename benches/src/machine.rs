//! The machine that a comparison ran on.

use std::path::Path;

use procfs::Current;
use procfs::process::Process;

use crate::Result;

/// The hardware and the kernel, as a report describes them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub processor: String,
    /// Number of hardware threads that this process may use.
    pub cores: usize,
    /// Size of the memory, in bytes.
    pub memory_bytes: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Type of the file system that stores the data.
    pub file_system: String,
}

impl Machine {
    /// Describes this machine, with the file system of `dir`.
    pub fn current(dir: &Path) -> Result<Self> {
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
