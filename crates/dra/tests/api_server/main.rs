//! What is published, against a real API server and scheduler (Kubernetes 1.36.3). A missing one fails these tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking too")]

#[path = "../support/h100.rs"]
mod h100;

mod accepted;
mod cluster;
mod guarded;
mod scheduled;
