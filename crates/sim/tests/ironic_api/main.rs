//! The simulated Ironic API: as clients meet it, and held against the real one.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod behaviour;
mod contract;
mod events;
mod faults;
mod invariants;
mod speed;
mod support;
mod time;
