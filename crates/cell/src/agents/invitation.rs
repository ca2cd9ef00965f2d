//! How a machine that the cell provisions enrols its own agent: with its user data it is given the cell's address and a one-time
//! token (docs/decisions/0020).

use domain::agent::{AgentToken, CellUrl, Enrolment};
use domain::{Digest, Instance, Name};
use std::time::Duration;
use store::{Guard, Store, StoreError, Zeroizing};

/// How long a token is good: the agent may be a pod, which starts when the node has been deployed and verified, and when somebody has
/// installed it there.
const LIFE: Duration = Duration::from_hours(24);

/// Invites the agents of machines.
#[derive(Clone, Debug)]
pub(crate) struct Inviter {
    url: CellUrl,
    authority: Digest,
}

impl Inviter {
    /// To a cell whose agents call there, and whose authority has this pin.
    pub(crate) fn new(url: CellUrl, authority: Digest) -> Self {
        Self { url, authority }
    }

    /// The token of a use of a machine. Derived under the cell's key as bootstrap tokens are: a step that is taken again makes the same
    /// one, and nothing secret is stored.
    fn token(&self, store: &Store, instance: &Instance) -> AgentToken {
        let secret = store.derive("agent token", &instance.id.to_string());
        AgentToken::new(*secret, &self.authority)
    }

    /// From now on the token of this use is good.
    pub(crate) async fn invite(
        &self,
        store: &Store,
        machine: &Name,
        guard: Guard,
        instance: &Instance,
    ) -> Result<(), StoreError> {
        let token = self.token(store, instance).digest();
        store.keep_agent_token(machine, guard, instance, &token, LIFE).await
    }

    /// What the machine is given: the content of the agent's file (`domain::agent::ENROLMENT_FILE`).
    pub(crate) fn file(&self, store: &Store, instance: &Instance) -> Zeroizing<String> {
        let token = self.token(store, instance).reveal();
        let enrolment = Enrolment { cell: self.url.clone(), token };
        // Two texts are JSON.
        Zeroizing::new(serde_json::to_string(&enrolment).unwrap_or_default())
    }
}
