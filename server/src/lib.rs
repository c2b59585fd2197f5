//! prefd: the preferences server, as a library behind a thin binary.
//!
//! # Layout
//!
//! In the order in which a request passes them: `listen` accepts and `places` finds room,
//! as much as `descriptors` leaves; `connection` carries, with `tls` and `pace`; `exchange`
//! is what every request gets; `handler` judges and answers, with `route`, `auth`, `scope`,
//! `media_type`, `precondition` each judging one thing; `upload` and `download` move
//! documents; `answer` is what is a success and `error` what is not, `id` names the
//! request, `openapi` says what can be asked and answered. Beside it, `admin` answers the
//! operator, with `health`, `metrics` and `archive`.
//!
//! Around them, `cli`, `settings` and `config` say how to run, `serve` puts the parts
//! together, `identity` says who is believed and `outgoing` asks them, `dev` and `token` make
//! tokens. `store`, `backup`, `restore` and `transfer` are commands that look after
//! documents, with a server (`admin_client`) or without.
//!
//! The store is [`prefd_engine`]: the server never opens a data file. Async workers
//! never block; what touches the disk runs on blocking threads, a bounded piece at a
//! time.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a test says what it expects by unwrapping it"
    )
)]

mod admin;
mod api;
mod auth;
mod commands;
mod counters;
mod descriptors;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod log;
mod net;
mod serve;
mod settings;
mod store;
mod systemd;
mod telemetry;
mod transfer;

pub use commands::main;
