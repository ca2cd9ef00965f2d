//! One step with one node: observe, do at most one thing, say what is waited for.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::client::{Client, Provision};
use crate::drive::{self, Action, Next, Task, Wait};
use crate::error::Error;
use crate::find::{Directory, Found, Identity, find};
use crate::history::HistoryEvent;
use crate::node::Node;
use crate::refusal::Refusal;

/// What a step came to. The caller keeps [`Node::uuid`] as the registration's UUID from then on: a node taken over has one
/// that the caller did not choose.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The wish holds; the node, unless it was to be removed.
    Reached(Option<Box<Node>>),
    /// One thing was done: step again at once.
    Acted {
        /// What, for people and for the record.
        action: String,
        /// The node before it was done; `None` before it was created.
        node: Option<Box<Node>>,
    },
    /// Nothing to do for a while.
    Waiting {
        /// What is waited for, how long it usually takes, when to look again.
        wait: Wait,
        /// The node as observed; feed it to [`crate::erasure::Watch`] while it is cleaned.
        node: Box<Node>,
    },
}

/// Takes one step. An [`Error::Refused`] says why nothing is done; other errors say that Ironic could not be asked or
/// refused. After any error, and after a drop, step again: nothing is remembered but what is at the node.
pub async fn step(client: &Client, directory: &Directory, task: &Task) -> Result<Progress, Error> {
    let node = match find(client, &Identity::of(&task.registration), directory).await? {
        Found::None => None,
        Found::Ours(node) | Found::Existing(node) => Some(node),
        Found::Ambiguous(nodes) => {
            let nodes = nodes.iter().map(|node| format!("{} ({})", node.label(), node.uuid)).collect();
            return Err(Refusal::Ambiguous { nodes }.into());
        }
    };
    let ports = match &node {
        Some(node) if drive::needs_ports(&node.provision_state) => client.ports_of(node.uuid).await?,
        _ => Vec::new(),
    };
    match (drive::next(node.as_deref(), &ports, task), node) {
        (Next::Do(action), node) => {
            let summary = action.summary();
            tracing::debug!(node = %task.registration.name, action = summary, "Ironic is told");
            match (perform(client, node.as_deref(), &action).await, node) {
                (Ok(()), node) => Ok(Progress::Acted { action: summary, node }),
                (Err(Error::NodeLocked { .. }), Some(node)) => {
                    Ok(Progress::Waiting { wait: drive::locked(), node })
                }
                (Err(error), _) => Err(error),
            }
        }
        (Next::Wait(wait), Some(node)) => Ok(Progress::Waiting { wait, node }),
        (Next::Tell { refusal, note }, Some(node)) => {
            // Not noted, it is told once more.
            if let Err(error) = client.patch_node(node.uuid, &note).await {
                tracing::debug!(node = %task.registration.name, code = error.code(), "a failure is not noted");
            }
            Err(reasoned(client, &node, refusal).await.into())
        }
        (Next::Refuse(refusal), Some(node)) => Err(reasoned(client, &node, refusal).await.into()),
        (Next::Refuse(refusal) | Next::Tell { refusal, .. }, _) => Err(refusal.into()),
        (Next::Reached | Next::Wait(_), node) => Ok(Progress::Reached(node)),
    }
}

/// A failure with its reason: where `last_error` is lost (facts/metal3-ironic §8.3), Ironic's history may have it, from about
/// the time at which the node failed.
async fn reasoned(client: &Client, node: &Node, refusal: Refusal) -> Refusal {
    const ABOUT: SignedDuration = SignedDuration::from_mins(5);
    let failed_at: Option<Timestamp> = node.provision_updated_at.as_deref().and_then(|at| at.parse().ok());
    let (true, Some(failed_at)) = (refusal.lacks_reason(), failed_at) else { return refusal };
    let history = client.history(node.uuid).await.unwrap_or_default();
    let of_this = |event: &HistoryEvent| {
        event.is_error() && event.created_at.is_some_and(|at| at.duration_since(failed_at).abs() <= ABOUT)
    };
    match history.into_iter().rfind(of_this) {
        Some(event) => refusal.with_reason(format!("{} (from the node's history)", event.event)),
        None => refusal,
    }
}

async fn perform(client: &Client, node: Option<&Node>, action: &Action) -> Result<(), Error> {
    if let Action::CreateNode(new) = action {
        return client.create_node(new).await.map(drop);
    }
    let Some(node) = node else {
        return Err(Error::NotFound { message: "there is no node to act on".to_owned() });
    };
    let uuid = node.uuid;
    match action {
        Action::CreateNode(_) => Ok(()),
        Action::CreatePort { mac, pxe_enabled } => {
            client.create_port(uuid, mac, *pxe_enabled).await.map(drop)
        }
        Action::SetTraits(traits) => client.set_traits(uuid, traits).await,
        Action::Patch(patch) => client.patch_node(uuid, patch).await.map(drop),
        Action::Reconnect(patch) => {
            client.patch_node(uuid, patch).await?;
            client.provision(uuid, &Provision::Manage).await
        }
        Action::Provision(provision) => {
            if matches!(provision, Provision::Active { .. }) {
                check(client, uuid).await?;
            }
            client.provision(uuid, provision).await
        }
        Action::BeginMaintenance { reason } => client.begin_maintenance(uuid, reason).await,
        Action::EndMaintenance => client.end_maintenance(uuid).await,
        Action::DeleteNode => client.delete_node(uuid).await,
    }
}

/// Ironic accepts a deploy that it knows cannot work and fails it later; its validation tells before.
async fn check(client: &Client, node: Uuid) -> Result<(), Error> {
    const MATTER: [&str; 4] = ["deploy", "boot", "power", "management"];
    let found = client.validate(node).await?;
    let wrong = found.into_iter().find(|validation| {
        validation.result == Some(false) && MATTER.contains(&validation.interface.as_str())
    });
    match wrong {
        None => Ok(()),
        Some(validation) => Err(Error::NodeInvalid {
            interface: validation.interface,
            reason: validation.reason.unwrap_or_else(|| "no reason is told".to_owned()),
        }),
    }
}
