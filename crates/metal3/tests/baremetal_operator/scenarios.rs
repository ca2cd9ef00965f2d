//! What is done with each machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bailiwick_metal3::drive::{Next, Snapshot, next};
use bailiwick_metal3::{
    ANNOTATION_NUDGED, Algorithm, Cleaning, Credentials, Deployment, DiskFormat, Inspection, Payload, Power,
    Progress, ProvisioningState, SecretText, Wish, attach, detach, facts, follow, observe, pause, unpause,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sim::{Action, Booted, Fault, PowerState};

use crate::stage::{Outcome, Stage, Subject, ensure};
use crate::support::{apply, name};

const USER_DATA: &str = "#cloud-config\nhostname: simulated\n";

type Scenario<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs all scenarios at once.
pub async fn run() -> BTreeMap<&'static str, Outcome> {
    let stage = Stage::start(11).await;
    let subject = |n, name| stage.subject(n, name);
    let scenarios: Vec<(&'static str, Scenario<'_>)> = vec![
        ("live", Box::pin(live(subject(0, "live")))),
        ("agent", Box::pin(agent(subject(1, "agent")))),
        ("external", Box::pin(external(subject(2, "external")))),
        ("password", Box::pin(password(subject(3, "password")))),
        ("edited", Box::pin(edited(subject(4, "edited")))),
        ("held", Box::pin(held(subject(5, "held")))),
        ("takeover", Box::pin(takeover(subject(6, "takeover")))),
        ("deleted", Box::pin(deleted(subject(7, "deleted")))),
        ("checksum", Box::pin(checksum(subject(8, "checksum")))),
        ("media", Box::pin(media(subject(9, "media")))),
        ("switched", Box::pin(switched(subject(10, "switched")))),
    ];
    let (names, scenarios): (Vec<_>, Vec<_>) = scenarios.into_iter().unzip();
    let outcomes: BTreeMap<_, _> =
        names.into_iter().zip(futures_util::future::join_all(scenarios).await).collect();
    println!("{}", stage.figures());
    if outcomes.values().any(Result::is_err) {
        let log = stage.ironic.log();
        let errors = log.lines().filter(|line| line.contains(" ERROR ")).collect::<Vec<_>>().join("\n");
        println!("Ironic's errors:\n{errors}\nthe operator's last words:\n{}", stage.operator.log());
    }
    outcomes
}

impl Subject<'_> {
    fn live_iso(&self) -> Wish {
        self.live_iso_with(Power::On)
    }

    fn live_iso_with(&self, power: Power) -> Wish {
        let payload = Payload::LiveIso { url: self.stage.ironic.live_iso_url() };
        let (user_data, network_data, meta_data) = (None, None, None);
        Wish::Provisioned(Deployment { id: name("d1"), payload, power, user_data, network_data, meta_data })
    }

    fn disk_image(&self, sha256: &str) -> Wish {
        Wish::Provisioned(Deployment {
            id: name("d1"),
            payload: Payload::Disk {
                url: self.stage.ironic.disk_image_url(),
                checksum: sha256.to_owned(),
                algorithm: Algorithm::Sha256,
                format: DiskFormat::Raw,
            },
            power: Power::On,
            user_data: Some(SecretText::new(USER_DATA)),
            network_data: Some(SecretText::new("links: []\n")),
            meta_data: None,
        })
    }

    async fn is_gone(&self) -> Outcome {
        ensure(self.reaches(&Wish::Removed).await?.is_none(), "it still has a host")?;
        let left = self.kubectl(&["get", "bmh,secrets", "-o", "name"]).await;
        ensure(!left.contains(&format!("/{}", self.name)), left)
    }

    /// Somebody cuts the power, as at a rack's PDU.
    async fn is_cut(&self) -> Outcome {
        let off = async || {
            self.bmc.switch(false);
            self.host_is(PowerState::Off)
        };
        self.comes_true("cut off", off).await
    }

    /// A deployment that Ironic gives up. It forgets the error soon, and then the operator says nothing at all; whichever it is,
    /// the cell tells it, at once or after the time that it may take.
    async fn fails(&self, wish: &Wish) -> Outcome {
        let silent =
            format!("failed but error message not available\t{{\"host\": \"metal3~{}\"}}", self.name);
        let told = |progress: &Progress| {
            let refused = matches!(progress, Progress::Refused { problem, .. } if problem.code == "metal3.provisioning-error");
            refused || self.stage.operator.log().contains(&silent)
        };
        if matches!(self.until(wish, "failed", told).await?, Progress::Refused { .. }) {
            return Ok(());
        }
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        let annotation = format!("{ANNOTATION_NUDGED}={later}");
        let nudge = self.next_at(wish, later).await?;
        ensure(matches!(nudge, Next::Patch { .. }), format!("{nudge:?}"))?;
        self.kubectl(&["annotate", "bmh", self.name, &annotation]).await;
        match self.next_at(wish, later).await? {
            Next::Refuse { problem, .. } if problem.code == "metal3.stuck" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    async fn next_at(&self, wish: &Wish, now: Timestamp) -> Outcome<Next> {
        let namespace = self.stage.operator.namespace();
        let seen = observe(&self.stage.client, namespace, &self.registration).await;
        let seen = seen.map_err(|error| error.to_string())?.map_err(|problem| problem.to_string())?;
        Ok(next(&self.registration, wish, &Snapshot { now, ..seen }))
    }

    fn host_is(&self, power: PowerState) -> bool {
        self.bmc.power_state() == Some(power)
    }
}

async fn live(subject: Subject<'_>) -> Outcome {
    subject.reaches(&Wish::Registered).await?;
    let standing = subject.reaches(&Wish::Available).await?.ok_or("no host")?;
    ensure(
        standing.state == ProvisioningState::Available && standing.node.is_some(),
        format!("{standing:?}"),
    )?;
    let wish = subject.live_iso();
    let standing = subject.reaches(&wish).await?.ok_or("no host")?;
    ensure(standing.powered_on && subject.host_is(PowerState::On), "it is not on")?;
    let booted = subject.boots("a live ISO", |booted| matches!(booted, Booted::LiveIso { .. })).await?;
    // Why data for a live ISO are refused: the operator gives it none, not even its own metadata.
    ensure(
        matches!(booted, Booted::LiveIso { config: None, .. }),
        "the operator gives a live ISO a config drive",
    )?;
    subject.reaches(&wish).await?;

    subject.reaches(&Wish::Released).await?;
    subject.comes_true("off while idle", async || subject.host_is(PowerState::Off)).await?;
    // As the cell does it, at the pace that it is told.
    let (client, namespace) = (&subject.stage.client, subject.stage.operator.namespace());
    let mut told = 0;
    let end = follow(client, namespace, &subject.registration, &Wish::Removed, |_| told += 1);
    let end = tokio::time::timeout(Duration::from_mins(3), end).await;
    ensure(matches!(end, Ok(Ok(Progress::Reached(None)))) && told > 1, format!("{end:?}"))?;
    subject.is_gone().await
}

async fn agent(mut subject: Subject<'_>) -> Outcome {
    subject.registration.inspection = Inspection::Agent;
    subject.registration.cleaning = Cleaning::Metadata;
    subject.reaches(&Wish::Inspected).await?;
    let namespace = subject.stage.operator.namespace();
    let facts = facts(&subject.stage.client, namespace, "agent").await.map_err(|error| error.to_string())?;
    let facts: BTreeMap<_, _> = facts.ok_or("no hardware")?.into_iter().collect();
    ensure(facts["identity.serial"] == subject.machine.serial.as_str(), format!("{facts:?}"))?;
    ensure(facts.keys().any(|key| key.starts_with("drives/")), format!("{facts:?}"))?;
    ensure(facts.keys().any(|key| key.starts_with("nics/")), format!("{facts:?}"))?;

    subject.reaches(&Wish::Available).await?;
    let sha256 = subject.stage.ironic.disk_image_sha256().to_owned();
    let standing = subject.reaches(&subject.disk_image(&sha256)).await?.ok_or("no host")?;
    let Booted::Disk(disk) = subject.boots("its disk", |booted| matches!(booted, Booted::Disk(_))).await?
    else {
        return Err("no disk".into());
    };
    ensure(disk.digest == format!("sha256:{sha256}"), "another image was written")?;
    ensure(disk.config.user_data.as_deref() == Some(USER_DATA.as_bytes()), "the user data are others")?;
    let (meta, uid) = (disk.config.meta_data.ok_or("no metadata")?, standing.uid.as_str());
    ensure(meta["name"] == "agent" && meta["uuid"] == uid, format!("metadata {meta}"))?;

    // A disk image's host is adopted again.
    let (client, namespace) = (&subject.stage.client, subject.stage.operator.namespace());
    let detached = async || detach(client, namespace, "agent").await.is_ok_and(|held| held.quiet);
    subject.comes_true("detached", detached).await?;
    attach(client, namespace, "agent").await.map_err(|error| error.to_string())?;
    let standing = subject.reaches(&subject.disk_image(&sha256)).await?.ok_or("no host")?;
    ensure(standing.state == ProvisioningState::Provisioned, format!("{standing:?}"))?;

    let erased_before = subject.bmc.erasures().len();
    subject.reaches(&Wish::Released).await?;
    ensure(subject.bmc.disk().is_none(), "the disk was not erased")?;
    ensure(subject.bmc.erasures().len() > erased_before, "nothing was erased")?;
    let left = subject.kubectl(&["get", "secrets", "-o", "name"]).await;
    ensure(!left.contains("agent-user-data") && !left.contains("agent-network-data"), left)?;
    subject.is_gone().await
}

async fn external(subject: Subject<'_>) -> Outcome {
    let standing = subject.reaches(&Wish::ExternallyProvisioned).await?.ok_or("no host")?;
    ensure(standing.state == ProvisioningState::ExternallyProvisioned, format!("{standing:?}"))?;
    ensure(subject.host_is(PowerState::On), "it is not on")?;
    subject.refused(&Wish::Released, "metal3.externally-provisioned").await?;
    subject.is_gone().await
}

async fn password(mut subject: Subject<'_>) -> Outcome {
    let right = subject.registration.credentials.take().ok_or("no credentials")?;
    let wrong = Credentials { username: right.username.clone(), password: SecretText::new("wrong-pl4nted") };
    subject.registration.credentials = Some(wrong);
    let said = subject.refused(&Wish::Available, "metal3.credentials-refused").await?;
    ensure(!said.contains("pl4nted"), said)?;
    println!("password: failed logins {}", subject.bmc.failed_logins(&right.username));
    subject.registration.credentials = Some(right);
    subject.reaches(&Wish::Available).await?;
    subject.is_gone().await
}

async fn edited(subject: Subject<'_>) -> Outcome {
    let wish = subject.live_iso();
    subject.reaches(&wish).await?;
    subject.edit("edited", &json!({ "spec": { "online": false } })).await;
    let said = subject.refused(&wish, "metal3.edited-by-hand").await?;
    ensure(said.contains("kubectl-edit") && said.contains("spec.online"), said)?;
    // The operator does what the person wrote.
    subject.comes_true("off by hand", async || subject.host_is(PowerState::Off)).await?;
    subject.edit("edited", &json!({ "spec": { "online": true } })).await;
    subject.reaches(&wish).await?;
    // What the status says of the power is of the last time that the operator looked.
    subject.comes_true("on again", async || subject.host_is(PowerState::On)).await?;
    subject.is_gone().await
}

async fn switched(subject: Subject<'_>) -> Outcome {
    let (wish, off) = (subject.live_iso(), subject.live_iso_with(Power::Off));
    subject.reaches(&wish).await?;
    subject.reaches(&off).await?;
    ensure(subject.host_is(PowerState::Off), "it is not off")?;
    subject.reaches(&wish).await?;
    ensure(subject.host_is(PowerState::On), "it is not on")?;
    subject.is_gone().await
}

async fn held(subject: Subject<'_>) -> Outcome {
    let wish = subject.live_iso();
    subject.reaches(&wish).await?;

    let (client, namespace) = (&subject.stage.client, subject.stage.operator.namespace());
    let told = |error: bailiwick_metal3::Error| error.to_string();
    let held = pause(client, namespace, "held").await.map_err(told)?;
    ensure(held.quiet && held.powered_on, format!("{held:?}"))?;
    subject.refused(&wish, "metal3.paused").await?;
    // Ironic knows nothing of the pause, and by its default puts back the power that it remembers.
    subject.is_cut().await?;
    subject.comes_true("on again by Ironic though paused", async || subject.host_is(PowerState::On)).await?;
    unpause(client, namespace, "held").await.map_err(told)?;
    subject.reaches(&wish).await?;

    let detached = async || detach(client, namespace, "held").await.is_ok_and(|held| held.quiet);
    subject.comes_true("detached", detached).await?;
    subject.refused(&wish, "metal3.detached").await?;
    subject.is_cut().await?;
    let on_again = async {
        while subject.host_is(PowerState::Off) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    // Three times the interval in which this Ironic looks at the power of its nodes.
    let stays_off = tokio::time::timeout(Duration::from_secs(15), on_again).await.is_err();
    ensure(stays_off, "somebody switched a detached machine on")?;

    // Why there is no way back for a live ISO.
    attach(client, namespace, "held").await.map_err(told)?;
    let said = subject.refused(&wish, "metal3.provisioned-registration-error").await?;
    ensure(said.contains("adopt"), said)?;
    subject.comes_true("detached again", detached).await?;
    subject.is_gone().await
}

async fn takeover(mut subject: Subject<'_>) -> Outcome {
    let namespace = subject.stage.operator.namespace();
    let metadata = |name: &str| json!({ "name": name, "namespace": namespace });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata("theirs"), "stringData": {
        "username": subject.machine.username, "password": subject.machine.password,
    } });
    let host = json!({
        "apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "metadata": metadata("rack-1-unit-4"),
        "spec": {
            "online": true, "bootMACAddress": subject.registration.boot_mac, "bootMode": "UEFI",
            "automatedCleaningMode": "disabled", "inspectionMode": "disabled",
            "bmc": {
                "address": subject.registration.address.as_str(), "credentialsName": "theirs",
                "disableCertificateVerification": true,
            },
            "image": { "url": subject.stage.ironic.live_iso_url(), "format": "live-iso" },
        },
    });
    for object in [secret, host] {
        apply(&subject.stage.plane, &object).await;
    }
    subject.boots("a live ISO", |booted| matches!(booted, Booted::LiveIso { .. })).await?;
    subject.registration.credentials = None;
    subject.registration.idle_power = Power::On;
    let standing = subject.reaches(&Wish::Registered).await?.ok_or("no host")?;
    ensure(standing.name == "rack-1-unit-4", format!("{standing:?}"))?;
    let wish = subject.live_iso();
    subject.refused(&wish, "metal3.deployed").await?;
    ensure(matches!(subject.bmc.booted(), Booted::LiveIso { .. }), "it does not go on running")?;
    subject.reaches(&Wish::Released).await?;
    subject.reaches(&wish).await?;
    let hosts = subject.kubectl(&["get", "bmh", "-o", "name"]).await;
    ensure(!hosts.contains("/takeover"), hosts)?;
    subject.is_gone().await
}

async fn deleted(mut subject: Subject<'_>) -> Outcome {
    let wish = subject.live_iso();
    let standing = subject.reaches(&wish).await?.ok_or("no host")?;
    subject.registration.known_uid = Some(standing.uid);
    subject.kubectl(&["delete", "bmh", "deleted", "--wait=false"]).await;
    subject.refused(&wish, "metal3.being-deleted").await?;
    subject.refused(&wish, "metal3.host-gone").await?;
    ensure(!subject.kubectl(&["get", "bmh", "-o", "name"]).await.contains("/deleted"), "it was made anew")?;
    subject.registration.known_uid = None;
    subject.reaches(&Wish::Available).await?;
    subject.is_gone().await
}

async fn checksum(mut subject: Subject<'_>) -> Outcome {
    subject.registration.inspection = Inspection::Agent;
    subject.reaches(&Wish::Available).await?;
    let wish = subject.disk_image(&"0".repeat(64));
    subject.fails(&wish).await?;
    ensure(subject.bmc.disk().is_none(), "something was written")?;
    subject.reaches(&Wish::Released).await?;
    subject.is_gone().await
}

async fn media(subject: Subject<'_>) -> Outcome {
    subject.reaches(&Wish::Available).await?;
    let refused = Action::status(400, r#"{"error": {"code": "Base.1.18.GeneralError", "message": "no"}}"#);
    subject.bmc.add_fault(Fault::on("**/VirtualMedia.InsertMedia", refused));
    subject.fails(&subject.live_iso()).await?;
    ensure(subject.bmc.booted() == Booted::Nothing, "something was booted")?;
    subject.reaches(&Wish::Released).await?;
    subject.is_gone().await
}
