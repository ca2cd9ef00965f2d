//! Which machine is worked on when, by which replica. The queue is in the database (`store::queue`); this is the hand that
//! takes from it.
//!
//! A machine never waits for another except for a place: so many of one site are worked on at once, across all replicas. Each site
//! has its own places, so that one whose BMCs or services hang holds up no other. What is claimed together is claimed in one
//! statement and given back in one transaction, so that a step costs little more than what it records.

use crate::error::coded;
use crate::life::{Life, Next};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Lease, StoreError};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Time until the next try after the database failed.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// While machines are due that cannot be claimed, it is looked for them so often, and not after each event.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// Time until the next try after a step panicked, which is a mistake of ours.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// How much is done at once, and how long a replica that says nothing is believed to live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Machines of one site that all replicas work on at once.
    pub per_site: usize,
    /// See [`crate::Settings::lease`].
    pub lease: Duration,
}

struct Hand {
    life: Arc<Life>,
    replica: String,
    limits: Limits,
    tasks: JoinSet<(Lease, Next)>,
    leases: HashMap<Id, Lease>,
    /// How many replicas live: each takes its share of a site's limit.
    replicas: usize,
    /// Whether machines are due that could not be claimed.
    full: bool,
    /// Whether it may be dead by the database's clock.
    silent: bool,
    /// When this replica last said that it lives.
    lived: Option<Instant>,
}

/// Runs until it is cancelled. Steps under way are cut off: each records in one transaction, and its session at the BMC is
/// ended.
pub(crate) async fn run(life: Arc<Life>, limits: Limits, stop: CancellationToken) {
    let replica = uuid::Uuid::new_v4().to_string();
    let store = life.store.clone();
    let mut changed = store.changed();
    let mut hand = Hand {
        life,
        replica,
        limits,
        tasks: JoinSet::new(),
        leases: HashMap::new(),
        replicas: 1,
        full: false,
        silent: false,
        lived: None,
    };
    loop {
        let pause = match hand.take().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(code = error.code(), "the queue cannot be read: {error}");
                hand.give_up_if_silent();
                tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(STORE_PAUSE) => continue }
            }
        };
        let full = hand.full;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
            Some(first) = hand.tasks.join_next_with_id(), if !hand.tasks.is_empty() => hand.give_back(first).await,
            changes = changed.changed(), if !full => if changes.is_err() { break },
        }
    }
    hand.tasks.shutdown().await;
    if let Err(error) = store.leave(&hand.replica).await {
        tracing::warn!(code = error.code(), "this replica's leases end by themselves: {error}");
    }
}

/// The part of a site's limit that each of so many replicas takes.
pub(crate) fn share(per_site: usize, replicas: usize) -> usize {
    (per_site / replicas.max(1)).max(1)
}

impl Hand {
    /// Says that this replica lives, and starts what is due. Gives the time until there is more to do.
    async fn take(&mut self) -> Result<Duration, StoreError> {
        let beat = self.limits.lease / 3;
        if self.silent || self.lived.is_none_or(|lived| lived.elapsed() >= beat) {
            let said = Instant::now();
            self.silent = false;
            self.replicas = self.life.store.live(&self.replica, self.limits.lease).await?.max(1);
            self.lived = Some(said);
        }
        let turn = self.life.store.turn().await?;
        self.full = false;
        for site in &turn.sites {
            let share = share(self.limits.per_site, self.replicas);
            let busy = self.leases.values().filter(|lease| lease.site == *site).count();
            let free = share.saturating_sub(busy);
            if free == 0 {
                self.full = true;
                continue;
            }
            let claimed = self.life.store.claim(&self.replica, site, free).await?;
            if claimed.is_empty() {
                // Others were faster, or this replica is dead by the database's clock: it says that it lives, and looks again.
                self.silent = true;
                self.full = true;
            }
            for lease in claimed {
                let task = carry(Arc::clone(&self.life), lease.clone());
                self.leases.insert(self.tasks.spawn(task).id(), lease);
            }
        }
        Ok(turn.next.unwrap_or(if self.full { FULL_PAUSE } else { beat }).min(beat))
    }

    /// Gives back what has ended, all at once.
    async fn give_back(&mut self, first: Result<(Id, (Lease, Next)), JoinError>) {
        let mut released = Vec::new();
        let mut ended = Some(first);
        while let Some(end) = ended {
            released.extend(self.ended(end));
            ended = self.tasks.try_join_next_with_id();
        }
        while let Err(error) = self.life.store.release(&released).await {
            tracing::error!(code = error.code(), "leases cannot be given back: {error}");
            if self.give_up_if_silent() {
                return;
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    fn ended(&mut self, end: Result<(Id, (Lease, Next)), JoinError>) -> Option<(Lease, Option<Duration>)> {
        match end {
            Ok((id, (lease, next))) => {
                self.leases.remove(&id);
                Some((lease, next.pause()))
            }
            Err(error) => {
                tracing::error!(code = coded("api.internal", "").code, "a step ended badly: {error}");
                let lease = self.leases.remove(&error.id())?;
                Some((lease, Some(AFTER_PANIC)))
            }
        }
    }

    /// A replica that could not say in time that it lives has lost its leases: another may be at work on its machines.
    fn give_up_if_silent(&mut self) -> bool {
        let silent = self.lived.is_none_or(|lived| lived.elapsed() >= self.limits.lease);
        if silent && !self.tasks.is_empty() {
            tracing::error!(
                "the database was away for longer than a lease: what was under way is left to others"
            );
            self.tasks.abort_all();
            self.tasks.detach_all();
            self.leases.clear();
        }
        silent
    }
}

/// Carries one machine as far as it goes now, step by step.
async fn carry(life: Arc<Life>, lease: Lease) -> (Lease, Next) {
    loop {
        match life.step(&lease).await {
            Ok(Next::AtOnce) => {}
            Ok(next) => return (lease, next),
            Err(error) => {
                tracing::error!(machine = %lease.machine, code = error.code(), "nothing could be recorded: {error}");
                return (lease, Next::After(STORE_PAUSE));
            }
        }
    }
}
