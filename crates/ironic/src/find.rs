//! Which node is this machine's: so that a node that exists is taken over, and none is made twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::client::{Client, NodeQuery};
use crate::error::Error;
use crate::node::Node;
use crate::port::Mac;
use crate::registration::{BmcPlace, Marks, Registration};

/// By what a machine's node is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's UUID: as last seen, or the one to create it with.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The machine's MAC addresses.
    pub macs: Vec<Mac>,
    /// Where its BMC is.
    pub bmc: Option<BmcPlace>,
    /// The cell, for the mark in `extra`.
    pub cell: String,
    /// The machine, for the mark in `extra`.
    pub machine: String,
}

impl Identity {
    /// The identity that a registration tells.
    pub fn of(registration: &Registration) -> Self {
        Self {
            uuid: registration.uuid,
            name: registration.name.clone(),
            macs: registration.macs.clone(),
            bmc: registration.bmc_place(),
            cell: registration.cell.clone(),
            machine: registration.machine.clone(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// No node is this machine.
    None,
    /// The node of that UUID, or one with our mark.
    Ours(Box<Node>),
    /// A node that somebody else made of this machine.
    Existing(Box<Node>),
    /// Several nodes that may be this machine.
    Ambiguous(Vec<Node>),
}

/// Where the BMCs of all nodes are, read from Ironic once in a while for all machines together: to list all nodes for each
/// machine would cost the square of their number.
#[derive(Clone, Debug)]
pub struct Directory {
    fresh: Duration,
    listing: Arc<Mutex<Option<Listing>>>,
}

#[derive(Debug)]
struct Listing {
    read: Instant,
    by_authority: BTreeMap<String, Vec<(BmcPlace, Uuid)>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl Directory {
    /// A directory that is read again when it is older than `fresh`.
    pub fn new(fresh: Duration) -> Self {
        Self { fresh, listing: Arc::default() }
    }

    async fn nodes_at(&self, client: &Client, place: &BmcPlace) -> Result<Vec<Uuid>, Error> {
        // Held while it is read: whoever comes meanwhile waits for the one reading instead of beginning another.
        let mut listing = self.listing.lock().await;
        let current = match listing.take().filter(|listing| listing.read.elapsed() < self.fresh) {
            Some(current) => current,
            None => Listing { read: Instant::now(), by_authority: read_places(client).await? },
        };
        let found = current
            .by_authority
            .get(&place.authority)
            .into_iter()
            .flatten()
            .filter(|(other, _)| other.may_be(place))
            .map(|(_, uuid)| *uuid)
            .collect();
        *listing = Some(current);
        Ok(found)
    }
}

async fn read_places(client: &Client) -> Result<BTreeMap<String, Vec<(BmcPlace, Uuid)>>, Error> {
    let query = NodeQuery { fields: Some(vec!["driver_info"]), ..NodeQuery::default() };
    let mut places: BTreeMap<String, Vec<(BmcPlace, Uuid)>> = BTreeMap::new();
    for node in client.nodes(&query).await? {
        if let Some(place) = BmcPlace::of(&node) {
            places.entry(place.authority.clone()).or_default().push((place, node.uuid));
        }
    }
    Ok(places)
}

/// Finds a machine's node: by UUID; else by name, MAC addresses and the BMC's place together.
pub async fn find(client: &Client, identity: &Identity, directory: &Directory) -> Result<Found, Error> {
    if let Some(node) = client.node(&identity.uuid.to_string()).await? {
        return Ok(Found::Ours(Box::new(node)));
    }
    let mut nodes: BTreeMap<Uuid, Node> = BTreeMap::new();
    if let Some(node) = client.node(&identity.name).await? {
        nodes.insert(node.uuid, node);
    }
    let mut others: BTreeSet<Uuid> = BTreeSet::new();
    for mac in &identity.macs {
        others.extend(client.ports_with(mac).await?.iter().filter_map(|port| port.node_uuid));
    }
    if let Some(place) = &identity.bmc {
        others.extend(directory.nodes_at(client, place).await?);
    }
    for uuid in others {
        if !nodes.contains_key(&uuid)
            && let Some(node) = client.node(&uuid.to_string()).await?
        {
            nodes.insert(uuid, node);
        }
    }
    Ok(judge(identity, nodes.into_values().collect()))
}

fn judge(identity: &Identity, mut nodes: Vec<Node>) -> Found {
    if nodes.len() > 1 {
        return Found::Ambiguous(nodes);
    }
    let Some(node) = nodes.pop() else { return Found::None };
    let ours = Marks::of(&node).is_some_and(|marks| {
        (marks.cell, marks.machine) == (identity.cell.clone(), identity.machine.clone())
    });
    if ours { Found::Ours(Box::new(node)) } else { Found::Existing(Box::new(node)) }
}
