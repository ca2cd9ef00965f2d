//! A cell against simulated BMCs, over its API, as its users see it.

mod access;
mod enrolment;
mod publishing;
mod support;
