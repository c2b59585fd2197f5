//! `storage` from the command line: without arguments, and by `cargo bench`, it is the
//! short comparison.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::compare::{ComparisonPlan, compare};
use crate::contender::Contender;
use crate::http::constant;
use crate::play::{PhaseResult, ScenarioRun};
use crate::report::Report;
use crate::scenario::{Scenario, WorkloadSize};
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
    #[arg(
        long = "topics",
        value_name = "SCENARIO",
        value_enum,
        value_delimiter = ','
    )]
    scenarios: Vec<Scenario>,
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
    #[arg(long = "topic", value_name = "SCENARIO", value_enum)]
    scenario: Scenario,
    /// How much of it, as JSON; default: all
    #[arg(long)]
    size: Option<String>,
    /// An empty folder, or one that is not there
    #[arg(long)]
    dir: PathBuf,
    /// The server's binary
    #[arg(long, value_name = "FILE")]
    prefd: Option<PathBuf>,
}

impl Play {
    fn played(&self, play: impl FnOnce(&mut ScenarioRun<'_>) -> Result<()>) -> Result<()> {
        let size = match &self.size {
            Some(text) => serde_json::from_str(text)?,
            None => WorkloadSize::FULL,
        };
        play(&mut ScenarioRun {
            contender: self.contender,
            dir: &self.dir,
            size,
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
            scenarios: Vec::new(),
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
            player.play(options.scenario)?;
            if options.scenario == Scenario::Scale {
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
fn tell(outcome: &PhaseResult) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, outcome)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn run(options: &Compare) -> Result<()> {
    let (mut size, scenarios, rounds) = match options.form {
        Form::Full => (WorkloadSize::FULL, Scenario::value_variants(), 3),
        Form::Tiny => (WorkloadSize::TINY, Scenario::value_variants(), 1),
        Form::Short => (
            WorkloadSize::SHORT,
            &[
                Scenario::Durable,
                Scenario::Reads,
                Scenario::Churn,
                Scenario::Sizes,
                Scenario::Http,
            ][..],
            1,
        ),
    };
    size.scale = options.scale.unwrap_or(size.scale);
    let or = |given: &[Contender]| match given {
        [] => Contender::ALL.to_vec(),
        given => given.to_vec(),
    };
    let plan = ComparisonPlan {
        contenders: or(&options.contenders),
        scenarios: if options.scenarios.is_empty() {
            scenarios.to_vec()
        } else {
            options.scenarios.clone()
        },
        size,
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
