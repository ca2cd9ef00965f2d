//! Ironic as a provisioning service.

use super::{Deployment, IronicSettings, Progress, Subject, Use, Wait};
use crate::error::coded;
use crate::trouble::Trouble;
use domain::erasure::{Erased, Item, Part};
use domain::fact::Source;
use domain::{Diagnose, Fact, IpmiAddress, Problem};
use ironic::erasure::{self, Outcome, Watch};
use ironic::inventory::Disk;
use ironic::{
    Agent, Authentication, AutomatedClean, Bmc, BootMode, Client, ConfigDrive, Directory, Endpoint, Mac,
    Node, Options, Progress as Stepped, Refusal, Registration, RootDevice, Secret, Step, Task, Trait, Trust,
    VerifyCa, Wish,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Namespace of the UUIDs that nodes are created with: so a creation whose answer was lost is recognised.
const NODES: Uuid = Uuid::from_u128(0x3f0e_51c2_8b1a_4d6e_9c57_64d1_0a2b_7e15);

/// Ironic cleans nothing by itself.
const OFF: AutomatedClean = AutomatedClean::Set(Some(false));

/// One Ironic.
#[derive(Debug)]
pub(crate) struct Ironic {
    client: Client,
    directory: Directory,
    settings: IronicSettings,
}

/// What erasing remembers between two calls.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Erasing {
    /// Tells what is asked for on its behalf from what was asked for before, also of the same use: what a machine was set aside
    /// from, and comes back to, is erased anew.
    id: Uuid,
    /// What was seen since before the release.
    watch: Watch,
    phase: Phase,
    /// What the node said of automated cleaning, before that was switched off for as long as this takes.
    #[serde(default)]
    automated_clean: Option<bool>,
    /// The disks as they were looked at last, and when that was, by Ironic's clock.
    #[serde(default)]
    looked: Option<Looked>,
    /// The steps that we ask for.
    #[serde(default)]
    steps: Vec<Step>,
    /// How often we have asked for steps before: each time is a cleaning of its own.
    #[serde(default)]
    tries: u32,
    /// How often that was for what a cleaning before had not shown.
    #[serde(default)]
    looks: u32,
}

/// What an inspection showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Looked {
    at: Option<Timestamp>,
    disks: Vec<Disk>,
}

/// How often at most; then it is told as not seen. Disks are erased until they are proven to be.
const LOOKS: u32 = 2;

/// Pause between two looks while it is not known what the agent offers: it can be seen while the agent runs, and no longer.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    /// The instance goes, and Ironic cleans as it is configured.
    #[default]
    Release,
    /// The machine's disks are looked at anew: one may have been put in, or taken out, while it was used.
    Look,
    /// What that left is erased by steps that we ask for; the agent's own for GPU memory and TPM among them.
    Clean,
    /// Back to available.
    Return,
    /// Ironic cleans again by itself, as it did.
    Restore,
}

impl Ironic {
    pub(crate) fn new(settings: &IronicSettings) -> Result<Self, Problem> {
        let unreadable = |path: &std::path::Path, error: std::io::Error| {
            coded("cell.provisioner", format!("cannot read {}: {error}", path.display()))
        };
        let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(|error| unreadable(path, error));
        let authentication = match (&settings.username, &settings.password_file) {
            (Some(username), Some(file)) => {
                let password =
                    String::from_utf8_lossy(&read(file)?).trim_end_matches(['\r', '\n']).to_owned();
                Authentication::HttpBasic { username: username.clone(), password: Secret::new(password) }
            }
            (None, None) => Authentication::None,
            _ => {
                return Err(coded("cell.provisioner", "a user name needs a password file, and the reverse"));
            }
        };
        let trust = match &settings.ca_file {
            _ if settings.insecure => Trust::Insecure,
            Some(file) => Trust::Ca(read(file)?),
            // Plain HTTP to this host needs none; HTTPS without a CA is trusted by nobody.
            None => Trust::Ca(Vec::new()),
        };
        let endpoint = Endpoint { url: settings.url.clone(), authentication, trust };
        let mut options = Options::default();
        options.request = settings.answer_within.unwrap_or(options.request);
        let client = Client::new(&endpoint, options).map_err(|error| error.problem())?;
        Ok(Self { client, directory: Directory::default(), settings: settings.clone() })
    }

    pub(crate) async fn inspect(&self, subject: &Subject<'_>) -> Result<Progress<Vec<Fact>>, Trouble> {
        match self.step(subject, Wish::Inspected { after: None }, AutomatedClean::Kept).await? {
            Progress::Reached(Some(node)) => {
                let found = self.client.inventory(node.uuid).await.map_err(trouble)?;
                let found = found.map(|found| facts(&node, &found)).unwrap_or_default();
                Ok(Progress::Reached(found))
            }
            Progress::Reached(None) => Ok(Progress::Acted("the node has gone again".to_owned())),
            Progress::Acted(what) => Ok(Progress::Acted(what)),
            Progress::Waiting(wait) => Ok(Progress::Waiting(wait)),
        }
    }

    pub(crate) async fn erase(
        &self,
        subject: &Subject<'_>,
        use_of: Use<'_>,
        work: &mut Option<Value>,
    ) -> Result<Progress<Vec<Item>>, Trouble> {
        let begun = work.take().and_then(|work| serde_json::from_value(work).ok());
        let mut erasing = begun.unwrap_or_else(|| Erasing { id: Uuid::new_v4(), ..Erasing::default() });
        let outcome = self.erase_on(subject, use_of, &mut erasing).await;
        *work = serde_json::to_value(&erasing).ok();
        outcome
    }

    async fn erase_on(
        &self,
        subject: &Subject<'_>,
        use_of: Use<'_>,
        erasing: &mut Erasing,
    ) -> Result<Progress<Vec<Item>>, Trouble> {
        let watch = &mut erasing.watch;
        match erasing.phase {
            Phase::Release => match self.watched(subject, Wish::Released, AutomatedClean::Kept, watch).await?
            {
                Progress::Reached(Some(node)) => {
                    erasing.automated_clean = node.automated_clean;
                    if !use_of.is_first {
                        erasing.phase = Phase::Look;
                        return Ok(Progress::Acted("asks for the disks to be looked at anew".to_owned()));
                    }
                    let record = self.record(&node, watch).await?;
                    if record.leaves_a_disk() {
                        return Ok(erasing.ask(&record));
                    }
                    Ok(Progress::Reached(items(subject, &record)))
                }
                other => Ok(other.without()),
            },
            // On the way back from it Ironic would clean once more.
            Phase::Look => {
                let after = erasing.looked.as_ref().map_or(watch.since, |looked| looked.at);
                match self.step(subject, Wish::Inspected { after }, OFF).await? {
                    Progress::Reached(Some(node)) => {
                        let record = self.record(&node, watch).await?;
                        let disks = record.disks.iter().map(|found| found.disk.clone()).collect();
                        let looked = Looked { at: node.inspection_finished_at, disks };
                        let before = erasing.looked.replace(looked.clone());
                        if before.is_none_or(|before| before.disks == looked.disks) {
                            return Ok(erasing.ask(&record));
                        }
                        watch.begin_anew(&node);
                        let record = self.record(&node, watch).await?;
                        Ok(erasing.ask(&record))
                    }
                    other => Ok(other.without()),
                }
            }
            Phase::Clean => {
                let request = Uuid::new_v5(&erasing.id, format!("clean {}", erasing.tries).as_bytes());
                let wish = Wish::Cleaned { request, steps: erasing.steps.clone() };
                match self.watched(subject, wish, OFF, watch).await? {
                    Progress::Reached(Some(node)) => {
                        let record = self.record(&node, watch).await?;
                        // A disk that was not proven to be erased is asked for after a pause, see below.
                        if record.leaves_a_disk() || use_of.is_first {
                            erasing.phase = Phase::Return;
                            return Ok(Progress::Acted(
                                "the steps that were asked for have ended".to_owned(),
                            ));
                        }
                        Ok(erasing.ask(&record))
                    }
                    Progress::Waiting(wait) if watch.offered.is_none() => {
                        Ok(Progress::Waiting(Wait { poll: wait.poll.min(LOOK_AGAIN), ..wait }))
                    }
                    other => Ok(other.without()),
                }
            }
            // That the steps were asked for and have ended proves nothing: what was seen of them, or is told by the node's
            // history, does. Where neither does, they are asked for again.
            Phase::Return => match self.step(subject, Wish::Available, OFF).await? {
                Progress::Reached(Some(node)) => {
                    let record = self.record(&node, watch).await?;
                    // Before the first use nobody waits for it, and Ironic cleans again by itself.
                    if record.leaves_a_disk() && !use_of.is_first {
                        erasing.ask::<()>(&record);
                        return Ok(Progress::Reached(items(subject, &record)));
                    }
                    erasing.phase = Phase::Restore;
                    Ok(Progress::Acted("is available again".to_owned()))
                }
                other => Ok(other.without()),
            },
            Phase::Restore => {
                let clean = AutomatedClean::Set(erasing.automated_clean);
                match self.step(subject, Wish::Available, clean).await? {
                    Progress::Reached(Some(node)) => {
                        // Where this is not enough, the disks are looked at once more.
                        erasing.phase = Phase::Look;
                        Ok(Progress::Reached(items(subject, &self.record(&node, watch).await?)))
                    }
                    other => Ok(other.without()),
                }
            }
        }
    }

    pub(crate) async fn deploy(
        &self,
        subject: &Subject<'_>,
        deployment: &Deployment,
    ) -> Result<Progress<()>, Trouble> {
        let wish = Wish::Deployed(Box::new(to_ironic(subject, deployment)?));
        Ok(self.step(subject, wish, AutomatedClean::Kept).await?.map(drop))
    }

    pub(crate) async fn remove(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        Ok(self.step(subject, Wish::Removed { force: false }, AutomatedClean::Kept).await?.map(drop))
    }

    pub(crate) async fn forget(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        Ok(self.step(subject, Wish::Removed { force: true }, AutomatedClean::Kept).await?.map(drop))
    }

    pub(crate) async fn hold(
        &self,
        subject: &Subject<'_>,
        reason: Option<&str>,
        work: Option<&Value>,
    ) -> Result<Progress<bool>, Trouble> {
        let erasing = work.and_then(|work| Erasing::deserialize(work).ok());
        let clean = match erasing.filter(|erasing| reason.is_none() && erasing.phase != Phase::Release) {
            Some(erasing) => AutomatedClean::Set(erasing.automated_clean),
            None => AutomatedClean::Kept,
        };
        let registration = self.registration(subject, clean);
        let identity = ironic::Identity::of(&registration);
        let found = ironic::find::find(&self.client, &identity, &self.directory).await.map_err(trouble)?;
        let node = match found {
            ironic::Found::Ours(node) => node,
            // Not ours yet, and polled all the same; what is somebody else's is left alone.
            ironic::Found::Existing(node) => {
                let wish = Wish::Registered;
                let task =
                    Task { registration: registration.clone(), instances: Vec::new(), wish, retry: false };
                match ironic::drive::next(Some(&node), &[], &task) {
                    ironic::Next::Refuse(refusal) if !matches!(refusal, Refusal::Maintenance { .. }) => {
                        return Err(trouble(refusal.into()));
                    }
                    _ => node,
                }
            }
            ironic::Found::None | ironic::Found::Ambiguous(_) => return Ok(Progress::Reached(false)),
        };
        // An account that was replaced meanwhile has to be known before the service looks at the BMC again.
        let access = registration.access(&node);
        if reason.is_none() && !access.is_empty() {
            self.client.patch_node(node.uuid, &access).await.map_err(trouble)?;
            return Ok(Progress::Acted(format!("patch {}", access.paths().join(", "))));
        }
        match reason {
            Some(reason) if !node.maintenance => {
                let reason = format!("bailiwick: {reason}");
                self.client.begin_maintenance(node.uuid, &reason).await.map_err(trouble)?;
                // Looked at once more: only what is seen is confirmed.
                return Ok(Progress::Acted("begin maintenance".to_owned()));
            }
            // What others put into maintenance is theirs to end.
            None if node.maintenance
                && node.maintenance_reason.as_deref().is_some_and(|why| why.starts_with("bailiwick: ")) =>
            {
                self.client.end_maintenance(node.uuid).await.map_err(trouble)?;
            }
            _ => {}
        }
        Ok(Progress::Reached(true))
    }

    async fn step(
        &self,
        subject: &Subject<'_>,
        wish: Wish,
        clean: AutomatedClean,
    ) -> Result<Progress<Option<Box<Node>>>, Trouble> {
        self.watched(subject, wish, clean, &mut Watch::default()).await
    }

    /// One step; what the node shows is noted.
    async fn watched(
        &self,
        subject: &Subject<'_>,
        wish: Wish,
        clean: AutomatedClean,
        watch: &mut Watch,
    ) -> Result<Progress<Option<Box<Node>>>, Trouble> {
        let registration = self.registration(subject, clean);
        // A failed state is left at every try: how often there is one, the back-off of the lifecycle decides.
        let task = Task { registration, instances: Vec::new(), wish, retry: true };
        let progress = ironic::step(&self.client, &self.directory, &task).await.map_err(trouble)?;
        Ok(match progress {
            Stepped::Reached(node) => {
                if let Some(node) = &node {
                    watch.note(node);
                }
                Progress::Reached(node)
            }
            Stepped::Acted { action, node } => {
                if let Some(node) = &node {
                    watch.note(node);
                }
                Progress::Acted(action)
            }
            Stepped::Waiting { wait, node } => {
                watch.note(&node);
                Progress::Waiting(Wait {
                    what: wait.what.to_owned(),
                    poll: wait.poll_after,
                    usual: wait.usual,
                })
            }
        })
    }

    fn registration(&self, subject: &Subject<'_>, clean: AutomatedClean) -> Registration {
        let machine = subject.machine.as_str();
        let uuid = Uuid::new_v5(&NODES, format!("{}\n{machine}", subject.cell).as_bytes());
        let inventory = subject.inventory;
        let macs = inventory.map(|inventory| inventory.nics.as_slice()).unwrap_or_default();
        let macs = macs.iter().filter_map(|nic| nic.mac.parse::<Mac>().ok()).collect();
        let bmc = match (self.settings.driver.as_deref(), subject.spec.bmc.ipmi()) {
            (None | Some("redfish" | "ipmi"), Some(address)) => Bmc::Ipmi {
                address: address.host,
                port: (address.port != IpmiAddress::PORT).then_some(address.port),
                username: subject.username.to_owned(),
                password: Secret::new(subject.password.as_str()),
                cipher_suite: None,
            },
            (None | Some("redfish" | "ipmi"), None) => Bmc::Redfish {
                address: https(&subject.spec.bmc.address),
                system_id: inventory.and_then(|inventory| inventory.sources.get("identity")).cloned(),
                username: subject.username.to_owned(),
                password: Secret::new(subject.password.as_str()),
                verify_ca: if self.settings.verify_bmc { VerifyCa::System } else { VerifyCa::Off },
            },
            (Some(driver), _) => Bmc::Other { driver: driver.to_owned(), info: serde_json::Map::new() },
        };
        let zone = subject.zone.map(|zone| zone.tier.as_str());
        let traits: BTreeSet<Trait> = [
            Some(Trait::bailiwick(&["jurisdiction", subject.site.jurisdiction.as_str()])),
            Some(Trait::bailiwick(&["site", subject.spec.site.as_str()])),
            zone.map(|tier| Trait::bailiwick(&["zone", tier])),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut interfaces = BTreeMap::new();
        if matches!(bmc, Bmc::Redfish { .. }) {
            interfaces.insert("boot".to_owned(), "redfish-virtual-media".to_owned());
        }
        Registration {
            uuid,
            name: machine.to_owned(),
            cell: subject.cell.to_owned(),
            machine: machine.to_owned(),
            bmc,
            credentials: subject.credentials.clone(),
            interfaces,
            agent: self.settings.agent_iso.clone().map_or(Agent::Default, Agent::Iso),
            boot_mode: BootMode::Uefi,
            cpu_arch: None,
            macs,
            traits,
            owner: None,
            automated_clean: clean,
        }
    }

    /// What was erased, as far as it was seen or is told.
    async fn record(&self, node: &Node, watch: &Watch) -> Result<erasure::Erasure, Trouble> {
        let inspection = self.client.inventory(node.uuid).await.map_err(trouble)?;
        let inventory = inspection.as_ref().map(|found| &found.inventory);
        let history = self.client.history(node.uuid).await.map_err(trouble)?;
        Ok(erasure::record(watch, inventory, &history))
    }
}

impl Erasing {
    /// What this record leaves is asked for; where nothing is, the machine goes back.
    fn ask<T>(&mut self, record: &erasure::Erasure) -> Progress<T> {
        let steps = record.steps_to_ask_for(&self.watch);
        if steps.is_empty() || (!record.leaves_a_disk() && self.looks >= LOOKS) {
            self.phase = Phase::Return;
            return Progress::Acted("nothing is left that it could erase".to_owned());
        }
        self.looks += u32::from(self.watch.offered.is_none() || steps == self.steps);
        self.tries += 1;
        self.phase = Phase::Clean;
        let names: Vec<_> = steps.iter().map(|step| step.step.as_str()).collect();
        let action = format!("asks for {}", names.join(", "));
        self.steps = steps;
        Progress::Acted(action)
    }
}

/// What came of each part. Of which GPUs a step erased the memory, Ironic does not tell: its hardware manager sees them all, or
/// fails.
fn items(subject: &Subject<'_>, record: &erasure::Erasure) -> Vec<Item> {
    let outcome = |outcome: &Outcome| match outcome {
        Outcome::Erased { method } => Erased::Erased { method: method.clone() },
        Outcome::NotErased { reason } => Erased::NotErased { reason: reason.clone() },
    };
    let item = |part, serial, device, erased| Item { part, serial, device, erased };
    let mut items: Vec<_> = record
        .disks
        .iter()
        .map(|found| {
            let (disk, erased) = (found.disk.clone(), outcome(&found.outcome));
            item(Part::Disk, disk.serial, disk.name, erased)
        })
        .collect();
    if items.is_empty() {
        let unknown = record.disks_unknown.clone().map(|reason| Erased::NotErased { reason });
        items.push(item(Part::Disk, None, None, unknown.unwrap_or(Erased::Absent)));
    }
    let memory = outcome(&record.gpu_memory);
    items.extend(gpu_serials(subject).map(|serial| item(Part::GpuMemory, serial, None, memory.clone())));
    items.push(item(Part::Tpm, None, None, outcome(&record.tpm)));
    items
}

/// Of each GPU that the BMC shows; one that nobody knows where it shows none.
fn gpu_serials<'a>(subject: &Subject<'a>) -> impl Iterator<Item = Option<String>> + 'a {
    let gpus = subject.inventory.map(|inventory| inventory.gpus.as_slice()).unwrap_or_default();
    let unknown = gpus.is_empty().then_some(None);
    gpus.iter().map(|gpu| gpu.serial.clone()).chain(unknown)
}

fn to_ironic(subject: &Subject<'_>, deployment: &Deployment) -> Result<ironic::Deployment, Trouble> {
    let mut meta_data =
        json!({ "name": subject.machine, "hostname": subject.machine, "uuid": deployment.instance });
    if let (Value::Object(all), Value::Object(more)) = (&mut meta_data, deployment.meta_data.clone()) {
        all.extend(more);
    }
    let Value::Object(meta_data) = meta_data else {
        return Err(Trouble::Passing(coded("api.internal", "the metadata is no object")));
    };
    Ok(ironic::Deployment {
        instance_uuid: deployment.instance,
        kind: (&deployment.image).into(),
        root_device: RootDevice::default(),
        config_drive: Some(ConfigDrive {
            meta_data,
            user_data: Some(Secret::new(deployment.user_data.as_str())),
            network_data: None,
        }),
    })
}

fn https(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("https://{address}") }
}

/// Taken by value, as `map_err` gives it.
#[allow(clippy::needless_pass_by_value)]
fn trouble(error: ironic::Error) -> Trouble {
    let problem = error.problem();
    if error.is_passing() { Trouble::Passing(problem) } else { Trouble::Lasting(problem) }
}

/// What Ironic's inspection found, as facts.
fn facts(node: &Node, found: &ironic::Inspection) -> Vec<Fact> {
    let at = Timestamp::now();
    let path = format!("/v1/nodes/{}/inventory", node.uuid);
    let inventory = &found.inventory;
    let mut facts = Vec::new();
    let mut add = |key: String, value: Value| {
        if !value.is_null() {
            facts.push(Fact { key, value, source: Source::Ironic, path: path.clone(), at });
        }
    };
    add("identity.manufacturer".into(), json!(inventory.system_vendor.manufacturer));
    add("identity.model".into(), json!(inventory.system_vendor.product_name));
    add("identity.serial".into(), json!(inventory.system_vendor.serial_number));
    add("cpu.model".into(), json!(inventory.cpu.model_name));
    add("cpu.count".into(), json!(inventory.cpu.count));
    add("cpu.architecture".into(), json!(inventory.cpu.architecture));
    add("memoryMiB".into(), json!(inventory.memory.physical_mb));
    for interface in &inventory.interfaces {
        let Some(mac) = &interface.mac_address else { continue };
        add(format!("nics/{mac}/mac"), json!(mac));
        add(format!("nics/{mac}/name"), json!(interface.name));
    }
    for (place, disk) in inventory.disks.iter().enumerate() {
        let key = disk.serial.clone().or_else(|| disk.name.clone()).unwrap_or_else(|| place.to_string());
        add(format!("drives/{key}/serial"), json!(disk.serial));
        add(format!("drives/{key}/model"), json!(disk.model));
        add(format!("drives/{key}/capacityBytes"), json!(disk.size));
    }
    facts
}
