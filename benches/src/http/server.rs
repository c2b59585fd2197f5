//! Starts a server under test in a folder of its own, on a free port of the loopback
//! interface. The server ends when its [`Server`] is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::process::ServerProcess;
use super::requests::{RequestMethod, RequestSet};
use super::{client, constant, nginx, prefd, webdis};
use crate::Result;
use crate::contender::Contender;

/// A running server that accepts connections.
pub(super) struct Server {
    contender: Contender,
    address: SocketAddr,
    dir: PathBuf,
    /// The processes, in the order in which they must end.
    processes: Vec<ServerProcess>,
}

impl Server {
    /// Starts a server in an empty folder. `workers` is the number of worker threads (nginx:
    /// worker processes); with `None`, the server uses its default. `prefd_binary` is the path
    /// of prefd; with `None`, it is expected next to this program.
    pub(super) fn start(
        contender: Contender,
        dir: &Path,
        workers: Option<usize>,
        prefd_binary: Option<&Path>,
    ) -> Result<Self> {
        let (address, processes) = match contender {
            Contender::Prefd => prefd::start(dir, workers, prefd_binary)?,
            Contender::Hyper => constant::start(dir)?,
            Contender::Nginx => nginx::start(dir, workers)?,
            Contender::Webdis => webdis::start(dir, workers)?,
            other => return Err(format!("{} is not a server", other.name()).into()),
        };
        Ok(Self {
            contender,
            address,
            dir: dir.to_owned(),
            processes,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process ids of the server, without the processes that it has started itself.
    pub(super) fn root_pids(&self) -> Result<Vec<i32>> {
        self.processes.iter().map(ServerProcess::pid).collect()
    }

    /// Stores the documents of these gets on the server, and gets one of them.
    pub(super) fn store_documents(&self, gets: &RequestSet) -> Result<()> {
        match self.contender {
            Contender::Hyper => {}
            Contender::Nginx => nginx::store_documents(&self.dir, gets)?,
            _ => client::put_all(self.address, &gets.with_method(RequestMethod::Put))?,
        }
        client::check(self.address, gets)
    }
}
