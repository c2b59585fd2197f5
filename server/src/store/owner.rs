//! Protects the owner of a data directory: files that root creates could not be opened by the user
//! who runs the server.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Gid, Uid};
use rustix::process::geteuid;
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// A data directory belongs to another user than root, but the process runs as root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OwnerError {
    #[error(
        "{} belongs to user {uid}, but prefd runs as root. User {uid} could not open the files that \
         root creates. Run prefd as user {uid}, for example with: sudo -u '#{uid}'. If prefd must \
         run as root, change the owner of the directory: chown -R root", path.display()
    )]
    Foreign { path: PathBuf, uid: u32 },
    #[error("cannot find out the owner of {}: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
    #[error(
        "{} belongs to user {uid}, and prefd cannot act as this user: {source}. Run the command as \
         user {uid}", path.display()
    )]
    CannotSwitch {
        path: PathBuf,
        uid: u32,
        source: io::Error,
    },
}

/// Returns an error if the process runs as root and the directory belongs to another user.
pub(crate) fn require_own(data_dir: &Path) -> Result<(), OwnerError> {
    match foreign_owner(data_dir)? {
        None => Ok(()),
        Some(owner) => Err(OwnerError::Foreign {
            path: data_dir.to_owned(),
            uid: owner.uid,
        }),
    }
}

/// Runs `work` with the rights of the owner of the directory, if the process runs as root and the
/// directory belongs to another user. Otherwise, runs `work` with the rights of the process. If the
/// directory does not exist, its owner is the owner of the directory in which it will be created.
///
/// # Errors
/// [`OwnerError`] if the owner cannot be determined, or if the process cannot act as this user.
/// `work` has not run.
pub(crate) fn as_owner<T: Send>(
    data_dir: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, OwnerError> {
    run_as(foreign_owner(data_dir)?, data_dir, work)
}

/// Runs `work`, which only reads the directory, like [`as_owner`]. Unlike [`as_owner`], creates no
/// file to find out to whom new files would belong, so nothing in the directory is changed.
pub(crate) fn as_reader<T: Send>(
    data_dir: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, OwnerError> {
    let owner = other_owner(data_dir)?.map(|(owner, _)| owner);
    run_as(owner, data_dir, work)
}

/// Runs `work` with the rights of `owner`, or with the rights of the process if `owner` is `None`.
fn run_as<T: Send>(
    owner: Option<Owner>,
    data_dir: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, OwnerError> {
    let Some(owner) = owner else {
        return Ok(work());
    };
    // On Linux, each thread has its own user (setuid(2), "C library/kernel differences"), and a new
    // thread inherits the user of the thread that creates it. The work and the threads of the store
    // therefore act as the owner, and the rest of the process can still write files as root.
    let worked = thread::scope(|scope| {
        let worker = scope.spawn(|| owner.become_owner().map(|()| work()));
        worker.join()
    });
    let outcome = worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    outcome.map_err(|source| OwnerError::CannotSwitch {
        path: data_dir.to_owned(),
        uid: owner.uid,
        source,
    })
}

/// The user and the group of a directory.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Gives the calling thread the rights of this user.
    fn become_owner(self) -> io::Result<()> {
        let gid = Gid::from_raw(self.gid);
        set_thread_groups(&[gid])?;
        set_thread_gid(gid)?;
        // After this call, the thread can no longer change its groups.
        set_thread_uid(Uid::from_raw(self.uid))?;
        Ok(())
    }
}

/// Returns the owner of the directory, or of its nearest existing parent. Returns `None` if files
/// that this process creates in the directory belong to its owner, or if the process does not run
/// as root.
fn foreign_owner(data_dir: &Path) -> Result<Option<Owner>, OwnerError> {
    let Some((owner, path)) = other_owner(data_dir)? else {
        return Ok(None);
    };
    // On some network and virtual file systems, each new file belongs to the owner of its
    // directory.
    let created = tempfile::tempfile_in(path).and_then(|file| file.metadata());
    if created.is_ok_and(|file| file.uid() == owner.uid) {
        return Ok(None);
    }
    Ok(Some(owner))
}

/// Returns the owner of the directory, or of its nearest existing parent, together with the path
/// that this user owns. Returns `None` if the owner is root, or if the process does not run as
/// root.
fn other_owner(data_dir: &Path) -> Result<Option<(Owner, &Path)>, OwnerError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let (path, metadata) = nearest_existing(data_dir)?;
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let is_root = Uid::from_raw(uid).is_root();
    Ok((!is_root).then_some((Owner { uid, gid }, path)))
}

fn nearest_existing(data_dir: &Path) -> Result<(&Path, Metadata), OwnerError> {
    for path in data_dir.ancestors() {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        match path.metadata() {
            Ok(metadata) => return Ok((path, metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(unknown(path, source)),
        }
    }
    Err(unknown(data_dir, io::ErrorKind::NotFound.into()))
}

fn unknown(path: &Path, source: io::Error) -> OwnerError {
    OwnerError::Unknown {
        path: path.to_owned(),
        source,
    }
}
