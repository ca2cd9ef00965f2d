//! A real kubelet with containerd and runc calls the plugin, as a cluster would.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod lifecycle;
mod pods;
mod registering;
mod stage;
