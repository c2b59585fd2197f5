//! `prefd completions` and `prefd man`: shell completions and man pages, generated from the
//! definition of the command line.

mod details;
mod page;

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::commands::console;
use crate::commands::error::CommandError;
use crate::io_error::io_error;

#[cfg(test)]
pub(super) use details::DETAILS;

/// Options of `prefd completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// Shell to print completions for
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `prefd man`.
#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// Directory to write the man pages of all commands to, created if it does not exist [default:
    /// print the page of prefd to standard output]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Prints a completion script for a shell.
pub(super) fn completions(
    options: &CompletionsOptions,
    mut prefd: Command,
) -> Result<(), CommandError> {
    let mut script = Vec::new();
    let name = prefd.get_name().to_owned();
    clap_complete::generate(options.shell, &mut prefd, name, &mut script);
    console::print(&String::from_utf8_lossy(&script))
}

/// Prints the man page of `prefd`, or writes the man pages of all commands to a directory.
pub(super) fn man(options: &ManOptions, prefd: Command) -> Result<(), CommandError> {
    let mut prefd = prefd.disable_help_subcommand(true);
    prefd.build();
    match &options.to {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(io_error("create", directory))?;
            write_pages(&prefd, directory)
        }
        None => console::print(&page::render(&prefd)?),
    }
}

/// Writes the page of a command, and the pages of its subcommands.
fn write_pages(command: &Command, directory: &Path) -> Result<(), CommandError> {
    let path = directory.join(page::file_name(command));
    let text = page::render(command)?;
    std::fs::write(&path, text).map_err(io_error("write", &path))?;
    for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_pages(subcommand, directory)?;
    }
    Ok(())
}
