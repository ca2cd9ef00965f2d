//! Which machine is worked on when. One queue; a machine never waits for another except for a place among those worked on.
//!
//! The queue lives in memory and is made anew from the database at each start and after each applied plan: states and waiting
//! times are durable, so a crash loses nothing and doubles nothing (DESIGN §3.5).

use crate::enrol::Enroller;
use domain::{MachineState, Name, Outcome};
use jiff::Timestamp;
use redfish::LoginBudget;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{MachineRecord, StoreError};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Time until the next try after the database failed.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Time until the next try after a step panicked, which is a mistake of ours.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// A queued machine.
#[derive(Debug)]
struct Entry {
    generation: i64,
    budget: Arc<LoginBudget>,
    /// When it is its turn; `None` while only a changed declaration helps.
    due: Option<Timestamp>,
    running: Option<Id>,
}

/// What a task leaves: for which generation of which machine it ran, and when to look at that again.
type Left = (Name, i64, Option<Timestamp>);

/// Runs until it is cancelled. Steps under way are cut off: each is one transaction, and its session at the BMC is ended.
pub(crate) async fn run(enroller: Arc<Enroller>, at_once: usize, stop: CancellationToken) {
    let mut changed = enroller.store.changed();
    let mut queue = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut seen = -1;
    loop {
        if let Err(error) = refill(&enroller, &mut queue, &mut seen).await {
            tracing::error!(code = error.code(), "the queue cannot be read: {error}");
            tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(STORE_PAUSE) => continue }
        }
        start_due(&enroller, &mut queue, &mut tasks, at_once);
        let next = queue.values().filter(|entry| entry.running.is_none()).filter_map(|entry| entry.due).min();
        let full = tasks.len() >= at_once;
        let pause = next.filter(|_| !full).map_or(Duration::from_hours(1), until);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
            Some(done) = tasks.join_next(), if !tasks.is_empty() => match done {
                Ok(left) => finish(&mut queue, left),
                Err(error) => give_back(&mut queue, &error),
            },
            changes = changed.changed() => if changes.is_err() { break },
        }
    }
    tasks.shutdown().await;
}

/// Reads the machines again if a plan was applied since the last look.
async fn refill(
    enroller: &Enroller,
    queue: &mut BTreeMap<Name, Entry>,
    seen: &mut i64,
) -> Result<(), StoreError> {
    if *seen >= 0 {
        let mut stale = false;
        loop {
            let events = enroller.store.events(*seen, 1000).await?;
            stale |= events.iter().any(|event| event.kind == "plan.applied");
            match events.last() {
                Some(last) => *seen = last.id,
                None => break,
            }
        }
        if !stale {
            return Ok(());
        }
    } else {
        *seen = enroller.store.last_event().await?;
    }
    let machines = enroller.store.machines().await?;
    let declared: BTreeSet<_> = machines.iter().map(|machine| machine.name.clone()).collect();
    queue.retain(|name, _| declared.contains(name));
    for machine in machines {
        let due = due(&machine, enroller.refresh);
        match queue.get_mut(&machine.name) {
            Some(entry) if entry.generation == machine.generation => {
                if entry.running.is_none() {
                    entry.due = due;
                }
            }
            // A changed declaration may bring other credentials: they are tried now, and their failures are counted anew.
            known => {
                let running = known.as_ref().and_then(|entry| entry.running);
                let due = if known.is_some() { Some(Timestamp::UNIX_EPOCH) } else { due };
                let entry = Entry { generation: machine.generation, budget: Arc::default(), due, running };
                queue.insert(machine.name, entry);
            }
        }
    }
    Ok(())
}

fn due(machine: &MachineRecord, refresh: Duration) -> Option<Timestamp> {
    match (&machine.waiting, machine.state) {
        (Some(waiting), _) => waiting.until,
        (None, MachineState::Enrolled) => {
            let read = machine.inventory.map_or(Timestamp::UNIX_EPOCH, |mark| mark.at);
            Some(read.saturating_add(refresh).unwrap_or(Timestamp::MAX))
        }
        (None, _) => Some(Timestamp::UNIX_EPOCH),
    }
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

fn start_due(
    enroller: &Arc<Enroller>,
    queue: &mut BTreeMap<Name, Entry>,
    tasks: &mut JoinSet<Left>,
    at_once: usize,
) {
    let now = Timestamp::now();
    for (machine, entry) in queue.iter_mut() {
        if tasks.len() >= at_once {
            break;
        }
        if entry.running.is_none() && entry.due.is_some_and(|due| due <= now) {
            let (machine, generation) = (machine.clone(), entry.generation);
            let task = carry(Arc::clone(enroller), machine, generation, Arc::clone(&entry.budget));
            entry.running = Some(tasks.spawn(task).id());
        }
    }
}

/// Carries one machine as far as it goes now, step by step. Returns when to look at it again.
async fn carry(enroller: Arc<Enroller>, machine: Name, generation: i64, budget: Arc<LoginBudget>) -> Left {
    loop {
        let due = match enroller.step(&machine, &budget).await {
            Ok(Outcome::Advance(MachineState::Enrolled)) => {
                Timestamp::now().saturating_add(enroller.refresh).ok()
            }
            Ok(Outcome::Advance(_)) => continue,
            Ok(Outcome::Wait { until, .. }) => Some(until),
            Ok(Outcome::Done | Outcome::Fail(_)) => None,
            Err(error) => {
                tracing::error!(%machine, code = error.code(), "nothing could be recorded: {error}");
                Timestamp::now().saturating_add(STORE_PAUSE).ok()
            }
        };
        return (machine, generation, due);
    }
}

fn finish(queue: &mut BTreeMap<Name, Entry>, (machine, generation, due): Left) {
    let Some(entry) = queue.get_mut(&machine) else { return };
    entry.running = None;
    // A declaration that changed while the step ran has set its own time, which is now.
    if entry.generation == generation {
        entry.due = due;
    }
}

/// A task that panicked leaves nothing: its machine is tried again after a while.
fn give_back(queue: &mut BTreeMap<Name, Entry>, error: &JoinError) {
    tracing::error!("a step ended badly: {error}");
    if let Some(entry) = queue.values_mut().find(|entry| entry.running == Some(error.id())) {
        entry.running = None;
        entry.due = Timestamp::now().saturating_add(AFTER_PANIC).ok();
    }
}
