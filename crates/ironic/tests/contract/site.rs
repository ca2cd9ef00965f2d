//! What the contract is tried on, and the few moves that all its tests are made of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bailiwick_ironic::{
    Agent, Authentication, AutomatedClean, Bmc, BootMode, Client, DeployKind, Deployment, Directory,
    Endpoint, Error, Mac, Node, Options, Progress, Registration, RootDevice, Task, Trait, Trust, Wish, step,
};
use serde_json::Map;
use uuid::Uuid;

/// One transition of `fake-hardware` takes less than a second; a laptop under load may need longer.
const PATIENCE: Duration = Duration::from_mins(4);

const POLL: Duration = Duration::from_millis(100);

/// An Ironic, real or simulated.
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) authentication: Authentication,
}

impl Site {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), authentication: Authentication::None }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(Options::default())
    }

    pub(crate) fn client_with(&self, options: Options) -> Client {
        let endpoint = Endpoint {
            url: self.url.clone(),
            authentication: self.authentication.clone(),
            trust: Trust::Ca(Vec::new()),
        };
        Client::new(&endpoint, options).unwrap()
    }
}

/// A machine that no test shares with another.
pub(crate) fn machine() -> Registration {
    let uuid = Uuid::new_v4();
    let name = format!("m-{}", uuid.simple());
    let interfaces = ["bios", "boot", "deploy", "inspect", "management", "power", "raid", "vendor"];
    Registration {
        uuid,
        machine: name.clone(),
        name,
        cell: "eu".to_owned(),
        bmc: Bmc::Other { driver: "fake-hardware".to_owned(), info: Map::new() },
        credentials: "v1".to_owned(),
        interfaces: interfaces.map(|interface| (interface.to_owned(), "fake".to_owned())).into(),
        agent: Agent::Default,
        boot_mode: BootMode::Uefi,
        cpu_arch: Some("x86_64".to_owned()),
        macs: vec![mac_of(uuid)],
        traits: BTreeSet::from([Trait::bailiwick(&["jurisdiction", "fr"])]),
        owner: None,
        automated_clean: AutomatedClean::Set(Some(false)),
    }
}

fn mac_of(uuid: Uuid) -> Mac {
    let bytes = uuid.as_bytes();
    let tail: Vec<String> = bytes[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("02:{}", tail.join(":")).parse().unwrap()
}

pub(crate) fn task(registration: &Registration, wish: Wish) -> Task {
    Task { registration: registration.clone(), instances: Vec::new(), wish, retry: false }
}

/// A deployment that needs no hardware.
pub(crate) fn deployment() -> Deployment {
    Deployment {
        instance_uuid: Uuid::new_v4(),
        kind: DeployKind::Other { interface: "fake".to_owned(), info: Map::new() },
        root_device: RootDevice::default(),
        config_drive: None,
    }
}

pub(crate) fn deployed(deployment: &Deployment) -> Wish {
    Wish::Deployed(Box::new(deployment.clone()))
}

/// What was done and seen on the way to a wish.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) acted: Vec<String>,
    pub(crate) nodes: Vec<Node>,
}

/// Steps until the wish holds. Every step is made by a client of its own, as after a crash.
pub(crate) async fn reach(site: &Site, task: &Task) -> Result<(Option<Box<Node>>, Way), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut way = Way::default();
    loop {
        assert!(Instant::now() < deadline, "{:?} is not reached: {way:?}", task.wish);
        match step(&site.client(), &Directory::default(), task).await {
            Ok(Progress::Reached(node)) => return Ok((node, way)),
            Ok(Progress::Acted { action, node }) => {
                way.acted.push(action);
                way.nodes.extend(node.map(|node| *node));
            }
            Ok(Progress::Waiting { node, .. }) => {
                way.nodes.push(*node);
                tokio::time::sleep(POLL).await;
            }
            // The node went on between observing and acting.
            Err(Error::Conflict { .. } | Error::InvalidState { .. } | Error::Busy { .. }) => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) if sqlite_is_busy(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether it is the database of a real Ironic here, which takes one writer at a time.
pub(crate) fn sqlite_is_busy(error: &Error) -> bool {
    matches!(error, Error::Server { message, .. } if message.contains("database is locked"))
}

/// The same where it must be reached.
pub(crate) async fn bring(site: &Site, registration: &Registration, wish: Wish) -> Box<Node> {
    let (node, _way) = reach(site, &task(registration, wish)).await.unwrap();
    node.unwrap()
}

/// Waits until something holds of a node.
pub(crate) async fn until(site: &Site, node: Uuid, holds: impl Fn(&Node) -> bool) -> Node {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let node = site.client().node(&node.to_string()).await.unwrap().unwrap();
        if holds(&node) {
            return node;
        }
        assert!(Instant::now() < deadline, "{node:?}");
        tokio::time::sleep(POLL).await;
    }
}
