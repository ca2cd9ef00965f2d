//! What holds for any inventory: limits, order, selectors, and how a pool changes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking too")]

#[path = "../support/h100.rs"]
mod h100;

mod fleet;
mod limits;
mod nvidia;
mod partitions;
mod pool;
mod selector;
