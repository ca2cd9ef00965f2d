//! The transport against a BMC that misbehaves as real ones do. Tests of a quirk carry its number.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

extern crate bailiwick_redfish as redfish;

mod body;
mod login;
mod patience;
mod probe;
mod server;
mod simulated;
mod trust;
