//! Restarts of a BMC: for how long it is away, and who must be told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Whether a BMC is away, and how often it has been.
#[derive(Debug)]
pub(crate) struct Outage {
    until: Mutex<Option<Instant>>,
    restarts: watch::Sender<u64>,
}

impl Default for Outage {
    fn default() -> Self {
        Self { until: Mutex::default(), restarts: watch::Sender::new(0) }
    }
}

impl Outage {
    /// Ends all connections and takes none for so long.
    pub(crate) fn begin(&self, takes: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + takes);
        self.restarts.send_modify(|count| *count += 1);
    }

    pub(crate) fn is_on(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn restarts(&self) -> u64 {
        *self.restarts.borrow()
    }

    /// Changes at every restart from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.restarts.subscribe()
    }
}
