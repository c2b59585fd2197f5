//! `prefd config`: whether settings can be used, what they come to and who said so, and a
//! file to begin with.

use std::fmt::Write;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Subcommand};
use serde_json::{Map, Value};

use crate::commands::console;
use crate::serve::log;
use crate::serve::{self, ServeError};
use crate::settings::{LogFormat, Settings, SettingsSources};

/// Width of the comments in the example.
const WIDTH: usize = 90;

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the settings of serve, and every file that they name, and say whether a server
    /// could start with them. The data directory and providers are not touched
    Check(ConfigOptions),
    /// Show each setting, and whether a flag, the environment, the file or nobody has set
    /// it: as a file that would do the same
    Show(ConfigOptions),
    /// Print a configuration file in which every setting is explained
    Example,
}

/// The settings of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigOptions {
    /// A TOML file with settings, named as the flags are
    #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<Settings>,
}

/// Why a configuration cannot be used, or shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ConfigError {
    #[error(transparent)]
    Settings(#[from] Box<ServeError>),
    #[error("cannot show the settings: {0}")]
    Show(#[from] serde_json::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl ConfigError {
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Settings(error) if error.is_usage())
    }
}

fn refused(error: impl Into<ServeError>) -> ConfigError {
    ConfigError::Settings(Box::new(error.into()))
}

/// `matches` are those of the subcommand, `serve` is the command whose settings these are.
pub(crate) fn run(
    command: ConfigCommand,
    matches: &ArgMatches,
    serve: &Command,
) -> Result<(), ConfigError> {
    match command {
        ConfigCommand::Check(options) => check(options),
        ConfigCommand::Show(options) => show(options, matches, serve),
        ConfigCommand::Example => Ok(console::write(&example(serve))?),
    }
}

fn check(options: ConfigOptions) -> Result<(), ConfigError> {
    let given = SettingsSources {
        flags: *options.settings,
        file: options.config,
    };
    let settings = given.settings().map_err(refused)?;
    // What an operator should know is told as it is at a start.
    let _log = log::start(Some("warn"), LogFormat::Text);
    serve::check_settings(&settings).map_err(refused)?;
    Ok(console::write(
        "a server could start with these settings\n",
    )?)
}

fn show(options: ConfigOptions, matches: &ArgMatches, serve: &Command) -> Result<(), ConfigError> {
    let given = SettingsSources {
        flags: *options.settings,
        file: options.config,
    };
    let file = SettingsSources {
        flags: Settings::default(),
        ..given.clone()
    };
    let merged = object(&given.settings().map_err(refused)?)?;
    let of_file = object(&file.settings().map_err(refused)?)?;
    let mut text = String::new();
    for setting in settings_of(serve) {
        let value = merged.get(setting.name).filter(|value| !value.is_null());
        let origin = match matches.value_source(setting.id) {
            Some(ValueSource::CommandLine) => format!("--{}", setting.name),
            Some(ValueSource::EnvVariable) => setting.variable.clone(),
            _ if of_file.get(setting.name).is_some_and(|v| !v.is_null()) => given
                .file
                .as_deref()
                .unwrap_or("".as_ref())
                .display()
                .to_string(),
            _ => "default".to_owned(),
        };
        let _ = match value {
            // A JSON value of these kinds is one of TOML, too.
            Some(value) => writeln!(text, "{} = {value} # {origin}", setting.name),
            None => writeln!(text, "# {} = {} # {origin}", setting.name, setting.default),
        };
    }
    Ok(console::write(&text)?)
}

fn object(settings: &Settings) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::to_value(settings)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

/// A setting, as its flag tells of it.
struct Setting<'a> {
    id: &'a str,
    name: &'a str,
    variable: String,
    /// What it is for, without the default.
    help: String,
    /// In words; `none` where nothing is set.
    default: String,
}

fn settings_of(serve: &Command) -> impl Iterator<Item = Setting<'_>> {
    let is_setting =
        |arg: &&Arg| arg.get_env().is_some() && arg.get_long().is_some_and(|long| long != "config");
    serve.get_arguments().filter(is_setting).map(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (help, default) = match help.rsplit_once(" [default: ") {
            Some((help, default)) => (help, default.trim_end_matches(']')),
            None => (help.as_str(), "none"),
        };
        Setting {
            id: arg.get_id().as_str(),
            name: arg.get_long().unwrap_or_default(),
            variable: arg
                .get_env()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            help: help.to_owned(),
            default: default.to_owned(),
        }
    })
}

/// Every setting with what it is for; none is set.
fn example(serve: &Command) -> String {
    let mut text = String::from(
        "# Settings of prefd: `prefd serve --config FILE`. Each is a flag, too, and a variable of\n\
         # the environment, which both come before the file. Made by `prefd config example`.\n",
    );
    for setting in settings_of(serve) {
        text.push('\n');
        for line in wrapped(&format!("{}. Default: {}.", setting.help, setting.default)) {
            let _ = writeln!(text, "# {line}");
        }
        let value = value_of(serve, setting.id);
        let _ = writeln!(text, "#{} = {value}", setting.name);
    }
    text
}

/// A value of the right kind to put something else in place of.
fn value_of(serve: &Command, id: &str) -> String {
    let arg = serve.get_arguments().find(|arg| arg.get_id() == id);
    let name = arg
        .and_then(Arg::get_value_names)
        .and_then(|names| names.first());
    let name = name.map_or("", |name| name.as_str());
    // Of several values there is a list.
    let is_list = arg.is_some_and(|arg| arg.get_value_delimiter().is_some());
    match name {
        "N" | "BYTES" => "1000".to_owned(),
        "BOOL" => "true".to_owned(),
        "TIME" => "\"30s\"".to_owned(),
        name if is_list => format!("[\"{name}\"]"),
        name => format!("\"{name}\""),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
            } else if line.len() + 1 + word.len() <= WIDTH {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}
