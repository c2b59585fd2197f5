//! The command line: what is asked for, and the exit code that says how it went:
//! 0 done, 1 failed, 2 usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::admin_client::{self, HealthOptions};
use crate::commands::backup::{self, BackupOptions};
use crate::commands::bench::{self, BenchOptions};
use crate::commands::config::{self, ConfigCommand};
use crate::commands::inspect::{self, StoreOptions};
use crate::commands::manual::{self, CompletionsOptions, ManOptions};
use crate::commands::restore::{self, RestoreOptions};
use crate::commands::token::{self, TokenOptions};
use crate::commands::transfer::{self, EraseOptions, ExportOptions, ImportOptions};
use crate::serve;
use crate::settings::{Settings, SettingsSources};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const TWO_STORES: &str = "--data-dir names a directory that no server has open, and --admin a \
     running server: give one of them";

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
    /// Read everything in a data directory that no server has open, and check it: every
    /// frame, every byte of every document, and the catalogue. Nothing is mended. Exit
    /// code 1 where something is wrong
    Verify(StoreOptions),
    /// Count what a data directory holds that no server has open
    Stats(StoreOptions),
    /// Give back what replaced and deleted documents take in a data directory that no
    /// server has open. A server does so by itself, for what is mostly stale
    Compact(StoreOptions),
    /// Back up the documents of a running server, or of a data directory that no server has
    /// open: all of them as they are at one moment, in one file
    Backup(BackupOptions),
    /// Make a data directory of a backup, and check all of it before it can be used
    Restore(RestoreOptions),
    /// Write documents as lines of JSON: of the whole store, or of one user
    Export(ExportOptions),
    /// Put documents that are lines of JSON. A line that is refused ends it; those before
    /// stay
    Import(ImportOptions),
    /// Delete everything of a user, and rewrite every file that holds a byte of it
    Erase(EraseOptions),
    /// Look at settings without serving
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running server whether it is ready for requests. Exit code 1 where it is not,
    /// or is not there
    Healthcheck(HealthOptions),
    /// Print what completes commands in a shell
    Completions(CompletionsOptions),
    /// Print the manual page, or write one for each command
    Man(ManOptions),
    /// Measure what the store gives on a disk of this machine, beside a bare file, in a
    /// folder of its own: no data directory is touched
    Bench(BenchOptions),
}

/// What a command that failed says, and whether it was asked for in a way that cannot
/// work.
type Failure = (bool, String);

impl Command {
    /// `matches` are those that it was read from.
    fn run(self, matches: &ArgMatches) -> Result<(), Failure> {
        let is_flag = |id| is_flag(innermost(matches), id);
        // The environment may name a server for other commands: a flag outdoes it.
        if is_flag("data_dir") && is_flag("admin") {
            return Err((true, TWO_STORES.to_owned()));
        }
        match self {
            Self::Serve { config, settings } => serve::run(SettingsSources {
                flags: *settings,
                file: config,
            })
            .map_err(|error| (error.is_usage(), error.to_string())),
            Self::Token(mut options) => {
                if is_flag("data_dir") && !is_flag("jwt_hs256_secret_file") {
                    options.by_key_of_data_dir();
                }
                token::run(&options).map_err(|error| (error.is_usage(), error.to_string()))
            }
            Self::Verify(options) => inspect::verify(&options).map_err(failed),
            Self::Stats(options) => inspect::stats(&options).map_err(failed),
            Self::Compact(options) => inspect::compact(&options).map_err(failed),
            Self::Backup(options) => backup::run(&options).map_err(failed),
            Self::Restore(options) => restore::run(&options).map_err(failed),
            Self::Export(options) => transfer::export(&options).map_err(failed),
            Self::Import(options) => transfer::import(&options).map_err(failed),
            Self::Erase(options) => transfer::erase(&options).map_err(failed),
            Self::Config(command) => {
                let mut prefd = Cli::command();
                prefd.build();
                let serve = prefd.find_subcommand("serve");
                let matches = innermost(matches);
                config::run(command, matches, serve.unwrap_or(&prefd))
                    .map_err(|error| (error.is_usage(), error.to_string()))
            }
            Self::Healthcheck(options) => admin_client::healthcheck(&options).map_err(failed),
            Self::Completions(options) => {
                manual::completions(&options, Cli::command()).map_err(failed)
            }
            Self::Man(options) => manual::man(&options, Cli::command()).map_err(failed),
            Self::Bench(options) => bench::run(&options).map_err(failed),
        }
    }
}

/// Whether something is on the command line, and not in the environment alone.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok_and(|is_there| is_there)
        && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Those of the subcommand that was asked for.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, matches)) => innermost(matches),
        None => matches,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: impl std::error::Error) -> Failure {
    (false, error.to_string())
}

/// Runs `prefd` with the arguments of the process.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches);
        cli.map(|cli| (cli, matches))
            .map_err(|error| error.format(&mut Cli::command()))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        // Help is an error too, of exit code 0.
        Err(error) => {
            let _ = error.print();
            if let Some(variable) = variable_behind(&error) {
                complain(&format!(
                    "the value is that of {variable} in the environment"
                ));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let outcome = cli.command.run(&matches);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((is_usage, message)) => {
            complain(&message);
            ExitCode::from(if is_usage { USAGE } else { FAILED })
        }
    }
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of a command that failed"
)]
fn complain(message: &str) {
    eprintln!("prefd: {message}");
}

/// The variable that a refused value came from: clap names the flag alone, which is
/// not where its user will look.
fn variable_behind(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument.split([' ', '=', '[']).next()?;
    let variable = variable_of(flag);
    let is_on_command_line = std::env::args().any(|argument| {
        argument
            .strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    (!is_on_command_line && std::env::var_os(&variable).is_some()).then_some(variable)
}

/// `--max-keys` is `PREFD_MAX_KEYS`.
fn variable_of(flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_");
    format!("PREFD_{}", name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_variable_is_named_as_its_flag() {
        let mut command = Cli::command();
        command.build();
        let mut variables = 0;
        for subcommand in command.get_subcommands() {
            for argument in subcommand.get_arguments() {
                if let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) {
                    assert_eq!(variable.to_str(), Some(&*variable_of(long)));
                    variables += 1;
                }
            }
            // What a file can set, the environment can as well.
            let is_serve = subcommand.get_name() == "serve";
            let flags = subcommand.get_arguments().filter_map(|a| a.get_long());
            assert!(
                !is_serve || flags.count() == variables + 1,
                "all but --help"
            );
        }
    }
}
