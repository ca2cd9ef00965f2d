//! The permits that the agent holds, for those who hand out devices.

use domain::permit::{HeldPermits, Permit, PermitError};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Looks at the permits held now. Clones see the same.
#[derive(Clone, Debug)]
pub struct Gate(watch::Receiver<Option<Arc<HeldPermits>>>);

impl Gate {
    /// A gate that opens by what comes through here.
    pub fn new(permits: watch::Receiver<Option<Arc<HeldPermits>>>) -> Self {
        Self(permits)
    }

    /// The live permit of a device.
    pub fn permit(&self, device: &str) -> Result<Permit, PermitError> {
        let none = || PermitError::None { device: device.to_owned() };
        let held = self.0.borrow();
        held.as_ref().ok_or_else(none)?.find(device, Timestamp::now(), uptime()).cloned()
    }

    /// All permits, live or not.
    pub fn permits(&self) -> Option<Arc<HeldPermits>> {
        self.0.borrow().clone()
    }

    /// How long any permit lasts still. Zero: nothing can be handed out, and the plugin should not be registered.
    pub fn lasts(&self) -> Duration {
        self.0.borrow().as_ref().map(|held| held.lasts(Timestamp::now(), uptime())).unwrap_or_default()
    }

    /// Waits until other permits come. Never ends once none can.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there is a live permit, or until there is none any more: whichever is not so now. Never ends once no more
    /// permits can come and none is live.
    pub async fn turned(&mut self) {
        let open = !self.lasts().is_zero();
        loop {
            let lasts = self.lasts();
            if lasts.is_zero() == open {
                return;
            }
            let ends = async {
                if open {
                    tokio::time::sleep(lasts).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = ends => {}
                changed = self.0.changed() => {
                    if changed.is_err() && !open {
                        std::future::pending::<()>().await;
                    }
                    if changed.is_err() {
                        tokio::time::sleep(self.lasts()).await;
                    }
                }
            }
        }
    }
}

/// Time since the host was started, also while it slept. Nobody can set it.
pub fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}
