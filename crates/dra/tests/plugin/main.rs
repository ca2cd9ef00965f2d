//! The plugin without a kubelet: what it writes, refuses and survives, and how it answers on its socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod answering;
mod node;
mod parting;
mod preparing;
mod recovering;
mod scrubbing;
mod together;
