//! What the black-box tests of prefd and its engine share.
//!
//! - [`server`] starts the real binary, [`http`] talks to it byte by byte, [`token`]
//!   makes good and bad tokens, [`api_error`] checks an error whole.
//! - [`oracle`] says what must hold of any bytes, for the fuzzers and for seeded tests;
//!   [`layout`] finds its way in what is on the disk.
//! - [`sim_disk`] is a disk that can lose, tear and refuse, [`sim_store`] a store on
//!   it, [`random`] a generator whose seed replays a run.

pub mod api_error;
pub mod http;
pub mod layout;
pub mod oracle;
pub mod random;
pub mod server;
pub mod sim_disk;
pub mod sim_store;
pub mod token;
