//! `prefd completions` and `prefd man`: what shells and readers of manuals ask for, made of
//! the command line itself.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::commands::console;

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// A folder for a page of each command [default: the one page of prefd, on standard
    /// output]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(super) struct ManualError {
    path: PathBuf,
    source: io::Error,
}

fn cannot_write(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ManualError {
    let path = path.as_ref().to_owned();
    move |source| ManualError { path, source }
}

/// Prints what completes commands in a shell.
pub(super) fn completions(
    options: &CompletionsOptions,
    mut prefd: Command,
) -> Result<(), ManualError> {
    let mut script = Vec::new();
    let name = prefd.get_name().to_owned();
    clap_complete::generate(options.shell, &mut prefd, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    console::write(&script).map_err(cannot_write("standard output"))
}

/// Writes pages of the manual.
pub(super) fn man(options: &ManOptions, prefd: Command) -> Result<(), ManualError> {
    if let Some(folder) = &options.to {
        std::fs::create_dir_all(folder).map_err(cannot_write(folder))?;
        return clap_mangen::generate_to(prefd, folder).map_err(cannot_write(folder));
    }
    let mut page = Vec::new();
    let rendered = Man::new(prefd).render(&mut page);
    rendered.map_err(cannot_write("the page"))?;
    let page = String::from_utf8_lossy(&page);
    console::write(&page).map_err(cannot_write("standard output"))
}
