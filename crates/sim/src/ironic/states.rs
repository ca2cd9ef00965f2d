//! Ironic's provision states, its verbs, and which of them it accepts where.
//!
//! Source: the state machine of Ironic 39 (`ironic/common/state_machine.py`, `states.py`), of which the parts that a client can see are
//! told here: what a verb is accepted in, and where a failure leads.

use std::fmt;

use ProvisionState as S;

/// Gives an enumeration of words: the type, its words, and the way back.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value of a word.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where a node is (`provision_state`).
    ProvisionState {
        /// Made, nothing known to work.
        Enroll = "enroll",
        /// The power credentials are tried.
        Verifying = "verifying",
        /// Ironic can manage its power.
        Manageable = "manageable",
        /// Ready to be deployed to.
        Available = "available",
        /// Deployed.
        Active = "active",
        /// Tearing down has failed.
        Error = "error",
        /// A deploy runs.
        Deploying = "deploying",
        /// A deploy waits for the agent.
        WaitCallBack = "wait call-back",
        /// A deploy has failed or was aborted.
        DeployFailed = "deploy failed",
        /// A deploy stands at a `hold` step.
        DeployHold = "deploy hold",
        /// A clean runs.
        Cleaning = "cleaning",
        /// A clean waits for the agent.
        CleanWait = "clean wait",
        /// A clean has failed or was aborted.
        CleanFailed = "clean failed",
        /// A clean stands at a `hold` step.
        CleanHold = "clean hold",
        /// The instance is torn down.
        Deleting = "deleting",
        /// An inspection runs.
        Inspecting = "inspecting",
        /// An inspection waits for the agent.
        InspectWait = "inspect wait",
        /// An inspection has failed or was aborted.
        InspectFailed = "inspect failed",
        /// A machine that runs already is taken over.
        Adopting = "adopting",
        /// Taking over has failed.
        AdoptFailed = "adopt failed",
        /// The rescue environment runs.
        Rescue = "rescue",
        /// The rescue environment is started.
        Rescuing = "rescuing",
        /// Starting it waits for the agent.
        RescueWait = "rescue wait",
        /// Starting it has failed.
        RescueFailed = "rescue failed",
        /// The rescue environment is left.
        Unrescuing = "unrescuing",
        /// Leaving it has failed.
        UnrescueFailed = "unrescue failed",
        /// An active node is serviced.
        Servicing = "servicing",
        /// Servicing waits for the agent.
        ServiceWait = "service wait",
        /// Servicing has failed.
        ServiceFailed = "service failed",
        /// Servicing stands at a `hold` step.
        ServiceHold = "service hold",
    }
}

words! {
    /// What can be asked of a node at `states/provision`.
    Verb {
        /// To manageable: tries the credentials, or leaves available and the failed states.
        Manage = "manage",
        /// To available, through cleaning.
        Provide = "provide",
        /// Reads the hardware.
        Inspect = "inspect",
        /// Deploys.
        Active = "active",
        /// Deploys again.
        Rebuild = "rebuild",
        /// Tears down.
        Deleted = "deleted",
        /// Cleans with given steps.
        Clean = "clean",
        /// Takes over a machine that runs already.
        Adopt = "adopt",
        /// Ends what waits.
        Abort = "abort",
        /// Goes on after a `hold` step.
        Unhold = "unhold",
        /// Starts the rescue environment.
        Rescue = "rescue",
        /// Leaves the rescue environment.
        Unrescue = "unrescue",
        /// Runs steps on an active node.
        Service = "service",
    }
}

words! {
    /// What Ironic does to a node over time; faults name what they apply to by it.
    Operation {
        /// Trying the credentials (after `manage`).
        Verify = "verify",
        /// Reading the hardware.
        Inspect = "inspect",
        /// Cleaning, automated or asked for.
        Clean = "clean",
        /// Deploying, for the first time or again.
        Deploy = "deploy",
        /// Tearing down.
        Undeploy = "undeploy",
        /// Taking over.
        Adopt = "adopt",
        /// Starting the rescue environment.
        Rescue = "rescue",
        /// Leaving it.
        Unrescue = "unrescue",
        /// Servicing.
        Service = "service",
    }
}

words! {
    /// A node's power (`power_state`).
    Power {
        /// It runs.
        On = "power on",
        /// It does not.
        Off = "power off",
    }
}

impl Verb {
    /// A word of the wire, with the synonyms that Ironic 1.73 introduced.
    pub fn from_target(target: &str) -> Option<Self> {
        match target {
            "deploy" => Some(Self::Active),
            "undeploy" => Some(Self::Deleted),
            other => Self::parse(other),
        }
    }
}

impl ProvisionState {
    /// Whether Ironic accepts a verb here.
    pub fn accepts(self, verb: Verb) -> bool {
        match verb {
            Verb::Manage => {
                matches!(self, S::Enroll | S::Available | S::CleanFailed | S::InspectFailed | S::AdoptFailed)
            }
            Verb::Provide | Verb::Clean => self == S::Manageable,
            Verb::Inspect => matches!(self, S::Manageable | S::InspectFailed),
            Verb::Active => matches!(self, S::Available | S::DeployFailed),
            Verb::Rebuild => matches!(self, S::Active | S::Error | S::DeployFailed),
            Verb::Deleted => matches!(
                self,
                S::Active
                    | S::Error
                    | S::Rescue
                    | S::WaitCallBack
                    | S::DeployFailed
                    | S::RescueWait
                    | S::RescueFailed
                    | S::UnrescueFailed
                    | S::ServiceWait
                    | S::ServiceFailed
            ),
            Verb::Adopt => matches!(self, S::Manageable | S::AdoptFailed),
            Verb::Abort => self.aborts_to().is_some(),
            Verb::Unhold => matches!(self, S::CleanHold | S::DeployHold | S::ServiceHold),
            Verb::Rescue => {
                matches!(self, S::Active | S::Rescue | S::RescueFailed | S::UnrescueFailed | S::ServiceFailed)
            }
            Verb::Unrescue => matches!(self, S::Rescue | S::RescueFailed | S::UnrescueFailed),
            Verb::Service => matches!(self, S::Active | S::ServiceFailed | S::ServiceHold),
        }
    }

    /// Where `abort` leads from here.
    pub(crate) fn aborts_to(self) -> Option<Self> {
        match self {
            S::CleanWait | S::CleanHold => Some(S::CleanFailed),
            S::WaitCallBack | S::DeployHold => Some(S::DeployFailed),
            S::InspectWait => Some(S::InspectFailed),
            S::RescueWait => Some(S::RescueFailed),
            S::ServiceWait | S::ServiceHold => Some(S::ServiceFailed),
            S::ServiceFailed => Some(S::Active),
            _ => None,
        }
    }

    /// Whether a conductor holds the node's lock here: it does while it works, and lets go where it waits.
    pub(crate) fn is_locked(self) -> bool {
        matches!(
            self,
            S::Verifying
                | S::Deploying
                | S::Cleaning
                | S::Deleting
                | S::Inspecting
                | S::Adopting
                | S::Rescuing
                | S::Unrescuing
                | S::Servicing
        )
    }

    /// Whether a ramdisk runs here, and its agent is waited for.
    pub(crate) fn waits_for_agent(self) -> bool {
        matches!(self, S::InspectWait | S::CleanWait | S::WaitCallBack | S::RescueWait | S::ServiceWait)
    }

    /// Whether a node may be deleted here without maintenance (with `allow_deleting_available_nodes`, which is Ironic's default).
    pub(crate) fn may_be_deleted(self) -> bool {
        matches!(self, S::Manageable | S::Enroll | S::AdoptFailed | S::Available)
    }

    /// Whether a node that is under way to another state may be changed nevertheless.
    pub(crate) fn may_be_updated(self) -> bool {
        matches!(
            self,
            S::DeployFailed
                | S::Inspecting
                | S::InspectFailed
                | S::InspectWait
                | S::CleanFailed
                | S::Error
                | S::Verifying
                | S::AdoptFailed
                | S::RescueFailed
                | S::UnrescueFailed
                | S::ServiceHold
                | S::ServiceFailed
        )
    }

    /// Whether interfaces of a node may be exchanged here without maintenance.
    pub(crate) fn may_change_interfaces(self) -> bool {
        matches!(self, S::Enroll | S::Inspecting | S::InspectWait | S::Manageable | S::Available)
    }
}

impl Operation {
    /// Where a failure leads.
    pub(crate) fn fails_to(self) -> ProvisionState {
        match self {
            Self::Verify => S::Enroll,
            Self::Inspect => S::InspectFailed,
            Self::Clean => S::CleanFailed,
            Self::Deploy => S::DeployFailed,
            Self::Undeploy => S::Error,
            Self::Adopt => S::AdoptFailed,
            Self::Rescue => S::RescueFailed,
            Self::Unrescue => S::UnrescueFailed,
            Self::Service => S::ServiceFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        assert!(ProvisionState::ALL.iter().all(|s| ProvisionState::parse(s.as_str()) == Some(*s)));
        assert!(Verb::ALL.iter().all(|v| Verb::from_target(v.as_str()) == Some(*v)));
        assert_eq!(Verb::from_target("undeploy"), Some(Verb::Deleted));
        assert_eq!(Verb::from_target("done"), None);
    }

    #[test]
    fn a_node_that_a_conductor_works_on_accepts_no_verb() {
        for state in ProvisionState::ALL.iter().filter(|state| state.is_locked()) {
            assert!(Verb::ALL.iter().all(|verb| !state.accepts(*verb)), "{state}");
        }
    }

    #[test]
    fn no_state_is_a_dead_end() {
        for state in ProvisionState::ALL.iter().filter(|state| !state.is_locked()) {
            assert!(Verb::ALL.iter().any(|verb| state.accepts(*verb)), "{state}");
        }
    }
}
