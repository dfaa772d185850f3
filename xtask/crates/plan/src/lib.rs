//! Planning of deployments: the configuration model, what is observed, the plan made from both,
//! the failures and the report.
//!
//! Planning does no input or output, reads no clock and draws no lots: everything that it depends
//! on is an argument. That is what makes `--dry-run` show exactly what would run.

pub mod aramb;
pub mod config;
pub mod exit;
pub mod failure;
pub mod observed;
pub mod plan;
pub mod preflight;
pub mod report;
pub mod tag;
