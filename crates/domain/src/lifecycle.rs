//! Where a machine stands, where it may go, and what each step needs (DESIGN §5.3).
//!
//! ```text
//! declared → discovered → enrolled → inspected → compliant → available → provisioning → verifying → in-service
//!                 in-service → draining → wiping → available │ retired      any → quarantined → inspected
//!                                                                           any → retired, where it is lost
//! ```
//!
//! Pure: [`next`] says which step a machine takes toward its [`Goal`]; the cell takes it and records its [`Outcome`].

use crate::assignment::Goal;
use crate::problem::Problem;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The durable state of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// People declared it; nobody has spoken to its BMC.
    Declared,
    /// Its BMC answered and its key is pinned; no credentials were sent yet.
    Discovered,
    /// Its identity was checked and its inventory taken.
    Enrolled,
    /// The provisioning service knows it and has looked at it.
    Inspected,
    /// Firmware and settings are what its profile wants.
    Compliant,
    /// Erased, and ready to be used.
    Available,
    /// It is given its operating system and a token to join with.
    Provisioning,
    /// It runs, and is compared with what it should be.
    Verifying,
    /// A verified node of its base cluster.
    InService,
    /// Its pods leave.
    Draining,
    /// Its disks, and whatever else remembers, are erased.
    Wiping,
    /// Erased, and taken from the provisioning service.
    Retired,
    /// Set aside until somebody has looked at it.
    Quarantined,
}

impl MachineState {
    /// All states, in the order of a machine's life.
    pub const ALL: [Self; 13] = [
        Self::Declared,
        Self::Discovered,
        Self::Enrolled,
        Self::Inspected,
        Self::Compliant,
        Self::Available,
        Self::Provisioning,
        Self::Verifying,
        Self::InService,
        Self::Draining,
        Self::Wiping,
        Self::Retired,
        Self::Quarantined,
    ];

    /// As the API and the database write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Discovered => "discovered",
            Self::Enrolled => "enrolled",
            Self::Inspected => "inspected",
            Self::Compliant => "compliant",
            Self::Available => "available",
            Self::Provisioning => "provisioning",
            Self::Verifying => "verifying",
            Self::InService => "in-service",
            Self::Draining => "draining",
            Self::Wiping => "wiping",
            Self::Retired => "retired",
            Self::Quarantined => "quarantined",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether a machine may go from here to there. The store refuses every other change.
    pub fn may_become(self, next: Self) -> bool {
        use MachineState as S;
        match (self, next) {
            (S::Retired | S::Quarantined, S::Quarantined) => false,
            (_, S::Quarantined) => true,
            (from, to) => STEPS.iter().any(|step| step.from == from && step.to.contains(&to)),
        }
    }

    /// Whether its identity was checked and its inventory is its own.
    pub fn is_enrolled(self) -> bool {
        !matches!(self, Self::Declared | Self::Discovered)
    }

    /// Whether the provisioning service may hold something of the machine, so that its declaration cannot just go.
    pub fn is_handed_over(self) -> bool {
        !matches!(self, Self::Declared | Self::Discovered | Self::Enrolled | Self::Retired)
    }

    /// Whether an agent that ran on the machine before counts no more: what it ran in is erased or installed anew, or not to be
    /// trusted.
    pub fn voids_agent(self) -> bool {
        matches!(self, Self::Provisioning | Self::Wiping | Self::Retired | Self::Quarantined)
    }

    /// Whether the machine is, or is becoming, or has just been a node: what holds it then is not taken from it.
    pub fn is_in_use(self) -> bool {
        matches!(self, Self::Provisioning | Self::Verifying | Self::InService | Self::Draining | Self::Wiping)
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One kind of step of the reconciler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// See who answers at the BMC's address.
    Discover,
    /// Check the identity, take the inventory.
    Enrol,
    /// Make the machine known to the provisioning service, and have it inspected.
    Inspect,
    /// Hold firmware and settings against the profile.
    Check,
    /// Erase it and make it available.
    Provide,
    /// Choose its instance: from here on it belongs to a base cluster.
    Assign,
    /// Deploy the image with the data to join; approve the node's certificate.
    Deploy,
    /// Compare the node with the machine; label it, lift the taint.
    Verify,
    /// See that the node is still there and still itself; renew its certificate.
    Watch,
    /// Begin to leave.
    Leave,
    /// Move its pods away.
    Drain,
    /// Take it from the cluster, undeploy, erase.
    Wipe,
    /// Take it from the provisioning service.
    Retire,
    /// Give it up as lost: nothing of it can be erased any more.
    WriteOff,
    /// Set it aside.
    SetAside,
    /// See that no pod goes there and that the provisioning service leaves it alone, until both is confirmed.
    Isolate,
    /// Let it back in.
    Readmit,
}

/// What must be so before a step counts as done. Kept as data: the gates of attestation and probing are named here, and open
/// when their parts exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The firmware profile of the model is met.
    FirmwareCompliant,
    /// Everything that remembers was erased since the last use, or that use was in the same zone with the record complete.
    Erased,
    /// The node is the machine.
    NodeVerified,
    /// The node agent has probed the GPUs. Not part of this version.
    GpusProbed,
    /// The machine's verdict is affirming. Not part of this version.
    Attested,
}

/// What is known of one step.
#[derive(Clone, Copy, Debug)]
pub struct StepInfo {
    /// Which.
    pub step: Step,
    /// In which state it is taken.
    pub from: MachineState,
    /// Which states it may lead to.
    pub to: &'static [MachineState],
    /// What has to hold before it leads there.
    pub gates: &'static [Gate],
    /// How long it usually takes from its first try to its end.
    pub usual: SignedDuration,
    /// What it does, as `why` and `history` say it.
    pub doing: &'static str,
}

macro_rules! steps {
    ($($step:ident: $from:ident => [$($to:ident)*], [$($gate:ident)*], $usual:expr, $doing:literal;)*) => {
        &[$(StepInfo {
            step: Step::$step,
            from: MachineState::$from,
            to: &[$(MachineState::$to),*],
            gates: &[$(Gate::$gate),*],
            usual: $usual,
            doing: $doing,
        }),*]
    };
}

const fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_secs(minutes * 60)
}

/// Every step: from which state it is taken, and where it may lead. The times are those that Ironic's own limits
/// (`deploy_callback_timeout` and its like: 30 minutes) and NICo's states suggest (facts: provisioning §3, §5).
#[rustfmt::skip]
pub const STEPS: &[StepInfo] = steps! {
    Discover: Declared     => [Discovered],                 [],                  minutes(1),  "looking for the BMC";
    Enrol:    Discovered   => [Enrolled],                   [],                  minutes(2),  "checking identity and taking inventory";
    Inspect:  Enrolled     => [Inspected],                  [],                  minutes(10), "inspection by the provisioning service";
    Check:    Inspected    => [Compliant],                  [FirmwareCompliant], minutes(1),  "holding firmware and settings against the profile";
    Provide:  Compliant    => [Available],                  [Erased],            minutes(30), "erasing and making available";
    Assign:   Available    => [Provisioning],               [Erased],            minutes(1),  "choosing the instance";
    Deploy:   Provisioning => [Verifying],                  [],                  minutes(30), "deploying the image and joining";
    Verify:   Verifying    => [InService],                  [NodeVerified],      minutes(5),  "comparing node and machine";
    Watch:    InService    => [],                           [],                  minutes(1),  "watching the node";
    Leave:    Provisioning => [Wiping],                     [],                  minutes(1),  "giving up the deployment";
    Leave:    Verifying    => [Draining],                   [],                  minutes(1),  "leaving the cluster";
    Leave:    InService    => [Draining],                   [],                  minutes(1),  "leaving the cluster";
    Drain:    Draining     => [Wiping Verifying],           [],                  minutes(15), "moving pods away";
    Wipe:     Wiping       => [Available Retired],          [Erased],            minutes(45), "erasing";
    Retire:   Available    => [Retired],                    [Erased],            minutes(2),  "leaving the provisioning service";
    Retire:   Compliant    => [Retired],                    [Erased],            minutes(2),  "leaving the provisioning service";
    Retire:   Inspected    => [Retired],                    [Erased],            minutes(2),  "leaving the provisioning service";
    Retire:   Enrolled     => [Retired],                    [],                  minutes(2),  "leaving the provisioning service";
    Isolate:  Quarantined  => [],                           [],                  minutes(1),  "keeping it apart from pods and from the provisioning service";
    WriteOff: Declared     => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Discovered   => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Enrolled     => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Inspected    => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Compliant    => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Available    => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Provisioning => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Verifying    => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: InService    => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Draining     => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Wiping       => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    WriteOff: Quarantined  => [Retired],                    [],                  minutes(2),  "giving it up as lost";
    Readmit:  Quarantined  => [Inspected Discovered],       [],                  minutes(1),  "coming back from quarantine";
    Readmit:  Retired      => [Discovered],                 [],                  minutes(1),  "coming back from retirement";
};

impl Step {
    /// As the database and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Enrol => "enrol",
            Self::Inspect => "inspect",
            Self::Check => "check",
            Self::Provide => "provide",
            Self::Assign => "assign",
            Self::Deploy => "deploy",
            Self::Verify => "verify",
            Self::Watch => "watch",
            Self::Leave => "leave",
            Self::Drain => "drain",
            Self::Wipe => "wipe",
            Self::Retire => "retire",
            Self::WriteOff => "write-off",
            Self::SetAside => "set-aside",
            Self::Isolate => "isolate",
            Self::Readmit => "readmit",
        }
    }

    /// Whether it is taken because the machine's assignment says so, and not because the machine is declared.
    pub fn follows_an_assignment(self) -> bool {
        match self {
            Self::Discover | Self::Enrol | Self::Inspect | Self::Check | Self::Provide | Self::Watch => false,
            Self::Assign
            | Self::Deploy
            | Self::Verify
            | Self::Leave
            | Self::Drain
            | Self::Wipe
            | Self::Retire
            | Self::WriteOff
            | Self::SetAside
            | Self::Isolate
            | Self::Readmit => true,
        }
    }

    /// What is known of the step when it is taken in this state.
    pub fn info(self, from: MachineState) -> Option<&'static StepInfo> {
        STEPS.iter().find(|info| info.step == self && info.from == from)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The step that a machine takes now toward its goal; `None` where it has reached it. `node_of` is the base cluster that the
/// machine is, or is becoming, a node of.
pub fn next(state: MachineState, goal: &Goal, node_of: Option<&crate::Name>) -> Option<Step> {
    use MachineState as S;
    if *goal == Goal::Lost {
        return (state != S::Retired).then_some(Step::WriteOff);
    }
    if *goal == Goal::Quarantined && state != S::Retired {
        return Some(if state == S::Quarantined { Step::Isolate } else { Step::SetAside });
    }
    let stays = match goal {
        Goal::Serve(cluster) | Goal::Drained(cluster) => node_of == Some(cluster),
        _ => false,
    };
    match state {
        S::Declared => Some(Step::Discover),
        S::Discovered => Some(Step::Enrol),
        // What was used is erased before it goes, on the way that leads to available.
        S::Enrolled | S::Inspected | S::Compliant | S::Available
            if *goal == Goal::Retired && node_of.is_none() =>
        {
            Some(Step::Retire)
        }
        S::Enrolled => Some(Step::Inspect),
        S::Inspected => Some(Step::Check),
        S::Compliant => Some(Step::Provide),
        S::Available => matches!(goal, Goal::Serve(_)).then_some(Step::Assign),
        S::Provisioning => Some(if stays { Step::Deploy } else { Step::Leave }),
        S::Verifying => Some(if stays { Step::Verify } else { Step::Leave }),
        S::InService if stays && matches!(goal, Goal::Serve(_)) => Some(Step::Watch),
        S::InService => Some(Step::Leave),
        S::Draining => Some(Step::Drain),
        S::Wiping => Some(Step::Wipe),
        S::Quarantined => Some(Step::Readmit),
        S::Retired => (*goal != Goal::Retired && *goal != Goal::Quarantined).then_some(Step::Readmit),
    }
}

/// What a machine waits for: `bailiwick why` prints this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Why.
    pub problem: Problem,
    /// Since when this same code has held.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When it is tried again; `null` where only a changed declaration helps.
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
    /// How often it was tried in vain.
    pub attempts: u32,
}

/// What one step of the reconciler ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The machine moved on.
    Advance(MachineState),
    /// Try again after that. A span: when that is, the database's clock says, which all replicas share.
    Wait {
        /// Why.
        problem: Problem,
        /// How long.
        pause: Duration,
    },
    /// Nothing to do until something else changes.
    Done,
    /// Cannot go on until people change something.
    Fail(Problem),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn goals() -> impl Strategy<Value = Goal> {
        prop_oneof![
            Just(Goal::Shelf),
            Just(Goal::Serve(name("a"))),
            Just(Goal::Serve(name("b"))),
            Just(Goal::Drained(name("a"))),
            Just(Goal::Retired),
            Just(Goal::Lost),
            Just(Goal::Quarantined),
        ]
    }

    /// Takes every step to where it leads when all goes well.
    fn walk(mut state: MachineState, goal: &Goal, mut node_of: Option<Name>) -> Vec<MachineState> {
        let mut path = vec![state];
        while let Some(step) = next(state, goal, node_of.as_ref()) {
            let stays = matches!(goal, Goal::Serve(cluster) | Goal::Drained(cluster) if node_of.as_ref() == Some(cluster));
            state = match (step, state) {
                (Step::Watch | Step::Isolate, _) => break,
                (Step::SetAside, _) => MachineState::Quarantined,
                (Step::Drain, _) if stays && matches!(goal, Goal::Drained(_)) => break,
                (Step::Drain, _) if stays => MachineState::Verifying,
                (Step::Wipe, _) if *goal == Goal::Retired => MachineState::Retired,
                (step, from) => step.info(from).unwrap().to[0],
            };
            match state {
                MachineState::Provisioning => {
                    node_of = match goal {
                        Goal::Serve(cluster) => Some(cluster.clone()),
                        _ => node_of,
                    }
                }
                MachineState::Available => node_of = None,
                // What was given up is used until it is erased, should it ever come back.
                MachineState::Retired if *goal != Goal::Lost => node_of = None,
                _ => {}
            }
            assert!(path.last().unwrap().may_become(state), "{:?} → {state:?}", path.last());
            path.push(state);
            assert!(path.len() < 20, "no end: {path:?}");
        }
        path
    }

    proptest! {
        #[test]
        fn from_every_state_every_goal_is_reached_by_allowed_changes(
            state in prop::sample::select(MachineState::ALL.to_vec()), goal in goals(), used in any::<bool>()
        ) {
            let node_of = (used && (state.is_in_use() || state == MachineState::Quarantined)).then(|| name("a"));
            let end = *walk(state, &goal, node_of).last().unwrap();
            let fits = match &goal {
                Goal::Shelf => end == MachineState::Available,
                Goal::Serve(_) => end == MachineState::InService,
                Goal::Drained(_) => matches!(end, MachineState::Draining | MachineState::Available),
                Goal::Retired | Goal::Lost => end == MachineState::Retired,
                Goal::Quarantined => matches!(end, MachineState::Quarantined | MachineState::Retired),
            };
            prop_assert!(fits, "{state:?} toward {goal:?} ends in {end:?}");
        }
    }

    #[test]
    fn no_machine_changes_its_base_cluster_without_being_wiped() {
        let in_use = |state: &MachineState| state.is_in_use() && *state != MachineState::Wiping;
        for state in MachineState::ALL.into_iter().filter(in_use) {
            let path = walk(state, &Goal::Serve(name("b")), Some(name("a")));
            assert!(path.contains(&MachineState::Wiping), "{path:?}");
        }
    }

    #[test]
    fn every_state_reads_back() {
        for state in MachineState::ALL {
            assert_eq!(MachineState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn in_service_is_reached_through_verification_alone() {
        let ways = MachineState::ALL.into_iter().filter(|from| from.may_become(MachineState::InService));
        assert_eq!(ways.collect::<Vec<_>>(), [MachineState::Verifying]);
    }

    #[test]
    fn what_was_used_becomes_available_through_wiping_alone() {
        for from in MachineState::ALL.into_iter().filter(|state| state.is_in_use()) {
            assert_eq!(from.may_become(MachineState::Available), from == MachineState::Wiping, "{from}");
        }
    }
}
