//! A cell against simulated BMCs, over its API, as its users see it.

mod access;
mod cluster;
mod enrolment;
mod publishing;
mod support;
