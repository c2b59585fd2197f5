//! Parses the command line of `prefd`, and runs the command. Exit code 0 means success, 1 means
//! that the command failed, and 2 means that the command line or the settings are invalid.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::backup::{self, BackupOptions};
use crate::commands::bench::{self, BenchOptions};
use crate::commands::config::{self, ConfigCommand};
use crate::commands::console;
use crate::commands::erase::{self, EraseOptions};
use crate::commands::error::{CommandError, USAGE};
use crate::commands::export::{self, ExportOptions};
use crate::commands::file_size_signal;
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
    /// Each setting can be given as a flag, as an environment variable, or in the file that
    /// --config names. A flag overrides the environment variable, and the environment variable
    /// overrides the file.
    ///
    /// On SIGHUP, the server reloads certificates, keys and introspection credentials from their
    /// files, and the log filter from the configuration file. On SIGTERM or SIGINT, the server
    /// stops after all in-flight requests have finished, or after --drain-timeout. A second signal
    /// stops the server without waiting for requests.
    Serve {
        /// TOML file with settings. Each setting has the name of its flag, without the leading
        /// dashes
        #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
        config: Option<PathBuf>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Print a token signed with a local secret
    ///
    /// The token is a JWT with the algorithm HS256, for tests and scripts. A server with the same
    /// secret accepts the token if the claims match the settings of the server, such as
    /// --jwt-audience.
    Token(TokenOptions),
    /// Check a data directory for damage
    ///
    /// Reads every frame of the log and every byte of every document. Also checks the catalogue if
    /// the store was closed cleanly and no document is damaged. Prints each problem, and exits with
    /// 1 if problems were found. Changes nothing in the data directory, which can be on a read-only
    /// file system. The server must be stopped.
    Verify(MaintenanceOptions),
    /// Print statistics of a data directory
    ///
    /// Prints the number of documents, users, segments and blobs, and the live and dead bytes.
    /// Changes nothing in the data directory, which can be on a read-only file system. The server
    /// must be stopped.
    Stats(MaintenanceOptions),
    /// Reclaim disk space from replaced and deleted documents
    ///
    /// Rewrites the log segments that contain replaced or deleted documents. The server must be
    /// stopped. A running server automatically rewrites segments that contain a lot of dead data.
    Compact(MaintenanceOptions),
    /// Back up all documents to one file
    ///
    /// The backup contains all documents as they were at one point in time. By default, prefd backs
    /// up a running server, which continues to serve requests. With --data-dir, prefd backs up a
    /// data directory that no server has open, and changes nothing in it.
    Backup(BackupOptions),
    /// Create a data directory from a backup
    ///
    /// Checks every byte of the backup before the data directory can be used.
    Restore(RestoreOptions),
    /// Export documents as JSON Lines
    ///
    /// Exports the documents of all users, or of one user. By default, the documents are read from
    /// a running server. With --data-dir, they are read from a data directory that no server has
    /// open, and nothing in it is changed.
    Export(ExportOptions),
    /// Import documents from JSON Lines
    ///
    /// By default, the documents are imported into a running server. With --data-dir, they are
    /// imported into a data directory that no server has open, which is created if it does not
    /// exist. The import stops at the first line that is refused. The documents of earlier lines
    /// stay imported.
    Import(ImportOptions),
    /// Erase all data of a user
    ///
    /// Deletes all documents of the user, and rewrites or removes every file of the data directory
    /// that contains a byte of these documents or the name of the user. Existing backups are not
    /// changed. Exits with 1 if some data could not be erased.
    Erase(EraseOptions),
    /// Check, show or explain the settings of the server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check whether a running server is ready for requests
    ///
    /// Exits with 0 if the server responds within 5 seconds that it is ready, and with 1 otherwise.
    Healthcheck(HealthcheckOptions),
    /// Print shell completions
    Completions(CompletionsOptions),
    /// Print or install man pages
    Man(ManOptions),
    /// Measure the speed of the store on a disk
    ///
    /// For comparison, also measures a plain file on the same disk. All files are created in a
    /// temporary directory, so no data directory is changed.
    Bench(BenchOptions),
}

impl Command {
    /// Runs the command. `matches` contains the parsed arguments of the process.
    fn run(self, matches: &ArgMatches) -> Result<(), CommandError> {
        let is_flag = |id| is_flag(innermost(matches), id);
        // The environment variable PREFD_ADMIN may be set for other commands, so only the flag
        // --admin conflicts with --data-dir.
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

/// Makes clap ignore environment variables whose value is empty. In files for Docker, systemd and
/// shells, an empty variable usually means that the setting is not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|v| v.is_empty());
    command
        .mut_args(|arg| match arg.get_env() {
            Some(variable) if is_empty(variable) => arg.env(None),
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// Parses the command line and the environment variables.
fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let parsed = without_empty_variables(Cli::command()).try_get_matches();
    let matches = parsed.or_else(|error| match error.kind() {
        // The help lists all variables, including those that are ignored.
        ErrorKind::DisplayHelp => Cli::command().try_get_matches(),
        _ => Err(error),
    })?;
    let cli = Cli::from_arg_matches(&matches);
    match cli {
        Ok(cli) => Ok((cli, matches)),
        Err(error) => Err(error.format(&mut Cli::command())),
    }
}

/// Returns true if the option is set as a flag on the command line.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok_and(|is_set| is_set)
        && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Returns the parsed arguments of the innermost subcommand.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, matches)) => innermost(matches),
        None => matches,
    }
}

/// Runs `prefd` with the arguments of the process, and returns its exit code.
pub fn main() -> ExitCode {
    let (cli, matches) = match parse() {
        Ok(parsed) => parsed,
        // clap reports --help and --version as errors with exit code 0.
        Err(error) => {
            let _ = error.print();
            if let Some(variable) = variable_of_error(&error) {
                console::print_problem(&format!(
                    "the invalid value comes from the environment variable {variable}"
                ));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    // Without the handler, only a process with a limit on file sizes behaves differently.
    let _ = file_size_signal::ignore();
    match cli.command.run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::print_problem(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Returns the environment variable that contains the invalid value, or `None` if the error has
/// another cause. The error message of clap names only the flag, even if the value comes from the
/// environment variable.
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
            // Every setting can also be set with an environment variable.
            let is_serve = subcommand.get_name() == "serve";
            let flags = subcommand.get_arguments().filter_map(|a| a.get_long());
            assert!(
                !is_serve || flags.count() == variables + 1,
                "all but --help"
            );
        }
    }
}
