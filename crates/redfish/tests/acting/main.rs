//! Acting on a BMC that misbehaves as real ones do: writing, power, clock, accounts, credentials. Tests of a quirk carry its
//! number.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

extern crate bailiwick_redfish as redfish;

mod accounts;
mod boot;
mod budget;
mod clock;
mod machine;
mod manager;
mod pace;
mod power;
mod rotation;
mod secrets;
#[path = "../transport/server.rs"]
#[allow(dead_code, reason = "the tests of the transport use the rest of it")]
mod server;
mod simulated;
mod tasks;
mod writing;
