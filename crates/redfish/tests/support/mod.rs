//! What the reading tests share.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every test binary uses its own part of it")]

pub mod machine;
pub mod reading;
pub mod tree;
