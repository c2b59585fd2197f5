//! The commands of `prefd`, and how they are run. Exit codes: 0 done, 1 failed, 2 invalid
//! command line or settings.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::backup::{self, BackupOptions};
use crate::commands::bench::{self, BenchOptions};
use crate::commands::config::{self, ConfigCommand};
use crate::commands::erase::{self, EraseOptions};
use crate::commands::error::{CommandError, USAGE};
use crate::commands::export::{self, ExportOptions};
use crate::commands::healthcheck::{self, HealthcheckOptions};
use crate::commands::import::{self, ImportOptions};
use crate::commands::maintenance::{self, MaintenanceOptions};
use crate::commands::manual::{self, CompletionsOptions, ManOptions};
use crate::commands::restore::{self, RestoreOptions};
use crate::commands::token::{self, TokenOptions};
use crate::serve;
use crate::settings::{Settings, SettingsSources};

/// Preferences server: stores one JSON document per user and client
#[derive(Debug, Parser)]
#[command(
    name = "prefd",
    version,
    after_help = "To list the options of a command, run: prefd COMMAND --help\n\
                  To read the manual, with examples, run: prefd man | man -l -"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    ///
    /// Each option is also an environment variable, and a line in the file that --config names.
    /// A flag overrides the environment, and the environment overrides the file.
    ///
    /// On SIGHUP, the server reloads certificates, keys and introspection credentials from their
    /// files, and the log filter from the configuration file. On SIGTERM or SIGINT, the server
    /// lets in-flight requests finish, and stops.
    Serve {
        /// TOML file with settings. The names are those of the flags, without the leading dashes
        #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Print a token signed with a local secret
    ///
    /// The token is a JWT with the algorithm HS256, for tests and scripts. A server that uses the
    /// same secret accepts the token.
    Token(TokenOptions),
    /// Check a data directory for damage
    ///
    /// Reads every frame, every byte of every document, and the catalogue, and prints each
    /// problem. Repairs nothing. The server must be stopped. Exits with 1 if there is a problem.
    Verify(MaintenanceOptions),
    /// Print statistics of a data directory
    ///
    /// Prints the number of documents, users, segments and blobs, and the live and dead bytes.
    /// The server must be stopped.
    Stats(MaintenanceOptions),
    /// Reclaim disk space from replaced and deleted documents
    ///
    /// Rewrites every segment that contains dead data. The server must be stopped. A running
    /// server compacts segments by itself when they are mostly dead data.
    Compact(MaintenanceOptions),
    /// Back up all documents to one file
    ///
    /// The backup is a snapshot of all documents at one moment. Backs up a running server, which
    /// continues to serve requests, or with --data-dir a data directory that no server has open.
    Backup(BackupOptions),
    /// Create a data directory from a backup
    ///
    /// Checks every byte of the backup before the data directory can be used.
    Restore(RestoreOptions),
    /// Export documents as lines of JSON
    ///
    /// Exports the documents of all users, or of one user. Reads from a running server, or with
    /// --data-dir from a data directory that no server has open.
    Export(ExportOptions),
    /// Import documents from lines of JSON
    ///
    /// Imports into a running server, or with --data-dir into a data directory that no server has
    /// open. A missing data directory is created. Stops at the first line that is refused. The
    /// documents of earlier lines stay imported.
    Import(ImportOptions),
    /// Erase all data of a user
    ///
    /// Deletes all documents of the user, and rewrites or removes every file that contains a
    /// byte of these documents or the name of the user. Older backups are not changed. Exits
    /// with 1 if some data could not be erased.
    Erase(EraseOptions),
    /// Check, show or explain the settings of the server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check whether a running server is ready for requests
    ///
    /// Exits with 0 if the server is ready within 5 seconds, and with 1 otherwise.
    Healthcheck(HealthcheckOptions),
    /// Print shell completions
    Completions(CompletionsOptions),
    /// Print or install man pages
    Man(ManOptions),
    /// Measure the speed of the store on a disk
    ///
    /// Also measures a plain file on the same disk for comparison. Works in a temporary
    /// directory, and touches no data directory.
    Bench(BenchOptions),
}

impl Command {
    /// Runs the command. `matches` are the arguments that the command was parsed from.
    fn run(self, matches: &ArgMatches) -> Result<(), CommandError> {
        let is_flag = |id| is_flag(innermost(matches), id);
        // PREFD_ADMIN may be set for other commands, so it does not conflict with --data-dir.
        if is_flag("data_dir") && is_flag("admin") {
            return Err(CommandError::DataDirAndAdmin);
        }
        match self {
            Self::Serve { config, settings } => serve::run(SettingsSources {
                flags: *settings,
                file: config,
            })
            .map_err(CommandError::serve),
            Self::Token(mut options) => {
                if is_flag("data_dir") && !is_flag("jwt_hs256_secret_file") {
                    options.ignore_secret_file();
                }
                token::run(&options)
            }
            Self::Verify(options) => maintenance::verify(&options),
            Self::Stats(options) => maintenance::stats(&options),
            Self::Compact(options) => maintenance::compact(&options),
            Self::Backup(options) => backup::run(&options),
            Self::Restore(options) => restore::run(&options),
            Self::Export(options) => export::run(&options),
            Self::Import(options) => import::run(&options),
            Self::Erase(options) => erase::run(&options),
            Self::Config(command) => {
                let mut prefd = Cli::command();
                prefd.build();
                let serve = prefd.find_subcommand("serve");
                config::run(command, innermost(matches), serve.unwrap_or(&prefd))
            }
            Self::Healthcheck(options) => healthcheck::run(&options),
            Self::Completions(options) => manual::completions(&options, Cli::command()),
            Self::Man(options) => manual::man(&options, Cli::command()),
            Self::Bench(options) => bench::run(&options),
        }
    }
}

/// Returns true if the option is set by a flag, and not only by the environment.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok_and(|is_set| is_set)
        && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Returns the arguments of the subcommand.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, matches)) => innermost(matches),
        None => matches,
    }
}

/// Runs `prefd` with the arguments of the process, and returns its exit code.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches);
        cli.map(|cli| (cli, matches))
            .map_err(|error| error.format(&mut Cli::command()))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        // clap reports --help and --version as errors with exit code 0.
        Err(error) => {
            let _ = error.print();
            if let Some(variable) = variable_of_error(&error) {
                print_error(&format!(
                    "the invalid value comes from the environment variable {variable}"
                ));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command.run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

#[allow(
    clippy::print_stderr,
    reason = "errors of commands are for standard error"
)]
fn print_error(message: &str) {
    eprintln!("prefd: {message}");
}

/// Returns the environment variable that an invalid value comes from, if it comes from one.
/// clap names only the flag, even if the user has set the variable.
fn variable_of_error(error: &clap::Error) -> Option<String> {
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

/// Returns the environment variable of a flag: `PREFD_MAX_KEYS` for `--max-keys`.
fn variable_of(flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_");
    format!("PREFD_{}", name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_of_man_pages_are_valid_commands() {
        for details in manual::DETAILS {
            for (purpose, example) in details.examples {
                let words = example
                    .split_whitespace()
                    .map(|word| word.trim_end_matches(';'));
                let prefd = words.skip_while(|word| *word != "prefd");
                let prefd = prefd.take_while(|word| !matches!(*word, "|" | ">" | "do"));
                let parsed = Cli::command().try_get_matches_from(prefd);
                assert!(parsed.is_ok(), "{purpose} {example}: {parsed:?}");
            }
        }
    }

    #[test]
    fn every_command_has_a_man_page_with_examples() {
        fn check(command: &clap::Command) {
            let name = command
                .get_display_name()
                .unwrap_or_else(|| command.get_name());
            let has_details = manual::DETAILS.iter().any(|details| details.page == name);
            let is_leaf = !command.has_subcommands();
            assert!(has_details || !is_leaf, "{name}");
            command.get_subcommands().for_each(check);
        }
        let mut prefd = Cli::command().disable_help_subcommand(true);
        prefd.build();
        check(&prefd);
    }

    #[test]
    fn every_variable_has_the_name_of_its_flag() {
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
            // Each setting can also be set by an environment variable.
            let is_serve = subcommand.get_name() == "serve";
            let flags = subcommand.get_arguments().filter_map(|a| a.get_long());
            assert!(
                !is_serve || flags.count() == variables + 1,
                "all but --help"
            );
        }
    }
}
