//! A cell against simulated BMCs, over its API, as its users see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers may fail a test too, and say how fast it was

mod access;
mod agent;
mod agents;
mod cluster;
mod enrolment;
mod faults;
mod firmware;
mod invitations;
mod ipmi;
mod lifecycle;
mod limits;
mod line;
mod node;
mod outages;
mod pods;
mod publishing;
mod quarantine;
mod rotation;
mod shared;
mod support;
mod time;
