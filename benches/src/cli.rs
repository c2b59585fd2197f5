//! The command line of `storage`. Without arguments, as `cargo bench` runs it, it runs the
//! short comparison.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::compare::compare;
use crate::contender::Contender;
use crate::http::constant;
use crate::phase_result::PhaseResult;
use crate::plan::ComparisonPlan;
use crate::report::Report;
use crate::run::ScenarioRun;
use crate::scenario::{Scenario, WorkloadSize};
use crate::{Result, report};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Compares prefd with other storage engines and other HTTP servers.
#[derive(Debug, Parser)]
#[command(name = "storage", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Ignored; `cargo bench` adds this option
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the comparison and write a report
    Compare(Box<CompareArgs>),
    /// Generate the tables and plots of a comparison again
    Report {
        /// File `comparison.jsonl` of an earlier comparison
        file: PathBuf,
        /// Folder for the tables and plots [default: the folder of FILE]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run one scenario with one contender and print one line of JSON per phase
    Run(RunArgs),
    #[command(hide = true, name = constant::SUBCOMMAND)]
    Constant,
    #[command(hide = true)]
    Reopen {
        #[command(flatten)]
        run: RunArgs,
        /// How the previous process ended, as the report names it
        #[arg(long)]
        after: String,
    },
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Amount of work: `short` finishes in under three minutes, `tiny` is for tests
    #[arg(long, value_enum, default_value = "full")]
    form: Form,
    /// Contenders to compare, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Scenarios to run, separated by commas [default: all scenarios of the form]
    #[arg(
        long = "topics",
        value_name = "SCENARIO",
        value_enum,
        value_delimiter = ','
    )]
    scenarios: Vec<Scenario>,
    /// Number of repetitions [default: 3 for `full`, otherwise 1]
    #[arg(long)]
    rounds: Option<u32>,
    /// Number of documents in the scenario `scale` [default: 1000000 for `full`]
    #[arg(long, value_name = "N")]
    scale: Option<u64>,
    /// Folder on the disk to measure
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Folder for the report
    #[arg(long, default_value = DEFAULT_OUT)]
    out: PathBuf,
    /// Path of the prefd binary [default: the one next to this program]
    #[arg(long, value_name = "FILE")]
    prefd: Option<PathBuf>,
}

const DEFAULT_OUT: &str = "target/comparison";

/// Named amounts of work.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Full,
    Short,
    Tiny,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Contender to measure
    #[arg(long, value_enum)]
    contender: Contender,
    /// Scenario to run
    #[arg(long = "topic", value_name = "SCENARIO", value_enum)]
    scenario: Scenario,
    /// Durations and document counts, as a JSON object [default: those of `full`]
    #[arg(long, value_name = "JSON")]
    size: Option<String>,
    /// Folder for the contender's data; it must be empty, or must not exist
    #[arg(long)]
    dir: PathBuf,
    /// Path of the prefd binary [default: the one next to this program]
    #[arg(long, value_name = "FILE")]
    prefd: Option<PathBuf>,
}

impl RunArgs {
    /// Calls `run` with the run that the arguments describe. Its results are printed.
    fn with_run(&self, run: impl FnOnce(&mut ScenarioRun<'_>) -> Result<()>) -> Result<()> {
        let size = match &self.size {
            Some(text) => serde_json::from_str(text)?,
            None => WorkloadSize::FULL,
        };
        run(&mut ScenarioRun {
            contender: self.contender,
            dir: &self.dir,
            size,
            prefd: self.prefd.as_deref(),
            on_result: &mut print_result,
        })
    }
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let short_comparison = || {
        Command::Compare(Box::new(CompareArgs {
            form: Form::Short,
            contenders: Vec::new(),
            scenarios: Vec::new(),
            rounds: None,
            scale: None,
            dir: ".".into(),
            out: DEFAULT_OUT.into(),
            prefd: None,
        }))
    };
    let result = match Cli::parse().command.unwrap_or_else(short_comparison) {
        Command::Compare(args) => run_comparison(&args),
        Command::Report { file, out } => {
            let folder = file.parent().map(PathBuf::from).unwrap_or_default();
            Report::read(&file).and_then(|report| write_report(&report, &out.unwrap_or(folder)))
        }
        Command::Run(args) => args.with_run(|run| {
            run.run(args.scenario)?;
            if args.scenario == Scenario::Scale {
                // The parent process kills this process while the store is open.
                std::io::stdin().read_line(&mut String::new())?;
            }
            Ok(())
        }),
        Command::Constant => constant::serve(),
        Command::Reopen { run, after } => run.with_run(|run| run.reopen(&after)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a result as one line of JSON. The line is flushed, because the parent process may
/// kill this process as soon as it has read the line.
fn print_result(result: &PhaseResult) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, result)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn run_comparison(args: &CompareArgs) -> Result<()> {
    let (mut size, scenarios, rounds) = match args.form {
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
    size.scale_documents = args.scale.unwrap_or(size.scale_documents);
    let plan = ComparisonPlan {
        contenders: chosen_or_all(&args.contenders, Contender::ALL),
        scenarios: chosen_or_all(&args.scenarios, scenarios),
        size,
        rounds: args.rounds.unwrap_or(rounds),
        dir: args.dir.clone(),
        prefd: args.prefd.clone(),
    };
    let report = compare(&plan)?;
    write_report(&report, &args.out)
}

fn chosen_or_all<T: Clone>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() { all } else { chosen }.to_vec()
}

/// Writes the files of the report, and prints its tables.
fn write_report(report: &Report, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    report.write(&out.join("comparison.jsonl"))?;
    let markdown = report::markdown(report);
    std::fs::write(out.join("comparison.md"), &markdown)?;
    for (name, svg) in report::plots(report) {
        std::fs::write(out.join(name), svg)?;
    }
    println!("{markdown}");
    eprintln!("report written to {}", out.display());
    Ok(())
}
