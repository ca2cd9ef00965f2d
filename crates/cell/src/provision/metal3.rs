//! Baremetal-operator as a provisioning service: the cell writes BareMetalHosts into a management cluster and reads what comes
//! of them.

use super::{Deployment, Metal3Settings, Progress, Subject, Use, Wait};
use crate::base_cluster::connect;
use crate::error::coded;
use crate::trouble::Trouble;
use domain::base_cluster::Image;
use domain::erasure::{Erased, Item, Part};
use domain::fact::Source;
use domain::{Diagnose, Fact, Name};
use jiff::Timestamp;
use kube::Client;
use metal3::drive::Persistence;
use metal3::{
    BmcAddress, BootMode, Cleaning, Credentials, Inspection, NotAnAddress, Place, Power, Progress as Step,
    ProvisioningState as State, Registration, SecretText, Standing, Transport, Wish, bmc_address,
    ipmi_address,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Name and serial number of each disk.
type Disks = Vec<(Option<String>, Option<String>)>;

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

    /// What could never be deployed.
    pub(crate) fn accepts(image: &Image) -> Result<(), Trouble> {
        match image {
            Image::Live { .. } => Err(Trouble::Lasting(metal3::no_config_drive())),
            Image::Disk { .. } => Ok(()),
        }
    }

    pub(crate) async fn inspect(&self, subject: &Subject<'_>) -> Result<Progress<Vec<Fact>>, Trouble> {
        let wish = if self.settings.inspect { Wish::Inspected } else { Wish::Registered };
        let standing = match progress(self.step(subject, &wish).await?)? {
            Progress::Reached(Some(standing)) => standing,
            other => return Ok(other.without()),
        };
        let client = self.client().await?;
        let found = metal3::facts(client, &self.settings.namespace, &standing.name).await.map_err(trouble)?;
        let (path, at) = (format!("HardwareData/{}", standing.name), Timestamp::now());
        let facts = found.unwrap_or_default().into_iter();
        let fact = |(key, value)| Fact { key, value, source: Source::Ironic, path: path.clone(), at };
        Ok(Progress::Reached(facts.map(fact).collect()))
    }

    /// Released and cleaned. What the cleaning erased, baremetal-operator does not tell: a BareMetalHost knows only whether
    /// there is one. It counts for the disks where the settings say that Ironic is configured so, and where there was one: the
    /// operator cleans when it takes something off, and not before the first use.
    ///
    /// A host that was made since the use began knows nothing of what is on the machine's disks: the operator is made to clean them
    /// by putting the use's image on, without data to join with, and taking it off again.
    pub(crate) async fn erase(
        &self,
        subject: &Subject<'_>,
        use_of: Use<'_>,
    ) -> Result<Progress<Vec<Item>>, Trouble> {
        let wish = match self.standing(subject).await? {
            Some(standing) => self.to_clean(&standing, use_of).map_or(Wish::Released, Wish::Provisioned),
            None => Wish::Released,
        };
        let standing = match progress(self.step(subject, &wish).await?)? {
            Progress::Reached(Some(standing)) if wish == Wish::Released => standing,
            Progress::Reached(Some(_)) => {
                return Ok(Progress::Acted("has an image to take off, and to clean after".to_owned()));
            }
            other => return Ok(other.without()),
        };
        // A disk may have been put in, or taken out, while the machine was used.
        let (released, inspected) = (standing.cleaned, standing.inspected);
        if self.settings.inspect && !use_of.is_first && released > inspected {
            metal3::inspect_again(self.client().await?, &self.settings.namespace, &standing.name)
                .await
                .map_err(trouble)?;
            let what = format!("the operator looks at the disks of BareMetalHost/{} anew", standing.name);
            let wait = Wait { what, poll: Duration::from_secs(5), usual: Duration::from_mins(10) };
            return Ok(Progress::Waiting(wait));
        }
        let disks = self.disks(&standing).await?;
        let outcome = self.outcome(&standing, use_of);
        Ok(Progress::Reached(items(disks, &outcome)))
    }

    async fn standing(&self, subject: &Subject<'_>) -> Result<Option<Standing>, Trouble> {
        let (client, namespace) = (self.client().await?, &self.settings.namespace);
        let seen = metal3::observe(client, namespace, &self.registration(subject)?).await.map_err(trouble)?;
        // Where no one host is the machine's, the step says so.
        Ok(seen.ok().and_then(|seen| seen.host).as_ref().map(Standing::of))
    }

    /// What is put on a host that has forgotten, until it is on.
    fn to_clean(&self, host: &Standing, use_of: Use<'_>) -> Option<metal3::Deployment> {
        let image = use_of.image.filter(|image| matches!(image, Image::Disk { .. }))?;
        let id = Name::new(format!("e-{}", use_of.id.simple())).ok()?;
        let begun = host.deployment.as_deref() == Some(id.as_str());
        let goes_on = begun && !matches!(host.state, State::Provisioned | State::Deprovisioning);
        let proves = self.settings.clean && self.settings.erases_disks && host.cleaned.is_none();
        let due = !host.was_provisioned && forgets(host, use_of);
        (proves && (goes_on || due)).then(|| metal3::Deployment {
            id,
            payload: image.into(),
            power: Power::Off,
            user_data: None,
            network_data: None,
            meta_data: None,
        })
    }

    /// What came of the disks, by what the host tells of itself.
    fn outcome(&self, host: &Standing, use_of: Use<'_>) -> Erased {
        let not = |reason: &str| Erased::NotErased { reason: reason.to_owned() };
        match (host.cleaned.is_some(), self.settings.clean, self.settings.erases_disks) {
            // What was there before the first use is nobody's here, and stays until there is one.
            (false, ..) if !host.was_provisioned && !use_of.is_first && !forgets(host, use_of) => {
                Erased::Untouched
            }
            (false, ..) if forgets(host, use_of) => not(
                "its BareMetalHost was made anew since, and the operator cleans only what it has put something on",
            ),
            (false, ..) | (true, false, _) => not("baremetal-operator has not cleaned the machine"),
            (true, true, false) => not("baremetal-operator tells only that metadata was cleaned"),
            (true, true, true) => Erased::Erased {
                method: "automated cleaning, by Ironic's configuration as declared to the cell".to_owned(),
            },
        }
    }

    /// Name and serial number of each disk; `None` where the hardware was never read.
    async fn disks(&self, standing: &Standing) -> Result<Option<Disks>, Trouble> {
        let found = metal3::hardware(self.client().await?, &self.settings.namespace, &standing.name).await;
        let known = |text: String| (!text.is_empty()).then_some(text);
        let disks = found.map_err(trouble)?.map(|hardware| hardware.storage);
        Ok(disks.map(|disks| {
            disks.into_iter().map(|disk| (known(disk.name), known(disk.serial_number))).collect()
        }))
    }

    pub(crate) async fn deploy(
        &self,
        subject: &Subject<'_>,
        deployment: &Deployment,
    ) -> Result<Progress<()>, Trouble> {
        let id = format!("i-{}", deployment.instance.simple());
        let id = Name::new(id).map_err(|error| Trouble::Lasting(coded("api.internal", error.to_string())))?;
        let wish = Wish::Provisioned(metal3::Deployment {
            id: id.clone(),
            payload: (&deployment.image).into(),
            power: Power::On,
            user_data: Some(SecretText::new(deployment.user_data.as_str())),
            network_data: None,
            meta_data: Some(SecretText::new(deployment.meta_data.to_string())),
        });
        let mut step = self.step(subject, &wish).await?;
        if is_earlier(&step, id.as_str()) {
            // The operator would go on with the one before without end.
            step = self.step(subject, &Wish::Released).await?;
            if matches!(step, Step::Reached(_)) {
                return Ok(Progress::Acted("take off what an earlier deployment put on".to_owned()));
            }
        }
        Ok(progress(step)?.map(drop))
    }

    pub(crate) async fn remove(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        Ok(progress(self.step(subject, &Wish::Removed).await?)?.map(drop))
    }

    /// Detached first: otherwise the operator would wait without end for a BMC that is not there.
    pub(crate) async fn forget(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        match self.hold(subject, true).await? {
            Progress::Reached(_) => self.remove(subject).await,
            other => Ok(other.without()),
        }
    }

    /// Detached, not paused: Ironic knows nothing of a pause, and puts back the power that it remembers.
    pub(crate) async fn hold(&self, subject: &Subject<'_>, on: bool) -> Result<Progress<bool>, Trouble> {
        let (client, namespace) = (self.client().await?, &self.settings.namespace);
        let seen = metal3::observe(client, namespace, &self.registration(subject)?).await.map_err(trouble)?;
        let Some(host) = seen.ok().and_then(|seen| seen.host) else {
            return Ok(Progress::Reached(false));
        };
        if !on {
            let by_us = |by: &String| by == metal3::HELD_BY_US;
            if host.annotations.get(metal3::ANNOTATION_DETACHED).is_some_and(by_us)
                && let Step::Acted(action) = self.step(subject, &Wish::Available).await?
            {
                return Ok(Progress::Acted(format!("{} {}/{}", action.verb, action.kind, action.name)));
            }
            metal3::attach(client, namespace, &host.name).await.map_err(trouble)?;
            return Ok(Progress::Reached(true));
        }
        let held = metal3::detach(client, namespace, &host.name).await.map_err(trouble)?;
        if held.quiet {
            return Ok(Progress::Reached(true));
        }
        let what = format!("the operator takes BareMetalHost/{} out of Ironic", host.name);
        Ok(Progress::Waiting(Wait { what, poll: Duration::from_secs(5), usual: Duration::from_secs(30) }))
    }

    async fn step(&self, subject: &Subject<'_>, wish: &Wish) -> Result<Step, Trouble> {
        // A machine that is deployed has a host: one that is gone is not made anew, which would deploy a second time.
        let expected = matches!(wish, Wish::Provisioned(_));
        let registration = Registration { expected, ..self.registration(subject)? };
        let client = self.client().await?;
        metal3::step(client, &self.settings.namespace, &registration, wish).await.map_err(trouble)
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
            expected: false,
        })
    }
}

/// Whether the host was made since the use began: it cannot tell of it then.
fn forgets(host: &Standing, use_of: Use<'_>) -> bool {
    let younger = use_of.since.is_some_and(|since| host.created.is_some_and(|created| created > since));
    !use_of.is_first && (younger || (use_of.has_joined && !host.was_provisioned))
}

/// What came of each part, when this came of the disks.
fn items(disks: Option<Disks>, outcome: &Erased) -> Vec<Item> {
    let not = |reason: &str| Erased::NotErased { reason: reason.to_owned() };
    let unread = disks.is_none();
    let mut items: Vec<Item> = disks
        .into_iter()
        .flatten()
        .map(|(device, serial)| Item { part: Part::Disk, serial, device, erased: outcome.clone() })
        .collect();
    if items.is_empty() {
        let erased = match outcome {
            Erased::Untouched => Erased::Untouched,
            _ if unread => not("the machine's disks were never read"),
            _ => Erased::Absent,
        };
        items.push(Item { part: Part::Disk, serial: None, device: None, erased });
    }
    for part in [Part::GpuMemory, Part::Tpm] {
        let erased = match outcome {
            Erased::Untouched => Erased::Untouched,
            _ => not("baremetal-operator has no step for it"),
        };
        items.push(Item { part, serial: None, device: None, erased });
    }
    items
}

/// Whether the host was given another deployment by us, before this one.
fn is_earlier(step: &Step, id: &str) -> bool {
    let Step::Refused { problem, standing: Some(standing), .. } = step else { return false };
    problem.code == "metal3.deployed" && standing.deployment.as_deref().is_some_and(|given| given != id)
}

fn progress(step: Step) -> Result<Progress<Option<Standing>>, Trouble> {
    match step {
        Step::Reached(standing) => Ok(Progress::Reached(standing)),
        Step::Acted(action) => {
            Ok(Progress::Acted(format!("{} {}/{}", action.verb, action.kind, action.name)))
        }
        Step::Waiting { problem, poll_after, usual, .. } => {
            Ok(Progress::Waiting(Wait { what: problem.message, poll: poll_after, usual }))
        }
        Step::Refused { problem, persistence: Persistence::Passing, .. } => Err(Trouble::Passing(problem)),
        Step::Refused { problem, persistence: Persistence::Lasting, .. } => Err(Trouble::Lasting(problem)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base_cluster::DiskFormat;
    use metal3::OperationalStatus;
    use uuid::Uuid;

    fn service() -> Metal3 {
        let settings = Metal3Settings { clean: true, erases_disks: true, ..Metal3Settings::default() };
        Metal3::new(&settings)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image() -> Image {
        let checksum = "0".repeat(64);
        Image::Disk { url: "http://images.example/node.raw".to_owned(), checksum, format: DiskFormat::Raw }
    }

    /// A use that began in the hundredth second.
    fn use_with(image: Option<&Image>) -> Use<'_> {
        Use { id: Uuid::nil(), since: Some(at(100)), image, is_first: false, has_joined: false }
    }

    /// A host that was made in this second; what it ran was taken off if it was cleaned.
    fn host(created: i64, state: State, was_provisioned: bool, cleaned: bool) -> Standing {
        Standing {
            name: "m1".to_owned(),
            uid: String::new(),
            created: Some(at(created)),
            state,
            operational_status: OperationalStatus::Ok,
            powered_on: false,
            node: None,
            consumer: None,
            deployment: None,
            cleaned: cleaned.then(|| at(300)),
            inspected: None,
            was_provisioned,
        }
    }

    #[test]
    fn a_machine_that_was_given_back_before_anything_was_put_on_it_keeps_nobody_waiting() {
        let outcome = service().outcome(&host(0, State::Available, false, false), use_with(None));
        assert_eq!(outcome, Erased::Untouched);
        let parts = items(Some(vec![(None, Some("S1".to_owned()))]), &Erased::Untouched);
        assert!(parts.iter().all(|item| item.erased == Erased::Untouched), "{parts:?}");
    }

    #[test]
    fn what_was_put_on_and_not_cleaned_off_was_not_erased() {
        let outcome = |was_provisioned, cleaned, is_first| {
            let use_of = Use { is_first, ..use_with(None) };
            service().outcome(&host(0, State::Available, was_provisioned, cleaned), use_of)
        };
        assert!(matches!(outcome(true, false, false), Erased::NotErased { .. }));
        assert!(
            matches!(outcome(false, false, true), Erased::NotErased { .. }),
            "nobody knows what was there"
        );
        assert!(matches!(outcome(true, true, false), Erased::Erased { .. }));
    }

    #[test]
    fn a_host_made_since_the_use_began_is_given_something_to_take_off_and_only_then_says_erased() {
        let (image, service) = (image(), service());
        let use_of = use_with(Some(&image));
        let mut host = host(200, State::Available, false, false);
        assert!(matches!(service.outcome(&host, use_of), Erased::NotErased { .. }));
        let given = service.to_clean(&host, use_of).expect("something is put on");
        assert!(given.user_data.is_none(), "nothing joins with it");
        host.deployment = Some(given.id.to_string());
        for (state, goes_on) in [(State::Provisioning, true), (State::Provisioned, false)] {
            (host.state, host.was_provisioned) = (state, true);
            assert_eq!(service.to_clean(&host, use_of).is_some(), goes_on, "{:?}", host.state);
        }
        (host.state, host.cleaned) = (State::Available, Some(at(300)));
        assert_eq!(service.to_clean(&host, use_of), None);
        assert!(matches!(service.outcome(&host, use_of), Erased::Erased { .. }));
    }

    #[test]
    fn a_host_that_is_as_old_as_the_use_is_given_nothing_unless_it_has_forgotten_a_node_that_joined() {
        let image = image();
        let old = host(0, State::Available, false, false);
        let joined = |has_joined| Use { has_joined, ..use_with(Some(&image)) };
        assert_eq!(service().to_clean(&old, joined(false)), None);
        assert!(service().to_clean(&old, joined(true)).is_some());
        assert!(matches!(service().outcome(&old, joined(true)), Erased::NotErased { .. }));
    }
}
