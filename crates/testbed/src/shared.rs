//! One counterpart for all tests that run at the same time. It lives as long as one of them holds it,
//! so the last one stops it: a plain `static` would never be dropped.

use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use crate::Error;

pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    pub(crate) async fn get(&self, start: impl Future<Output = Result<T, Error>>) -> Result<Arc<T>, Error> {
        let mut current = self.0.lock().await;
        if let Some(running) = current.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(start.await?);
        *current = Arc::downgrade(&started);
        Ok(started)
    }
}
