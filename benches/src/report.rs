//! The report of a comparison: JSON lines with everything that was measured, and tables and
//! plots of the medians.

mod data;
mod markdown;
mod plot;
mod statistics;
mod targets;
#[cfg(test)]
mod tests;

pub use data::{ContenderInfo, Failure, Report, ReportMetadata};
pub use markdown::markdown;
pub use plot::plots;
