//! `prefd config`: checks the settings, shows their values and sources, or prints a
//! configuration file that explains them.

use std::fmt::Write;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Subcommand};
use serde_json::{Map, Value};

use crate::commands::console;
use crate::commands::error::CommandError;
use crate::log;
use crate::serve;
use crate::settings::{LogFormat, Settings, SettingsSources};

/// Maximum length in bytes of a comment line in the example file, not counting `# `.
const COMMENT_WIDTH: usize = 90;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the settings and the files that they refer to
    ///
    /// Checks the values, and reads every file that the settings name. Does not open the data
    /// directory, and does not connect to identity providers.
    Check(ConfigOptions),
    /// Print each setting with its value and its source
    ///
    /// The source is a flag, an environment variable, the configuration file or the default. The
    /// output is a valid configuration file with the same values.
    Show(ConfigOptions),
    /// Print a configuration file that explains all settings
    Example,
}

/// The settings of `prefd serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigOptions {
    /// TOML file with settings. Each setting has the name of its flag, without the leading dashes
    #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<Settings>,
}

/// Runs a subcommand of `prefd config`. `matches` contains the parsed arguments of this subcommand,
/// and `serve` is the definition of `prefd serve`, which has the help texts of all settings.
pub(super) fn run(
    command: ConfigCommand,
    matches: &ArgMatches,
    serve: &Command,
) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Check(options) => check(options),
        ConfigCommand::Show(options) => show(options, matches, serve),
        ConfigCommand::Example => console::print(&example(serve)),
    }
}

fn check(options: ConfigOptions) -> Result<(), CommandError> {
    let sources = SettingsSources {
        flags: *options.settings,
        file: options.config,
    };
    let settings = sources.settings().map_err(CommandError::serve)?;
    // The check logs warnings about the settings, as `prefd serve` does at start.
    let _log = log::start(Some("warn"), LogFormat::Text);
    serve::check_settings(&settings).map_err(CommandError::serve)?;
    console::print("the server could start with these settings\n")
}

fn show(options: ConfigOptions, matches: &ArgMatches, serve: &Command) -> Result<(), CommandError> {
    let sources = SettingsSources {
        flags: *options.settings,
        file: options.config,
    };
    let only_file = SettingsSources {
        flags: Settings::default(),
        ..sources.clone()
    };
    let merged = object(&sources.settings().map_err(CommandError::serve)?)?;
    let in_file = object(&only_file.settings().map_err(CommandError::serve)?)?;
    let mut text = String::new();
    for setting in settings_of(serve) {
        let value = merged.get(setting.name).filter(|value| !value.is_null());
        let source = match matches.value_source(setting.id) {
            Some(ValueSource::CommandLine) => format!("--{}", setting.name),
            Some(ValueSource::EnvVariable) => setting.variable.clone(),
            _ if in_file.get(setting.name).is_some_and(|v| !v.is_null()) => sources
                .file
                .as_deref()
                .unwrap_or("".as_ref())
                .display()
                .to_string(),
            _ => "default".to_owned(),
        };
        let _ = match value {
            // Settings are numbers, booleans, strings and lists of strings. The JSON text of these
            // types is also valid TOML.
            Some(value) => writeln!(text, "{} = {value} # {source}", setting.name),
            None => writeln!(text, "# {} = {} # {source}", setting.name, setting.default),
        };
    }
    console::print(&text)
}

fn object(settings: &Settings) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::to_value(settings)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

/// A setting, as described by the definition of its flag.
struct Setting<'a> {
    id: &'a str,
    name: &'a str,
    variable: String,
    heading: &'a str,
    /// The help text without the default.
    help: String,
    /// The default as text, or `none` if the setting has no default.
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
            heading: arg.get_help_heading().unwrap_or_default(),
            help: help.to_owned(),
            default: default.to_owned(),
        }
    })
}

/// Returns a configuration file that contains all settings, commented out.
fn example(serve: &Command) -> String {
    let mut text = String::from(
        "# All settings of prefd serve, as a file for --config. Each setting is also a flag and an\n\
         # environment variable. A flag overrides the environment, and the environment overrides\n\
         # this file. Generated by `prefd config example`.\n",
    );
    let mut heading = "";
    for setting in settings_of(serve) {
        text.push('\n');
        if setting.heading != heading {
            heading = setting.heading;
            let _ = writeln!(text, "# ==== {heading} ====\n");
        }
        for line in wrapped(&format!("{}. Default: {}.", setting.help, setting.default)) {
            let _ = writeln!(text, "# {line}");
        }
        let value = value_of(serve, setting.id, &setting.default);
        let _ = writeln!(text, "#{} = {value}", setting.name);
    }
    text
}

/// Returns the default of a setting, in the form of a configuration file. If the default is not a
/// single value, returns a placeholder of the right type.
fn value_of(serve: &Command, id: &str, default: &str) -> String {
    let arg = serve.get_arguments().find(|arg| arg.get_id() == id);
    let name = arg
        .and_then(Arg::get_value_names)
        .and_then(|names| names.first());
    let name = name.map_or("", |name| name.as_str());
    // In the configuration file, the value of a repeatable flag is a list.
    let is_list = arg.is_some_and(|arg| arg.get_value_delimiter().is_some());
    let is_single = default != "none" && !default.contains(char::is_whitespace);
    let value = |placeholder| {
        if is_single { default } else { placeholder }
    };
    match name {
        "N" | "BYTES" => value("1000").to_owned(),
        "BOOL" => value("true").to_owned(),
        "TIME" => format!("\"{}\"", value("30s")),
        name if is_list => format!("[\"{}\"]", value(name)),
        name => format!("\"{}\"", value(name)),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
            } else if line.len() + 1 + word.len() <= COMMENT_WIDTH {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}
