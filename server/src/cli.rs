//! The command line: what is asked for, and the exit code that says how it went:
//! 0 done, 1 failed, 2 usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::serve::{self, ServeError};
use crate::settings::Settings;
use crate::token::{self, TokenOptions};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// A preferences server: one JSON document for each user and client, kept durably.
#[derive(Debug, Parser)]
#[command(name = "prefd", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve preferences over HTTP
    Serve {
        /// A TOML file with settings, named as the flags are
        #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Make a token, signed with a local secret
    Token(TokenOptions),
}

/// Runs `prefd` with the arguments of the process.
pub fn main() -> ExitCode {
    // clap prints help and usage errors itself, and exits with 0 or 2.
    let outcome = match Cli::parse().command {
        Command::Serve { config, settings } => settings
            .over_file(config.as_deref())
            .map_err(ServeError::from)
            .and_then(|settings| serve::run(&settings))
            .map_err(|error| (error.is_usage(), error.to_string())),
        Command::Token(options) => {
            token::run(&options).map_err(|error| (error.is_usage(), error.to_string()))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((is_usage, message)) => {
            #[allow(
                clippy::print_stderr,
                reason = "the last word of a command that failed"
            )]
            {
                eprintln!("prefd: {message}");
            }
            ExitCode::from(if is_usage { USAGE } else { FAILED })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
