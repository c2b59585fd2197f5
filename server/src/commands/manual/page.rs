//! The man page of one command. `clap_mangen` renders the standard sections, such as SYNOPSIS and
//! OPTIONS. This file adds ENVIRONMENT, EXIT STATUS, EXAMPLES and SEE ALSO.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::commands::error::CommandError;
use crate::commands::manual::details::{DETAILS, Details, VARIABLES};
use crate::io_error::io_error;

/// Section of the manual for user commands.
const SECTION: &str = "1";

/// Returns the file name of a command's page, such as `prefd-config-check.1`.
pub(super) fn file_name(command: &Command) -> String {
    format!("{}.{SECTION}", page_name(command))
}

/// Returns the page of a command as roff. `command` must be built.
pub(super) fn render(command: &Command) -> Result<String, CommandError> {
    let mut page = Vec::new();
    render_to(command, &mut page).map_err(io_error("render the page of", page_name(command)))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn render_to(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("prefd ", env!("CARGO_PKG_VERSION")))
        .manual("prefd manual");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    page.extend(with_subsections(&options));
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let mut roff = Roff::new();
    environment(command, &mut roff);
    if let Some(details) = DETAILS.iter().find(|d| d.page == page_name(command)) {
        exit_status(details, &mut roff);
        examples(details, &mut roff);
    }
    see_also(command, &mut roff);
    roff.to_writer(page)
}

fn page_name(command: &Command) -> &str {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name())
}

/// Makes each group of options a subsection of OPTIONS. `clap_mangen` renders each group as a
/// section of its own.
fn with_subsections(options: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(options);
    let lines = text.lines().map(|line| match line.strip_prefix(".SH ") {
        Some(heading) if heading != "OPTIONS" => format!(".SS {heading}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect::<String>().into_bytes()
}

fn environment(command: &Command, roff: &mut Roff) {
    let of_options: Vec<_> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_env()?.to_string_lossy(), arg.get_long()?)))
        .collect();
    if of_options.is_empty() {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, flag) in of_options {
        entry(
            roff,
            &variable,
            [roman("Sets "), bold(format!("--{flag}")), roman(".")],
        );
    }
    let has_option = |flag| {
        command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(flag))
    };
    for variable in VARIABLES {
        if variable.flags.iter().any(|flag| has_option(*flag)) {
            entry(roff, variable.name, [roman(variable.effect)]);
        }
    }
}

fn exit_status(details: &Details, roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    entry(roff, "0", [roman(details.success)]);
    entry(roff, "1", [roman(details.failure)]);
    entry(
        roff,
        "2",
        [roman("The command line or the settings are invalid.")],
    );
}

fn examples(details: &Details, roff: &mut Roff) {
    roff.control("SH", ["EXAMPLES"]);
    for (purpose, example) in details.examples {
        roff.control("PP", []);
        roff.text([roman(*purpose)]);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(*example)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
}

fn see_also(command: &Command, roff: &mut Roff) {
    let name = page_name(command);
    let Some((parent, _)) = name.rsplit_once('-') else {
        return;
    };
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold(parent), roman(format!("({SECTION})"))]);
}

fn entry<const N: usize>(roff: &mut Roff, term: &str, text: [Inline; N]) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text(text);
}
