//! The command line: each command, what it shows, and the exit code that says how it went.
//!
//! It starts servers, asks running ones, and looks after directories that no server has
//! open. Nothing may know it.
//!
//! **Architecture Invariant:** this is the top. It may import everything, and is imported
//! by the binary alone.

mod admin_client;
mod backup;
mod bench;
mod cli;
mod config;
mod console;
mod inspect;
mod manual;
mod restore;
mod token;
mod transfer;
mod whole_file;

pub use cli::main;
