//! `storage` from the command line: without arguments, and by `cargo bench`, it is the
//! short comparison.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::compare::{Plan, compare};
use crate::contender::Contender;
use crate::http::constant;
use crate::play::{Outcome, Player};
use crate::report::Report;
use crate::scenario::{Extent, Topic};
use crate::{Result, report};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures prefd's engine beside other storage engines, and prefd beside other servers.
#[derive(Debug, Parser)]
#[command(name = "storage", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the contenders, and write a report
    Compare(Box<Compare>),
    /// Make the tables and plots again from what was measured
    Report {
        /// JSON lines that a comparison has written
        file: PathBuf,
        /// Where they go; default: beside that file
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Play one scenario, and print a line of JSON for each phase
    Play(Play),
    #[command(hide = true, name = constant::VERB)]
    Constant,
    #[command(hide = true)]
    Reopen {
        #[command(flatten)]
        play: Play,
        #[arg(long)]
        after: String,
    },
}

#[derive(Debug, Args)]
struct Compare {
    /// How much: the short form takes under three minutes
    #[arg(long, value_enum, default_value = "full")]
    form: Form,
    /// Only these contenders
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    topics: Vec<Topic>,
    /// Repetitions
    #[arg(long)]
    rounds: Option<u32>,
    /// Documents of the scenario that is about many
    #[arg(long, value_name = "N")]
    scale: Option<u64>,
    /// A folder on the disk that is to be measured
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where the report goes
    #[arg(long, default_value = OUT)]
    out: PathBuf,
    /// The server that is measured; default: the prefd that lies beside this program
    #[arg(long, value_name = "FILE")]
    prefd: Option<PathBuf>,
}

const OUT: &str = "target/comparison";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Full,
    Short,
    Tiny,
}

#[derive(Debug, Args)]
struct Play {
    #[arg(long, value_enum)]
    contender: Contender,
    #[arg(long, value_enum)]
    topic: Topic,
    /// How much of it, as JSON; default: all
    #[arg(long)]
    extent: Option<String>,
    /// An empty folder, or one that is not there
    #[arg(long)]
    dir: PathBuf,
    /// The server's binary
    #[arg(long, value_name = "FILE")]
    prefd: Option<PathBuf>,
}

impl Play {
    fn played(&self, play: impl FnOnce(&mut Player<'_>) -> Result<()>) -> Result<()> {
        let extent = match &self.extent {
            Some(text) => serde_json::from_str(text)?,
            None => Extent::FULL,
        };
        play(&mut Player {
            contender: self.contender,
            dir: &self.dir,
            extent,
            prefd: self.prefd.as_deref(),
            tell: &mut tell,
        })
    }
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    let short = || {
        Command::Compare(Box::new(Compare {
            form: Form::Short,
            contenders: Vec::new(),
            topics: Vec::new(),
            rounds: None,
            scale: None,
            dir: ".".into(),
            out: OUT.into(),
            prefd: None,
        }))
    };
    let outcome = match Cli::parse().command.unwrap_or_else(short) {
        Command::Compare(options) => run(&options),
        Command::Report { file, out } => {
            let beside = file.parent().map(PathBuf::from).unwrap_or_default();
            Report::read(&file).and_then(|report| write(&report, &out.unwrap_or(beside)))
        }
        Command::Play(options) => options.played(|player| {
            player.play(options.topic)?;
            if options.topic == Topic::Scale {
                // To be killed, with the store open.
                std::io::stdin().read_line(&mut String::new())?;
            }
            Ok(())
        }),
        Command::Constant => constant::serve(),
        Command::Reopen { play, after } => play.played(|player| player.reopen(&after)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One line for each outcome, at once: whoever reads it may kill this process.
fn tell(outcome: &Outcome) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, outcome)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn run(options: &Compare) -> Result<()> {
    let (mut extent, topics, rounds) = match options.form {
        Form::Full => (Extent::FULL, Topic::value_variants(), 3),
        Form::Tiny => (Extent::TINY, Topic::value_variants(), 1),
        Form::Short => (
            Extent::SHORT,
            &[
                Topic::Durable,
                Topic::Reads,
                Topic::Churn,
                Topic::Sizes,
                Topic::Http,
            ][..],
            1,
        ),
    };
    extent.scale = options.scale.unwrap_or(extent.scale);
    let or = |given: &[Contender]| match given {
        [] => Contender::ALL.to_vec(),
        given => given.to_vec(),
    };
    let plan = Plan {
        contenders: or(&options.contenders),
        topics: if options.topics.is_empty() {
            topics.to_vec()
        } else {
            options.topics.clone()
        },
        extent,
        rounds: options.rounds.unwrap_or(rounds),
        dir: options.dir.clone(),
        prefd: options.prefd.clone(),
    };
    let report = compare(&plan)?;
    write(&report, &options.out)
}

/// Writes the report, and prints the tables.
fn write(report: &Report, out: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    report.write(&out.join("comparison.jsonl"))?;
    let markdown = report::markdown(report);
    std::fs::write(out.join("comparison.md"), &markdown)?;
    for (name, svg) in report::plots(report) {
        std::fs::write(out.join(name), svg)?;
    }
    println!("{markdown}");
    eprintln!("written to {}", out.display());
    Ok(())
}
