//! Faults of nodes by rule. Faults of requests are [`crate::Fault`]s, at [`super::IronicEndpoint::faults`].

use super::states::{Operation, ProvisionState};
use crate::fault::glob_matches;

/// One rule: which nodes, what happens, how often.
#[derive(Clone, Debug)]
pub struct NodeFault {
    /// A glob over UUID or name; every node if absent.
    pub node: Option<String>,
    /// What happens.
    pub effect: Effect,
    /// How many times more; `None` is without end.
    pub remaining: Option<u32>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The next operation of this kind ends otherwise than asked for.
    Operation {
        /// Which.
        operation: Operation,
        /// How.
        ending: Ending,
    },
    /// Writing requests are answered 409 NodeLocked, as when another conductor holds the node.
    Locked,
    /// A writing request is carried out, and the connection closed without an answer.
    AnswerLost,
    /// A power request reports success, and the machine stays as it is.
    PowerIgnored,
    /// A power request is accepted and fails, with this `last_error`.
    PowerFails {
        /// The reason that the BMC gave.
        reason: String,
    },
}

/// How an operation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// In its failed state.
    Fails {
        /// What `last_error` says: nothing at all too (facts, metal3-ironic.md §8.3).
        last_error: Option<String>,
    },
    /// The node's record is gone.
    Vanishes,
    /// Somebody has taken the node elsewhere.
    EndsIn(ProvisionState),
    /// Well, and Ironic has set maintenance meanwhile.
    Maintenance {
        /// `maintenance_reason`.
        reason: String,
        /// `fault`: `power failure`, `clean failure`, …
        fault: Option<String>,
    },
    /// Never: the node stays in the operation's last state until it is sent elsewhere.
    Stalls,
}

impl NodeFault {
    /// A rule for every node.
    pub fn new(effect: Effect) -> Self {
        Self { node: None, effect, remaining: None }
    }

    /// Operations of this kind fail with this `last_error`.
    pub fn fails(operation: Operation, last_error: Option<&str>) -> Self {
        Self::ending(operation, Ending::Fails { last_error: last_error.map(str::to_owned) })
    }

    /// Operations of this kind end so.
    pub fn ending(operation: Operation, ending: Ending) -> Self {
        Self::new(Effect::Operation { operation, ending })
    }

    /// The same rule for nodes whose UUID or name matches the glob.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// The same rule, so many times only.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.remaining = Some(count);
        self
    }

    fn matches(&self, uuid: &str, name: Option<&str>) -> bool {
        let Some(glob) = &self.node else { return true };
        glob_matches(glob, uuid) || name.is_some_and(|name| glob_matches(glob, name))
    }
}

/// Names a rule, to remove it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFaultId(u64);

/// The rules of an endpoint, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct NodeFaults {
    next: u64,
    rules: Vec<(NodeFaultId, NodeFault)>,
}

impl NodeFaults {
    pub(crate) fn add(&mut self, fault: NodeFault) -> NodeFaultId {
        let id = NodeFaultId(self.next);
        self.next += 1;
        self.rules.push((id, fault));
        id
    }

    pub(crate) fn remove(&mut self, id: NodeFaultId) -> bool {
        let before = self.rules.len();
        self.rules.retain(|(other, _)| *other != id);
        self.rules.len() != before
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Takes the first rule whose effect is wanted, and counts it down.
    pub(crate) fn take<T>(
        &mut self,
        uuid: &str,
        name: Option<&str>,
        wanted: impl Fn(&Effect) -> Option<T>,
    ) -> Option<T> {
        for (_, rule) in &mut self.rules {
            if rule.remaining == Some(0) || !rule.matches(uuid, name) {
                continue;
            }
            if let Some(taken) = wanted(&rule.effect) {
                rule.remaining = rule.remaining.map(|left| left - 1);
                return Some(taken);
            }
        }
        None
    }

    /// What becomes of an operation that begins now. One rule decides: the next one waits for the next time.
    pub(crate) fn ending(&mut self, uuid: &str, name: Option<&str>, began: Operation) -> Option<Ending> {
        self.take(uuid, name, |effect| match effect {
            Effect::Operation { operation, ending } if *operation == began => Some(ending.clone()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_used_up_by_the_nodes_that_it_matches() {
        let mut faults = NodeFaults::default();
        faults.add(NodeFault::fails(Operation::Deploy, None).on("rack1-*").times(1));
        assert_eq!(faults.ending("u2", Some("rack2-a"), Operation::Deploy), None);
        assert_eq!(faults.ending("u1", Some("rack1-a"), Operation::Clean), None);
        assert_eq!(
            faults.ending("u1", Some("rack1-a"), Operation::Deploy),
            Some(Ending::Fails { last_error: None })
        );
        assert_eq!(faults.ending("u1", Some("rack1-a"), Operation::Deploy), None);
    }

    #[test]
    fn a_removed_rule_does_nothing() {
        let mut faults = NodeFaults::default();
        let id = faults.add(NodeFault::new(Effect::Locked));
        assert!(faults.remove(id));
        assert!(!faults.remove(id));
        assert_eq!(faults.take("u", None, |_| Some(())), None);
    }
}
