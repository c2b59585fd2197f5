//! What the black-box tests of prefd and its engine share.
//!
//! - [`server`] starts the real binary, [`http`] talks to it byte by byte, [`token`]
//!   makes good and bad tokens, [`api_error`] checks an error whole.
//! - [`sim_disk`] is a disk that can lose, tear and refuse, [`sim_store`] a store on
//!   it, [`random`] a generator whose seed replays a run.
//! - [`golden`] are data directories that were written once, [`crc32`] signs what a
//!   test changes in them.
//! - [`history`] judges whether what clients saw of a namespace can be true.

pub mod api_error;
pub mod crc32;
pub mod golden;
pub mod history;
pub mod http;
pub mod random;
pub mod server;
pub mod sim_disk;
pub mod sim_store;
pub mod token;
