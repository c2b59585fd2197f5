//! Runs one scenario with one contender in this process, and passes on the result of each
//! phase.
//!
//! - `scenario_run` has the contender, the folder and the size of a run.
//! - `engine` has the scenarios for storage engines, and `phase` runs one phase of them. The
//!   scenario for servers is in `http`.

mod engine;
mod phase;
pub(crate) mod scenario_run;

use crate::Result;
use crate::scenario::Scenario;
pub use scenario_run::ScenarioRun;

impl ScenarioRun<'_> {
    /// Runs a scenario. The folder must be empty, or must not exist.
    pub fn run(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Durable => self.run_durable(),
            Scenario::Reads => self.run_reads(),
            Scenario::Churn => self.run_churn(),
            Scenario::Sizes => self.run_sizes(),
            Scenario::Bulk => self.run_bulk(),
            Scenario::Scale => self.run_scale(),
            Scenario::Http => self.run_http(),
        }
    }
}
