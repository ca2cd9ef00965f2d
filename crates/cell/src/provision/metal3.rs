//! Baremetal-operator as a provisioning service: the cell writes BareMetalHosts into a management cluster and reads what comes
//! of them.

use super::{Deployment, Metal3Settings, Progress, Subject, Wait};
use crate::base_cluster::connect;
use crate::error::coded;
use crate::trouble::Trouble;
use domain::erasure::{Erased, Item, Part};
use domain::fact::Source;
use domain::{Diagnose, Fact, Name};
use jiff::Timestamp;
use kube::Client;
use metal3::drive::Persistence;
use metal3::{
    BmcAddress, BootMode, Cleaning, Credentials, Inspection, NotAnAddress, Place, Power, Progress as Step,
    Registration, SecretText, Standing, Transport, Wish, bmc_address, ipmi_address,
};
use std::collections::BTreeMap;
use tokio::sync::OnceCell;

/// Name and serial number of each disk.
type Disks = Vec<(String, Option<String>)>;

/// One management cluster.
pub(crate) struct Metal3 {
    settings: Metal3Settings,
    client: OnceCell<Client>,
}

impl std::fmt::Debug for Metal3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metal3").field("namespace", &self.settings.namespace).finish_non_exhaustive()
    }
}

impl Metal3 {
    pub(crate) fn new(settings: &Metal3Settings) -> Self {
        Self { settings: settings.clone(), client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&Client, Trouble> {
        self.client
            .get_or_try_init(|| async {
                let path = &self.settings.kubeconfig;
                let refuse = |why: String| {
                    let message =
                        format!("the management cluster cannot be reached by {}: {why}", path.display());
                    Trouble::Passing(coded("cell.provisioner", message))
                };
                let text = tokio::fs::read_to_string(path).await.map(store::Zeroizing::new);
                let text = text.map_err(|error| refuse(error.to_string()))?;
                connect(&text).await.map(|(client, _)| client).map_err(refuse)
            })
            .await
    }

    pub(crate) async fn inspect(&self, subject: &Subject<'_>) -> Result<Progress<Vec<Fact>>, Trouble> {
        match self.step(subject, &Wish::Inspected).await? {
            Progress::Reached(standing) => {
                let Some(standing) = standing else { return Ok(Progress::Reached(Vec::new())) };
                let found =
                    metal3::facts(self.client().await?, &self.settings.namespace, &standing.name).await;
                let path = format!("HardwareData/{}", standing.name);
                let at = Timestamp::now();
                let facts = found
                    .map_err(trouble)?
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, value)| Fact { key, value, source: Source::Ironic, path: path.clone(), at });
                Ok(Progress::Reached(facts.collect()))
            }
            Progress::Acted(what) => Ok(Progress::Acted(what)),
            Progress::Waiting(wait) => Ok(Progress::Waiting(wait)),
        }
    }

    /// Released and cleaned. What the cleaning erased, baremetal-operator does not tell: a BareMetalHost knows only whether
    /// there is one. It counts for the disks where the settings say that Ironic is configured so.
    pub(crate) async fn erase(&self, subject: &Subject<'_>) -> Result<Progress<Vec<Item>>, Trouble> {
        match self.step(subject, &Wish::Released).await? {
            Progress::Reached(standing) => {
                let disks = match standing {
                    Some(standing) => self.disks(&standing).await?,
                    None => None,
                };
                Ok(Progress::Reached(self.items(disks)))
            }
            Progress::Acted(what) => Ok(Progress::Acted(what)),
            Progress::Waiting(wait) => Ok(Progress::Waiting(wait)),
        }
    }

    /// Name and serial number of each disk; `None` where the hardware was never read.
    async fn disks(&self, standing: &Standing) -> Result<Option<Disks>, Trouble> {
        let facts = metal3::facts(self.client().await?, &self.settings.namespace, &standing.name).await;
        let Some(facts) = facts.map_err(trouble)? else { return Ok(None) };
        let serials = facts.iter().filter(|(key, _)| key.starts_with("disks/") && key.ends_with("/serial"));
        let disks = serials.map(|(key, value)| {
            let device = key.trim_start_matches("disks/").trim_end_matches("/serial").to_owned();
            (device, value.as_str().map(str::to_owned))
        });
        Ok(Some(disks.collect()))
    }

    fn items(&self, disks: Option<Disks>) -> Vec<Item> {
        let erased = || {
            if self.settings.erases_disks {
                Erased::Erased {
                    method: "automated cleaning, by Ironic's configuration as declared to the cell".into(),
                }
            } else {
                let reason = "baremetal-operator tells only that metadata was cleaned".to_owned();
                Erased::NotErased { reason }
            }
        };
        let not = || Erased::NotErased { reason: "baremetal-operator has no step for it".to_owned() };
        let unread = disks.is_none();
        let mut items: Vec<Item> = disks
            .into_iter()
            .flatten()
            .map(|(device, serial)| Item { part: Part::Disk, serial, device: Some(device), erased: erased() })
            .collect();
        if items.is_empty() {
            let unknown = || Erased::NotErased { reason: "the machine's disks were never read".to_owned() };
            let erased = if unread { unknown() } else { Erased::Absent };
            items.push(Item { part: Part::Disk, serial: None, device: None, erased });
        }
        for part in [Part::GpuMemory, Part::Tpm] {
            items.push(Item { part, serial: None, device: None, erased: not() });
        }
        items
    }

    pub(crate) async fn deploy(
        &self,
        subject: &Subject<'_>,
        deployment: &Deployment,
    ) -> Result<Progress<()>, Trouble> {
        let id = format!("i-{}", deployment.instance.simple());
        let id = Name::new(id).map_err(|error| Trouble::Lasting(coded("api.internal", error.to_string())))?;
        let wish = Wish::Provisioned(metal3::Deployment {
            id,
            payload: (&deployment.image).into(),
            power: Power::On,
            user_data: Some(SecretText::new(deployment.user_data.as_str())),
            network_data: None,
            meta_data: Some(SecretText::new(deployment.meta_data.to_string())),
        });
        Ok(match self.step(subject, &wish).await? {
            Progress::Reached(_) => Progress::Reached(()),
            Progress::Acted(what) => Progress::Acted(what),
            Progress::Waiting(wait) => Progress::Waiting(wait),
        })
    }

    pub(crate) async fn remove(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        Ok(match self.step(subject, &Wish::Removed).await? {
            Progress::Reached(_) => Progress::Reached(()),
            Progress::Acted(what) => Progress::Acted(what),
            Progress::Waiting(wait) => Progress::Waiting(wait),
        })
    }

    pub(crate) async fn hold(&self, subject: &Subject<'_>, on: bool) -> Result<Progress<()>, Trouble> {
        let (client, namespace) = (self.client().await?, &self.settings.namespace);
        let registration = self.registration(subject)?;
        let seen = metal3::observe(client, namespace, &registration).await.map_err(trouble)?;
        if let Ok(seen) = seen
            && let Some(host) = seen.host
        {
            if on {
                metal3::pause(client, namespace, &host.name).await.map_err(trouble)?;
            } else {
                metal3::unpause(client, namespace, &host.name).await.map_err(trouble)?;
            }
        }
        Ok(Progress::Reached(()))
    }

    async fn step(&self, subject: &Subject<'_>, wish: &Wish) -> Result<Progress<Option<Standing>>, Trouble> {
        let registration = self.registration(subject)?;
        let progress =
            metal3::step(self.client().await?, &self.settings.namespace, &registration, wish).await;
        match progress.map_err(trouble)? {
            Step::Reached(standing) => Ok(Progress::Reached(standing)),
            Step::Acted(action) => {
                Ok(Progress::Acted(format!("{} {}/{}", action.verb, action.kind, action.name)))
            }
            Step::Waiting { problem, poll_after, usual, .. } => {
                Ok(Progress::Waiting(Wait { what: problem.message, poll: poll_after, usual }))
            }
            Step::Refused { problem, persistence: Persistence::Passing, .. } => {
                Err(Trouble::Passing(problem))
            }
            Step::Refused { problem, persistence: Persistence::Lasting, .. } => {
                Err(Trouble::Lasting(problem))
            }
        }
    }

    fn registration(&self, subject: &Subject<'_>) -> Result<Registration, Trouble> {
        let internal = |error: String| Trouble::Lasting(coded("api.internal", error));
        let inventory = subject.inventory;
        let address = address(subject)?;
        // An owner is a DNS label; the cell's identity is sixteen hexadecimal digits.
        let cell = Name::new(subject.cell).map_err(|error| internal(error.to_string()))?;
        Ok(Registration {
            cell,
            machine: subject.machine.clone(),
            address,
            verify_certificate: self.settings.verify_bmc,
            credentials: Some(Credentials {
                username: subject.username.to_owned(),
                password: SecretText::new(subject.password.as_str()),
            }),
            boot_mac: inventory.and_then(|inventory| inventory.nics.first()).map(|nic| nic.mac.clone()),
            boot_mode: BootMode::Uefi,
            inspection: if self.settings.inspect { Inspection::Agent } else { Inspection::Disabled },
            cleaning: if self.settings.clean { Cleaning::Metadata } else { Cleaning::Disabled },
            idle_power: Power::Off,
            root_device: BTreeMap::new(),
            place: Place {
                jurisdiction: subject.site.jurisdiction.clone(),
                site: subject.spec.site.clone(),
                zone_tier: subject.zone.map_or("none", |zone| zone.tier.as_str()).to_owned(),
                zone_handling: subject
                    .zone
                    .and_then(|zone| zone.handling)
                    .map(|handling| handling.as_str().to_owned()),
                model: inventory.and_then(|inventory| inventory.identity.model.clone()),
            },
            known_uid: None,
        })
    }
}

/// Where the operator reaches the machine's BMC.
fn address(subject: &Subject<'_>) -> Result<BmcAddress, Trouble> {
    let internal = |error: NotAnAddress| Trouble::Lasting(coded("api.internal", error.to_string()));
    if let Some(ipmi) = subject.spec.bmc.ipmi() {
        return ipmi_address(&ipmi.shared()).map_err(internal);
    }
    let inventory = subject.inventory;
    let system = inventory.and_then(|inventory| inventory.sources.get("identity")).map(String::as_str);
    let Some(system) = system else {
        return Err(Trouble::Passing(coded("machine.unidentified", "the machine's system was never read")));
    };
    let authority = subject.spec.bmc.address.trim_start_matches("https://").trim_end_matches('/');
    bmc_address(Transport::Https, authority, system).map_err(internal)
}

/// Taken by value, as `map_err` gives it.
#[allow(clippy::needless_pass_by_value)]
fn trouble(error: metal3::Error) -> Trouble {
    let problem = error.problem();
    if error.is_passing() { Trouble::Passing(problem) } else { Trouble::Lasting(problem) }
}
