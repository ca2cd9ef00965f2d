//! The transport against a BMC that misbehaves as real ones do. Tests of a quirk carry its number.

extern crate bailiwick_redfish as redfish;

mod body;
mod login;
mod patience;
mod probe;
mod server;
mod trust;
