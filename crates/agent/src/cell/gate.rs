//! The permits that the agent holds, for those who hand out devices.

use domain::permit::{HeldPermits, Permit, PermitError};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Looks at the permits held now. Clones see the same.
#[derive(Clone, Debug)]
pub struct Gate {
    held: watch::Receiver<Option<Arc<HeldPermits>>>,
    answered: watch::Receiver<bool>,
}

impl Gate {
    /// A gate that opens by what comes through here. `answered` tells whether the cell has answered what this agent reports, so that the
    /// permits are not only those of an earlier run.
    pub fn new(held: watch::Receiver<Option<Arc<HeldPermits>>>, answered: watch::Receiver<bool>) -> Self {
        Self { held, answered }
    }

    /// The live permit of a device.
    pub fn permit(&self, device: &str) -> Result<Permit, PermitError> {
        let none = || PermitError::None { device: device.to_owned() };
        let held = self.held.borrow();
        held.as_ref().ok_or_else(none)?.find(device, Timestamp::now(), uptime()).cloned()
    }

    /// All permits, live or not.
    pub fn permits(&self) -> Option<Arc<HeldPermits>> {
        self.held.borrow().clone()
    }

    /// Whether the cell has answered this agent, and permits nothing: then there is nothing to hand out by its will, and not because it
    /// is away.
    pub fn is_closed(&self) -> bool {
        let none = |held: &Arc<HeldPermits>| held.permits().permits.is_empty();
        *self.answered.borrow() && self.held.borrow().as_ref().is_some_and(none)
    }

    /// How long any permit lasts still. Zero: nothing can be handed out, and the plugin should not be registered.
    pub fn lasts(&self) -> Duration {
        self.held.borrow().as_ref().map(|held| held.lasts(Timestamp::now(), uptime())).unwrap_or_default()
    }

    /// Waits until other permits come, or until the cell has answered. Never ends once neither can be.
    pub async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.held.changed() => changed,
            Ok(()) = self.answered.changed() => Ok(()),
        };
        if changed.is_err() {
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
                changed = self.held.changed() => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Name;
    use domain::permit::Permits;

    #[tokio::test]
    async fn the_cell_permits_nothing_once_it_has_answered_this_agent_so_and_not_while_it_is_away() {
        let now = Timestamp::now();
        let permits = |count: usize| {
            let permit = Permit {
                device: Name::new("gpu-1").unwrap(),
                gpu: "GPU-1".to_owned(),
                partition: None,
                verdict: None,
                valid_until: now,
            };
            let permits =
                Permits { machine: Name::new("m1").unwrap(), issued: now, permits: vec![permit; count] };
            Some(Arc::new(HeldPermits::new(permits, uptime())))
        };
        let (held, seen) = watch::channel(None);
        let (answered, told) = watch::channel(false);
        let mut gate = Gate::new(seen, told);
        assert!(!gate.is_closed());
        held.send_replace(permits(0));
        gate.changed().await;
        assert!(!gate.is_closed(), "they may be those of an earlier run");
        answered.send_replace(true);
        gate.changed().await;
        assert!(gate.is_closed());
        // One that has run out.
        held.send_replace(permits(1));
        gate.changed().await;
        assert!(!gate.is_closed() && gate.lasts().is_zero());
    }
}
