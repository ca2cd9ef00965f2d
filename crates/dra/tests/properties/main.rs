//! What holds for any inventory: limits, order, selectors, and how a pool changes.

mod fleet;
mod limits;
mod pool;
mod selector;
