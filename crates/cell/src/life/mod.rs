//! A machine's life: which step it takes now (`domain::lifecycle`), who takes it, and what is recorded (DESIGN §5.3).

mod case;
mod isolate;
mod leave;
mod rotate;
mod serve;
mod shared;
mod shelf;

pub(crate) use leave::is_drained;

use crate::agents::Inviter;
use crate::base_cluster::BaseClusters;
use crate::enrol::Enroller;
use crate::provision::Services;
use crate::trouble::Trouble;
use case::Case;
use domain::lifecycle::{self, MachineState, Step};
use domain::{Goal, Kind, Name, Outcome, Spec};
use jiff::Timestamp;
pub(crate) use rotate::Login;
use std::time::Duration;
use store::{Lease, MachineRecord, Store, StoreError};

/// How long a machine for which a provisioning service has no place is left alone, where it waits for something else as well.
const WITHOUT_PLACE: Duration = Duration::from_secs(5);

/// What all steps share.
#[derive(Debug)]
pub(crate) struct Life {
    pub store: Store,
    pub enroller: Enroller,
    /// The cell's identity.
    pub cell: String,
    pub services: Services,
    pub clusters: BaseClusters,
    /// Has machines enrol their own agents, where the cell is told how they reach it.
    pub inviter: Option<Inviter>,
    /// How long an inventory stays fresh.
    pub refresh: Duration,
}

/// When a machine's next step is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Now, under the same lease.
    AtOnce,
    /// After that. A span: when that is, the database's clock says.
    After(Duration),
    /// Not before something changes.
    WhenWoken,
}

impl Next {
    /// As the queue takes it.
    pub(crate) fn pause(self) -> Option<Duration> {
        match self {
            Self::AtOnce => Some(Duration::ZERO),
            Self::After(pause) => Some(pause),
            Self::WhenWoken => None,
        }
    }
}

impl Life {
    pub(crate) fn new(
        enroller: Enroller,
        cell: String,
        services: Services,
        inviter: Option<Inviter>,
        refresh: Duration,
    ) -> Self {
        let clusters = BaseClusters::new(enroller.secrets.clone());
        Self { store: enroller.store.clone(), enroller, cell, services, clusters, inviter, refresh }
    }

    /// Takes the next step of a machine and records what came of it.
    pub(crate) async fn step(&self, lease: &Lease) -> Result<Next, StoreError> {
        let Some(record) = self.store.machine(&lease.machine).await? else { return Ok(Next::WhenWoken) };
        let now = self.store.clock().await?;
        let trouble = match Box::pin(self.try_step(&record, lease, now)).await {
            Ok(Outcome::Advance(_)) => return Ok(Next::AtOnce),
            Ok(Outcome::Done) => return Ok(self.idle(&record, now)),
            Ok(Outcome::Wait { problem, pause }) => Trouble::UnderWay(problem, pause),
            Ok(Outcome::Fail(problem)) => Trouble::Lasting(problem),
            Err(trouble) => self.heed(&record, lease, now, trouble).await,
        };
        let quiet = matches!(trouble, Trouble::UnderWay(..) | Trouble::NoPlace(_));
        let no_place = matches!(trouble, Trouble::NoPlace(_));
        let (problem, pause) = match trouble.wait(&record) {
            Ok(wait) => wait,
            // The declaration changed meanwhile: the change has put the machine back into the queue.
            Err(StoreError::Superseded { .. } | StoreError::NotFound { .. }) => return Ok(Next::WhenWoken),
            Err(error) => return Err(error),
        };
        // What it waits for stays what it was: were it the limit now and its own reason next, each would begin anew.
        if no_place && record.waiting.as_ref().is_some_and(|waiting| waiting.problem.code != problem.code) {
            return Ok(pause.map_or(Next::WhenWoken, |pause| Next::After(pause.max(WITHOUT_PLACE))));
        }
        match self.store.record_waiting(&record.name, lease.guard(record.generation), &problem, pause).await {
            Ok(_) | Err(StoreError::Superseded { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        if !quiet {
            tracing::warn!(machine = %record.name, code = problem.code, "{}", problem.message);
        }
        Ok(pause.map_or(Next::WhenWoken, Next::After))
    }

    async fn try_step(
        &self,
        record: &MachineRecord,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<Outcome, Trouble> {
        let goal = self.goal(&record.name).await?;
        let node_of = record.instance.as_ref().map(|instance| &instance.base_cluster);
        let step = lifecycle::next(record.state, &goal, node_of);
        let guard = lease.guard(record.generation);
        let open = |step| Case::open(self, record, guard, step, goal.clone(), now);
        let stale = self.is_stale(record, now);
        let held = shared::holds_up(record, step);
        match step {
            // These need no BMC: one that is away, or was taken from us, keeps no machine from being set aside, given up, drained,
            // or watched.
            Some(step @ (Step::SetAside | Step::WriteOff | Step::Leave | Step::Drain)) => {
                return Box::pin(take(open(step).await?)).await;
            }
            Some(step @ Step::Watch) if record.rotating || stale || held => {
                let seen = Box::pin(take(open(step).await?)).await?;
                if seen != Outcome::Done {
                    return Ok(seen);
                }
            }
            // Nor is anything done at the BMC while the service may still act there.
            Some(step @ Step::Isolate) => {
                let seen = Box::pin(take(open(step).await?)).await?;
                if seen != Outcome::Done {
                    return Ok(seen);
                }
            }
            _ => {}
        }
        // Nothing else is done at a BMC of which two passwords may be in force.
        if record.rotating && goal != Goal::Lost {
            return open(step.unwrap_or(Step::Watch)).await?.rotate().await;
        }
        if held {
            let case = open(step.unwrap_or(Step::Watch)).await?;
            if let Some(outcome) = Box::pin(case.prove_shared()).await? {
                return Ok(outcome);
            }
        }
        // What the machine is used for goes before looking at it again, unless something was declared of its BMC: that is held
        // against the machine before anybody acts on it.
        let idle = matches!(step, None | Some(Step::Watch | Step::Isolate))
            || record.state == MachineState::Enrolled;
        let due = (idle && stale) || (record.stale && step != Some(Step::Retire));
        if due && record.state.is_enrolled() && record.state != MachineState::Retired {
            self.enrol(record, lease).await?;
            return Ok(Outcome::Advance(record.state));
        }
        match step {
            None | Some(Step::Isolate) => Ok(Outcome::Done),
            Some(Step::Discover | Step::Enrol) => self.enrol(record, lease).await,
            Some(step) => {
                let case = open(step).await?;
                if let Some(outcome) = Box::pin(case.prove_before_asking()).await? {
                    return Ok(outcome);
                }
                Box::pin(take(case)).await
            }
        }
    }

    async fn enrol(&self, record: &MachineRecord, lease: &Lease) -> Result<Outcome, Trouble> {
        self.enroller.step(record, lease.guard(record.generation)).await
    }

    async fn goal(&self, machine: &Name) -> Result<Goal, Trouble> {
        let assignment = self.store.declaration(Kind::Assignment, machine).await?;
        Ok(match assignment.map(|declaration| declaration.spec) {
            Some(Spec::Assignment(spec)) => Goal::of(Some(&spec)),
            _ => Goal::Shelf,
        })
    }

    /// Whether the inventory has to be read again.
    fn is_stale(&self, record: &MachineRecord, now: Timestamp) -> bool {
        record.stale || self.fresh_for(record, now).is_zero()
    }

    /// How long the inventory stays fresh.
    fn fresh_for(&self, record: &MachineRecord, now: Timestamp) -> Duration {
        let Some(mark) = record.inventory else { return Duration::ZERO };
        let age = Duration::try_from(now.duration_since(mark.at)).unwrap_or_default();
        self.refresh.saturating_sub(age)
    }

    /// Nothing to do until the inventory is to be read again.
    fn idle(&self, record: &MachineRecord, now: Timestamp) -> Next {
        let fresh = self.fresh_for(record, now);
        match record.state {
            MachineState::Retired | MachineState::Quarantined => Next::WhenWoken,
            MachineState::InService => Next::After(fresh.min(serve::watch_again())),
            _ => Next::After(fresh),
        }
    }
}

async fn take(case: Case<'_>) -> Result<Outcome, Trouble> {
    match case.step {
        // Before it is enrolled there is nothing that a case is made of.
        Step::Discover | Step::Enrol => Ok(Outcome::Done),
        Step::Inspect => case.inspect().await,
        Step::Check => case.check().await,
        Step::Provide => case.erase().await,
        Step::Assign => case.assign().await,
        Step::Deploy => case.deploy().await,
        Step::Verify => case.verify().await,
        Step::Watch => case.watch().await,
        Step::Leave => case.leave().await,
        Step::Drain => case.drain().await,
        Step::Wipe => case.wipe().await,
        Step::Retire => case.retire().await,
        Step::WriteOff => case.write_off().await,
        Step::SetAside => case.set_aside().await,
        Step::Isolate => case.isolate().await,
        Step::Readmit => case.readmit().await,
    }
}
