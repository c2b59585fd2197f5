//! What the black-box tests of prefd and its engine share.
//!
//! - [`server`] starts the real binary, [`http`] talks to it byte by byte, [`token`]
//!   makes good and bad tokens, [`issuer`] is an identity provider and [`oidc_provider`]
//!   a real one, [`vacant`] an address where nobody listens, [`api_error`] checks an error
//!   whole, [`openapi`] whether an answer is as the OpenAPI document says, for which
//!   [`schemathesis`] has programs, [`browser`] what pages see.
//! - [`layout`] finds its way in what is on the disk, [`described`] reads it as
//!   docs/format.md says, [`golden`] are data directories that were written once.
//! - [`history`] judges whether what clients saw of a namespace can be true.
//! - [`crash_model`] is what a namespace may hold after a crash, [`load`] writes to a
//!   server with many connections.
//! - [`crowd`] is many hostile clients, [`bystander`] a good one beside them that says how
//!   long it waits.
//! - [`machine`] is what a test needs of the machine, and how it says that it is skipped;
//!   [`loop_mount`] mounts file systems that are in files, [`strace`] has system calls
//!   fail, [`service_manager`] is a systemd that runs units.
//! - [`raised`] ends the threads of a test, [`process`] sees to the processes that it starts.
//! - [`oracle`] says what must hold of any bytes, for the fuzzers and for seeded tests.
//! - [`structure`] finds imports that break the layers, circles of files, and type names
//!   that are declared twice in the source.
//! - [`unreadable_disk`] is the real disk, on which reads of some files fail.
//! - [`put`] writes a document and returns its revision.
//! - [`sim_disk`] is a disk that can lose, tear and refuse, [`sim_store`] a store on
//!   it, [`sim_model`] what it may hold after a crash, [`copies`] those of a store that
//!   snapshots make, [`traces`] what is left of a user, [`random`] a generator whose seed replays a run.

pub mod api_error;
pub mod browser;
pub mod bystander;
pub mod copies;
pub mod crash_model;
pub mod crowd;
pub mod described;
pub mod golden;
pub mod history;
pub mod http;
pub mod issuer;
pub mod layout;
pub mod load;
pub mod loop_mount;
pub mod machine;
pub mod oidc_provider;
pub mod openapi;
pub mod oracle;
pub mod process;
pub mod put;
pub mod raised;
pub mod random;
pub mod schemathesis;
pub mod server;
pub mod service_manager;
pub mod sim_disk;
pub mod sim_model;
pub mod sim_store;
pub mod strace;
pub mod structure;
pub mod token;
pub mod traces;
pub mod unreadable_disk;
pub mod vacant;
