//! Shared code of the black-box tests of prefd and its engine.
//!
//! To test over HTTP:
//!
//! - [`server`] starts the real binary, and [`http`] is an HTTP/1.1 client that sends exact
//!   bytes.
//! - [`token`] creates valid and invalid tokens.
//! - [`issuer`] is an identity provider inside the test process. [`oidc_provider`] runs
//!   `oidc-provider`, a real identity provider.
//! - [`api_error`] checks every member of an error response.
//! - [`openapi`] compares responses with the OpenAPI document. [`schemathesis`] finds the Python
//!   tools that test the document itself.
//! - [`browser`] runs scripts in Chromium. [`closed_port`] is an address that refuses
//!   connections.
//!
//! To read a data directory:
//!
//! - [`layout`] parses frames and repairs checksums.
//! - [`format_reader`] reads files as docs/format.md describes them, without the engine's code.
//! - [`golden`] provides copies of the data directories in `fixtures/`.
//! - [`snapshot_copy`] writes a snapshot to a directory and opens the copy.
//! - [`directory_state`] finds out whether anything in a directory was changed.
//!
//! To check results:
//!
//! - [`history`] checks that the responses to concurrent requests are linearizable.
//! - [`crash_model`] is the set of documents that a namespace may hold after a server crash.
//!   [`load`] writes to a server over many connections.
//! - [`hostile_clients`] opens many slow connections, and [`hostile_requests`] repeats requests
//!   that cost much work. [`latency_probe`] is a well-behaved client that measures its response
//!   times during such an attack.
//! - [`erasure`] searches files for traces of an erased user.
//! - [`oracle`] checks any input of a fuzzer or a seeded test.
//! - [`structure`] finds imports that break the layers, circular imports, and type names that
//!   are declared twice in the source.
//!
//! To simulate a disk:
//!
//! - [`sim_disk`] is a disk in memory that can lose or tear writes, fail, and be full.
//! - [`sim_store`] is a store on that disk, and [`sim_model`] the set of contents that it may
//!   have after a crash.
//! - [`unreadable_disk`] is the real disk, except that reads of chosen files fail.
//!
//! To use the machine:
//!
//! - [`machine`] finds out what the machine provides, and skips tests that need more.
//! - [`loop_mount`] mounts a file system from an image file.
//! - [`strace`] lets system calls of the server fail.
//! - [`service_manager`] runs units under a real systemd.
//! - [`process`] runs child processes with a time limit.
//! - [`stop_flag`] stops the threads of a test when the test ends.
//! - [`random`] is a random number generator with a seed. [`put_ext`] writes a document and
//!   returns its revision.

pub mod api_error;
pub mod browser;
pub mod closed_port;
pub mod crash_model;
pub mod directory_state;
pub mod erasure;
pub mod format_reader;
pub mod golden;
pub mod history;
pub mod hostile_clients;
pub mod hostile_requests;
pub mod http;
pub mod issuer;
pub mod latency_probe;
pub mod layout;
pub mod load;
pub mod loop_mount;
pub mod machine;
pub mod oidc_provider;
pub mod openapi;
pub mod oracle;
pub mod process;
pub mod put_ext;
pub mod random;
pub mod schemathesis;
pub mod server;
pub mod service_manager;
pub mod sim_disk;
pub mod sim_model;
pub mod sim_store;
pub mod snapshot_copy;
pub mod stop_flag;
pub mod strace;
pub mod structure;
pub mod token;
pub mod unreadable_disk;
