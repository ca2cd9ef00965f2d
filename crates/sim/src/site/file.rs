//! Site files: TOML, unknown fields refused.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use super::{
    DEFAULT_BASE, DEFAULT_USERNAME, Group, Identities, MachineKind, Password, Site, SiteBehaviour, SiteFault,
};
use crate::behaviour::Behaviour;
use crate::error::Error;
use crate::fault::{Action, Fault, Selector};
use crate::host::HostOptions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SiteFile {
    seed: String,
    state_directory: PathBuf,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default = "default_base")]
    base_address: Ipv4Addr,
    #[serde(default)]
    page_size: Option<usize>,
    #[serde(default = "default_username")]
    username: String,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default = "one")]
    latency_scale: f64,
    #[serde(default)]
    hosts: Option<HostsTable>,
    #[serde(default)]
    rack: Vec<RackTable>,
    #[serde(default)]
    fault: Vec<FaultTable>,
    #[serde(default)]
    behaviour: Vec<BehaviourTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HostsTable {
    #[serde(default)]
    ironic_url: Option<String>,
    #[serde(default)]
    firmware_ms: u64,
    #[serde(default)]
    step_ms: u64,
    #[serde(default = "default_heartbeat")]
    heartbeat_ms: u64,
    #[serde(default)]
    agent_tls: bool,
}

impl HostsTable {
    fn options(self) -> HostOptions {
        HostOptions {
            ironic_url: self.ironic_url,
            firmware: Duration::from_millis(self.firmware_ms),
            step: Duration::from_millis(self.step_ms),
            heartbeat: Duration::from_millis(self.heartbeat_ms.max(1)),
            agent_tls: self.agent_tls,
            on_boot: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RackTable {
    name: String,
    #[serde(default)]
    machines: Vec<MachinesTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachinesTable {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    recording: Option<PathBuf>,
    #[serde(default = "single")]
    count: usize,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    identities: Option<Identities>,
    #[serde(default)]
    bootable: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultTable {
    #[serde(default)]
    machines: Option<String>,
    #[serde(default)]
    selector: Selector,
    action: Action,
    #[serde(default)]
    remaining: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BehaviourTable {
    #[serde(default)]
    machines: Option<String>,
    #[serde(default)]
    clock_skew_s: i64,
    #[serde(default)]
    set: serde_json::Map<String, serde_json::Value>,
}

impl BehaviourTable {
    fn change(self) -> Result<SiteBehaviour, Error> {
        let (set, machines) = (serde_json::Value::Object(self.set), self.machines);
        // Tried here, so that a word that no behaviour has is told with the file and not when machines start.
        Behaviour::default().changed(&set).map_err(|error| Error::Site(format!("a behaviour: {error}")))?;
        Ok(SiteBehaviour { machines, set, clock_skew: SignedDuration::from_secs(self.clock_skew_s) })
    }
}

fn default_base() -> Ipv4Addr {
    DEFAULT_BASE
}

fn default_username() -> String {
    DEFAULT_USERNAME.to_owned()
}

fn default_heartbeat() -> u64 {
    3000
}

fn one() -> f64 {
    1.0
}

fn single() -> usize {
    1
}

pub(super) fn read(path: &Path) -> Result<Site, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let file: SiteFile = toml::from_str(&text)
        .map_err(|source| Error::SiteSyntax { path: path.to_owned(), source: Box::new(source) })?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut groups = Vec::new();
    for rack in file.rack {
        for machines in rack.machines {
            groups.push(group(directory, &rack.name, machines)?);
        }
    }
    let password =
        file.password_file.map_or(Password::Generated, |file| Password::File(directory.join(file)));
    let faults = file.fault.into_iter().map(|table| SiteFault {
        machines: table.machines,
        fault: Fault { selector: table.selector, action: table.action, remaining: table.remaining },
    });
    let behaviours = file.behaviour.into_iter().map(BehaviourTable::change).collect::<Result<_, _>>()?;
    Ok(Site {
        seed: file.seed,
        state_directory: directory.join(file.state_directory),
        port: file.port.filter(|port| *port != 0),
        one_listener_each: false,
        base_address: file.base_address,
        page_size: file.page_size,
        username: file.username,
        password,
        latency_scale: file.latency_scale,
        groups,
        faults: faults.collect(),
        hosts: file.hosts.map(HostsTable::options),
        behaviours,
    })
}

fn group(directory: &Path, rack: &str, table: MachinesTable) -> Result<Group, Error> {
    let kind = match (table.model, table.recording) {
        (Some(model), None) => MachineKind::Model(model.parse()?),
        (None, Some(path)) => MachineKind::Recording(directory.join(path)),
        _ => return Err(Error::Site(format!("machines of rack {rack} need either a model or a recording"))),
    };
    let prefix = table.prefix.unwrap_or_else(|| format!("{rack}-u"));
    let (count, identities, bootable) = (table.count, table.identities, table.bootable);
    Ok(Group { rack: rack.to_owned(), prefix, kind, count, identities, bootable })
}
