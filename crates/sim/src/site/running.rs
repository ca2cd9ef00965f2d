//! A site that serves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;

use super::state::State;
use super::{Group, Identities, MachineKind, Site, SiteBehaviour, SiteFault};
use crate::behaviour::Behaviour;
use crate::bmc::{Bmc, Parts};
use crate::error::Error;
use crate::fault::{Faults, glob_matches};
use crate::host::Services;
use crate::seed::Seed;
use crate::server::{Routes, Tasks, listen_on, listen_on_loopback, serve};
use crate::tls::KeyStore;
use crate::tree::Tree;

/// One simulated machine as an operator would write it down.
#[derive(Clone, Debug)]
pub struct SimMachine {
    /// Its name, a DNS label.
    pub name: String,
    /// Its rack.
    pub rack: String,
    /// The address of its BMC, in 127.0.0.0/8.
    pub address: Ipv4Addr,
    /// The port of its BMC, the same for all machines of a site.
    pub port: u16,
    /// `https://ADDRESS:PORT`.
    pub url: String,
    /// The model's name, or the recording's.
    pub model: String,
    /// `SerialNumber` of its host system; empty where there is none.
    pub serial: String,
    /// `SKU` of its host system (the service tag on Dell's, quirk 27); empty where there is none.
    pub sku: String,
    /// `UUID` of its host system; empty where there is none.
    pub uuid: String,
    /// Whose name opens its BMC.
    pub username: String,
    /// What opens its BMC.
    pub password: String,
    /// The pin of its BMC's key when the site started: `sha256:` and hex.
    pub pin: String,
}

/// A site that serves; dropping it ends all connections.
#[derive(Debug)]
pub struct RunningSite {
    machines: Vec<SimMachine>,
    bmcs: HashMap<String, Arc<Bmc>>,
    faults: Arc<Faults>,
    port: u16,
    password_file: PathBuf,
    tasks: Tasks,
}

impl RunningSite {
    /// The machines, in the order of their addresses.
    pub fn machines(&self) -> &[SimMachine] {
        &self.machines
    }

    /// The BMC of the machine of this name.
    pub fn bmc(&self, name: &str) -> Option<&Arc<Bmc>> {
        self.bmcs.get(name)
    }

    /// The rules that all BMCs share.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The port of all BMCs.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file, readable by its owner only, that holds the password of all BMCs.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// Ends all connections and waits for that.
    pub async fn shutdown(self) {
        self.tasks.shut_down().await;
    }
}

pub(super) async fn start(site: Site) -> Result<RunningSite, Error> {
    // Keys, recordings and files: nothing for the threads that serve.
    let tasks = Tasks::new();
    let hosts = site.hosts.clone().map(|hosts| Services::new(hosts, site.latency_scale, tasks.handle()));
    let hosts = hosts.transpose()?;
    let prepared = tokio::task::spawn_blocking(move || Prepared::new(&site, hosts.as_ref())).await;
    let prepared =
        prepared.map_err(|error| Error::Site(format!("the site could not be prepared: {error}")))??;
    let listeners = prepared.listen()?;
    let Some(first) = listeners.first() else {
        return Err(Error::Site("a site needs at least one machine".to_owned()));
    };
    let port = port_of(first)?;
    prepared.state.remember_port(port)?;
    let by_address = prepared.bmcs.iter().map(|(address, bmc)| (*address, Arc::clone(bmc))).collect();
    let routes = Routes::ByAddress(Arc::new(by_address));
    for listener in listeners {
        serve(&tasks, listener, routes.clone());
    }
    let mut machines = prepared.machines;
    for machine in &mut machines {
        machine.port = port;
        machine.url = format!("https://{}:{port}", machine.address);
    }
    let bmcs = prepared.bmcs.into_iter().map(|(_, bmc)| (bmc.name().to_owned(), bmc)).collect();
    let (faults, password_file) = (prepared.faults, prepared.password_file);
    Ok(RunningSite { machines, bmcs, faults, port, password_file, tasks })
}

/// All that can be made before there is a port.
struct Prepared {
    state: State,
    port: Option<u16>,
    one_listener_each: bool,
    machines: Vec<SimMachine>,
    bmcs: Vec<(Ipv4Addr, Arc<Bmc>)>,
    faults: Arc<Faults>,
    password_file: PathBuf,
}

impl Prepared {
    fn new(site: &Site, hosts: Option<&Arc<Services>>) -> Result<Self, Error> {
        check(site)?;
        let state = State::open(&site.state_directory)?;
        let (password, password_file) = state.password(&site.password)?;
        let store = KeyStore::open(state.keys())?;
        let faults = Arc::new(Faults::default());
        for rule in site.faults.iter().filter(|rule| rule.machines.is_none()) {
            faults.add(rule.fault.clone());
        }
        let mut trees = Trees::new(site);
        let (mut machines, mut bmcs) = (Vec::new(), Vec::new());
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for group in &site.groups {
            let (tree, behaviour) = trees.of(group)?;
            for _ in 0..group.count {
                let number = numbers.entry(&group.prefix).or_default();
                *number += 1;
                let name = format!("{}{:02}", group.prefix, *number);
                let address = nth_address(site.base_address, bmcs.len());
                let addresses = vec![IpAddr::V4(address)];
                let changes: Vec<&SiteBehaviour> = site.changes(&name).collect();
                let identity = store.load_or_generate(&name, &addresses)?;
                let pin = identity.pin().to_owned();
                let bmc = Bmc::new(Parts {
                    seed: Seed::new(&[&site.seed, &name]),
                    tree: Arc::clone(&tree),
                    behaviour: changed(&behaviour, &changes)?,
                    username: site.username.clone(),
                    password: password.clone(),
                    site_faults: Arc::clone(&faults),
                    latency_scale: site.latency_scale,
                    store: Some(store.clone()),
                    hosts: hosts.filter(|_| site.boots(group)).cloned(),
                    name,
                    identity,
                    addresses,
                });
                add_faults(&bmc, &site.faults);
                if let Some(change) = changes.iter().rev().find(|change| !change.clock_skew.is_zero()) {
                    bmc.set_clock_skew(change.clock_skew);
                }
                machines.push(describe(&bmc, group, address, pin));
                bmcs.push((address, bmc));
            }
        }
        let (port, one_listener_each) = (site.port, site.one_listener_each);
        Ok(Self { state, port, one_listener_each, machines, bmcs, faults, password_file })
    }

    /// Listens on the port that the site names; else on that of the run before, if it is free; else on one that the system chooses.
    fn listen(&self) -> Result<Vec<TcpListener>, Error> {
        if let Some(port) = self.port {
            return self.listen_at(port);
        }
        match self.state.port().map(|port| self.listen_at(port)) {
            Some(Ok(listeners)) => Ok(listeners),
            _ => self.listen_at(0),
        }
    }

    /// One listener for all machines; where the system does not hold a socket to its loopback device, one for each.
    fn listen_at(&self, port: u16) -> Result<Vec<TcpListener>, Error> {
        if !self.one_listener_each {
            match listen_on_loopback(port) {
                Ok(listener) => return Ok(vec![listener]),
                Err(source) if source.kind() == std::io::ErrorKind::AddrInUse => {
                    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                    return Err(Error::Listen { address, hint: "something else has this port", source });
                }
                Err(error) => {
                    tracing::info!(%error, "no socket held to the loopback device: one listener a machine");
                }
            }
        }
        let (mut listeners, mut port) = (Vec::with_capacity(self.bmcs.len()), port);
        for (address, _) in &self.bmcs {
            let listener = listen_on(SocketAddr::from((*address, port)))?;
            port = port_of(&listener)?;
            listeners.push(listener);
        }
        Ok(listeners)
    }
}

fn port_of(listener: &TcpListener) -> Result<u16, Error> {
    let address = listener.local_addr();
    address
        .map(|address| address.port())
        .map_err(|error| Error::Site(format!("the listener has no port: {error}")))
}

fn check(site: &Site) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Site(reason));
    let count = site.machine_count();
    if count == 0 {
        return refuse("a site needs at least one machine".to_owned());
    }
    let first = u32::from(site.base_address);
    let last = u32::try_from(count - 1).ok().and_then(|more| first.checked_add(more));
    if !site.base_address.is_loopback() || !last.is_some_and(|last| Ipv4Addr::from(last).is_loopback()) {
        let reason = format!("{count} machines from {} on do not fit into 127.0.0.0/8", site.base_address);
        return refuse(reason);
    }
    for group in &site.groups {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let starts = group
            .prefix
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !starts || !group.prefix.bytes().all(allowed) || group.prefix.len() > 55 {
            return refuse(format!("machines cannot be named {}NN: names are DNS labels", group.prefix));
        }
    }
    if !(site.latency_scale.is_finite() && site.latency_scale >= 0.0) {
        return refuse("latency-scale must be a number that is not negative".to_owned());
    }
    if site.page_size == Some(0) {
        return refuse("page-size must be at least 1".to_owned());
    }
    Ok(())
}

/// The address `n` after the base; [`check`] has seen that it is loopback.
fn nth_address(base: Ipv4Addr, n: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base).saturating_add(u32::try_from(n).unwrap_or(u32::MAX)))
}

fn add_faults(bmc: &Bmc, faults: &[SiteFault]) {
    for rule in faults {
        if rule.machines.as_ref().is_some_and(|glob| glob_matches(glob, bmc.name())) {
            bmc.add_fault(rule.fault.clone());
        }
    }
}

/// A model's behaviour, its own where the site changes nothing.
fn changed(behaviour: &Arc<Behaviour>, changes: &[&SiteBehaviour]) -> Result<Arc<Behaviour>, Error> {
    let mut out = Arc::clone(behaviour);
    for change in changes {
        let changed = out.changed(&change.set);
        out = Arc::new(changed.map_err(|error| Error::Site(format!("a behaviour: {error}")))?);
    }
    Ok(out)
}

fn describe(bmc: &Bmc, group: &Group, address: Ipv4Addr, pin: String) -> SimMachine {
    let host = bmc.tree().host_system().and_then(|path| bmc.resource(&path)).unwrap_or_default();
    let text =
        |property: &str| host.get(property).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    SimMachine {
        name: bmc.name().to_owned(),
        rack: group.rack.clone(),
        address,
        port: 0,
        url: String::new(),
        model: match &group.kind {
            MachineKind::Model(model) => model.name().to_owned(),
            MachineKind::Recording(path) => {
                path.file_name().unwrap_or_default().to_string_lossy().trim_end_matches(".tar.gz").to_owned()
            }
            MachineKind::Tree { name, .. } => name.clone(),
        },
        serial: text("SerialNumber"),
        sku: text("SKU"),
        uuid: text("UUID"),
        username: bmc.username(),
        password: bmc.password(),
        pin,
    }
}

/// A tree and how its firmware behaves.
type Built = (Arc<Tree>, Arc<Behaviour>);

/// The trees of a site, each built once.
struct Trees<'a> {
    site: &'a Site,
    built: HashMap<(String, Identities, bool), Built>,
}

impl<'a> Trees<'a> {
    fn new(site: &'a Site) -> Self {
        Self { site, built: HashMap::new() }
    }

    fn of(&mut self, group: &Group) -> Result<Built, Error> {
        let boots = self.site.boots(group);
        let key = match &group.kind {
            MachineKind::Model(model) => model.name().to_owned(),
            MachineKind::Recording(path) => path.display().to_string(),
            MachineKind::Tree { tree, behaviour, .. } => {
                let tree = if boots { Arc::new(tree.bootable()) } else { Arc::clone(tree) };
                return Ok((tree, Arc::clone(behaviour)));
            }
        };
        let identities = group.identities.unwrap_or_else(|| self.identities(&group.kind));
        if let Some(built) = self.built.get(&(key.clone(), identities, boots)) {
            return Ok(built.clone());
        }
        let (tree, behaviour) = match &group.kind {
            MachineKind::Model(model) => {
                let size = self.site.page_size.unwrap_or_else(|| model.page_size());
                (model.tree_paged(size), model.behaviour())
            }
            MachineKind::Recording(path) => {
                let mut tree = Tree::from_tar_gz(path)?;
                if identities == Identities::Derived {
                    tree = tree.with_derived_identities();
                }
                if let Some(size) = self.site.page_size {
                    tree = tree.paged(size);
                }
                (tree, Behaviour::default())
            }
            MachineKind::Tree { .. } => return Err(Error::Site("a tree needs no building".to_owned())),
        };
        let tree = if boots { tree.bootable() } else { tree };
        let built = (tree.shared(), Arc::new(behaviour));
        self.built.insert((key, identities, boots), built.clone());
        Ok(built)
    }

    /// A recording shown by one machine is that machine; shown by several, each is its own.
    fn identities(&self, kind: &MachineKind) -> Identities {
        let MachineKind::Recording(path) = kind else { return Identities::Derived };
        let same = |group: &&Group| matches!(&group.kind, MachineKind::Recording(other) if other == path);
        let shown: usize = self.site.groups.iter().filter(same).map(|group| group.count).sum();
        if shown > 1 { Identities::Derived } else { Identities::Recorded }
    }
}
