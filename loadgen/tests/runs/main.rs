//! The load generator at its ordinary work, from outside: jobs, reports, sweeps, options.

#[path = "../support/mod.rs"]
mod support;

mod experiments;
mod jobs;
mod reports;
mod usage;
