//! The command line: the commands, what they print, and their exit codes.
//!
//! Most commands start a server, send requests to a running server, or work on a data directory
//! that no server has open. No other part of the crate may use this folder.
//!
//! **Architecture Invariant:** this is the highest layer. This layer may import every other layer.
//! Only the binary imports this layer.

mod admin_client;
mod admin_endpoint;
mod atomic_file;
mod backup;
mod bench;
mod cli;
mod config;
mod console;
mod erase;
mod error;
mod export;
mod file_size_signal;
mod healthcheck;
mod import;
mod maintenance;
mod manual;
mod restore;
mod store_location;
mod token;

pub use cli::main;
