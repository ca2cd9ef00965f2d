//! Against a real API server with the real definitions of baremetal-operator and Cluster API, and neither's controllers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking, and so do their helpers"
)]

#[path = "../support/mod.rs"]
mod support;

mod cluster_api;
mod hosts;
