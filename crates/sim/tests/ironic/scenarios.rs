//! What is done with each machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_sim::{
    Action, Behaviour, Bmc, BootResource, BootStyle, Booted, Fault, HostOptions, Model, PowerState,
    RunningSite, SimMachine, Site, VirtualMediaStyle,
};
use reqwest::Client;
use serde_json::{Value, json};
use testbed::Ironic;

use crate::api::{Api, Node, Outcome};

const USER_DATA: &str = "#cloud-config\nhostname: simulated\n";

/// Ironic and the sites that it drives.
struct Stage {
    ironic: Ironic,
    api: Api,
    plain: RunningSite,
    tls: RunningSite,
}

/// A machine with what Ironic must know of it.
struct Subject<'a> {
    stage: &'a Stage,
    machine: &'a SimMachine,
    bmc: Arc<Bmc>,
    name: &'static str,
}

type Scenario<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs all scenarios at once.
pub async fn run() -> BTreeMap<&'static str, Outcome> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let ironic = Ironic::options()
        .setting("conductor", "power_state_change_timeout", "20")
        // It asks every BMC for its power state, and that is most of what it then does.
        .setting("conductor", "sync_power_state_interval", "600");
    let ironic = ironic.start().await.unwrap();
    let hosts = |agent_tls| HostOptions {
        ironic_url: Some(ironic.url().to_owned()),
        // Scaled: two seconds, in which Ironic comes to wait for the agent.
        firmware: Duration::from_secs(20),
        heartbeat: Duration::from_secs(2),
        agent_tls,
        ..HostOptions::default()
    };
    let site = |name: &str| Site::builder(directory.path().join(name)).seed(name).latency_scale(0.1);
    let plain = site("plain").machines(Model::CpuNode, 12).machines_named("dell", Model::PowerEdgeXe, 1);
    let plain = plain.bootable(hosts(false)).build().start().await.unwrap();
    let tls = site("tls").machines(Model::DgxH100, 1).bootable(hosts(true)).build().start().await.unwrap();
    let api = Api { base: ironic.url().to_owned(), http: Client::builder().no_proxy().build().unwrap() };
    let stage = Stage { ironic, api, plain, tls };
    let outcomes = all(&stage).await;
    if outcomes.values().any(Result::is_err) {
        let log = stage.ironic.log();
        let errors = log.lines().filter(|line| line.contains(" ERROR ")).collect::<Vec<_>>().join("\n");
        #[allow(clippy::print_stderr)] // of a failed test, what Ironic said is the first thing to read
        {
            eprintln!("Ironic's errors:\n{errors}");
        }
    }
    outcomes
}

async fn all(stage: &Stage) -> BTreeMap<&'static str, Outcome> {
    let node = |n: usize, name| stage.subject(&stage.plain, n, name);
    let scenarios: Vec<(&'static str, Scenario<'_>)> = vec![
        ("live", Box::pin(live(node(0, "live")))),
        (
            "direct-tls",
            Box::pin(direct(
                stage.subject(&stage.tls, 0, "direct-tls"),
                &["erase_gpu_memory", "clear_tpm"],
                dgx_erasures,
            )),
        ),
        ("direct-dell", Box::pin(direct(node(12, "direct-dell"), &["erase_gpu_memory"], dell_erasures))),
        ("wrong-checksum", Box::pin(wrong_checksum(node(1, "wrong-checksum")))),
        ("media-refused", Box::pin(media_refused(node(2, "media-refused")))),
        ("power-pretends", Box::pin(power_pretends(node(3, "power-pretends")))),
        (
            "media-by-patch",
            Box::pin(boots_with(node(4, "media-by-patch"), |behaviour| {
                behaviour.virtual_media.patch_only = true;
            })),
        ),
        (
            "media-demands",
            Box::pin(boots_with(node(5, "media-demands"), |behaviour| {
                behaviour.virtual_media = VirtualMediaStyle {
                    refuses: ["Inserted", "WriteProtected"].map(str::to_owned).into(),
                    demands: ["TransferProtocolType", "UserName", "Password"].map(str::to_owned).into(),
                    eject_needs_body: true,
                    inserted_after_eject: Duration::from_secs(1),
                    ..VirtualMediaStyle::default()
                };
            })),
        ),
        (
            "boot-at-settings",
            Box::pin(boots_with(node(6, "boot-at-settings"), |behaviour| {
                behaviour.boot.resource = BootResource::Settings;
            })),
        ),
        (
            "boot-once-only",
            Box::pin(boots_with(node(7, "boot-once-only"), |behaviour| {
                behaviour.boot = BootStyle {
                    persistent: false,
                    resource: BootResource::SystemNotSettings,
                    refuses_unchanged: true,
                    ..BootStyle::default()
                };
            })),
        ),
        ("boot-full", Box::pin(boot_full(node(8, "boot-full")))),
        ("boot-usb-cd", Box::pin(boot_usb_cd(node(9, "boot-usb-cd")))),
        ("power-window", Box::pin(power_window(node(10, "power-window")))),
        ("bmc-restarts", Box::pin(bmc_restarts(node(11, "bmc-restarts")))),
    ];
    let (names, scenarios): (Vec<_>, Vec<_>) = scenarios.into_iter().unzip();
    names.into_iter().zip(futures_util::future::join_all(scenarios).await).collect()
}

impl Stage {
    fn subject<'a>(&'a self, site: &'a RunningSite, n: usize, name: &'static str) -> Subject<'a> {
        let machine = &site.machines()[n];
        Subject { stage: self, machine, bmc: Arc::clone(site.bmc(&machine.name).unwrap()), name }
    }
}

impl Subject<'_> {
    fn system(&self) -> String {
        self.bmc.tree().host_system().unwrap()
    }

    fn mac(&self) -> String {
        let interfaces = self.bmc.resource(&format!("{}/EthernetInterfaces", self.system())).unwrap();
        let first = interfaces["Members"][0]["@odata.id"].as_str().unwrap();
        self.bmc.resource(first).unwrap()["MACAddress"].as_str().unwrap().to_owned()
    }

    async fn enrol(&self, deploy: &str, inspect: &str, clean: bool) -> Outcome<Node> {
        let node = json!({
            "name": self.name, "driver": "redfish", "boot_interface": "redfish-virtual-media", "deploy_interface": deploy,
            "inspect_interface": inspect, "network_interface": "noop", "bios_interface": "redfish",
            "firmware_interface": "redfish", "raid_interface": "redfish", "automated_clean": clean,
            "driver_info": {"redfish_address": self.machine.url, "redfish_system_id": self.system(),
                "redfish_username": self.machine.username, "redfish_password": self.machine.password,
                "redfish_verify_ca": false, "deploy_iso": self.stage.ironic.agent_iso_url()},
            "properties": {"capabilities": "boot_mode:uefi"},
        });
        let node = self.stage.api.create(&node, &self.mac()).await?;
        node.go("manage", "manageable").await?;
        Ok(node)
    }

    fn live_iso(&self) -> Value {
        json!({"boot_iso": self.stage.ironic.live_iso_url()})
    }

    fn disk_image(&self, sha256: &str) -> Value {
        json!({"image_source": self.stage.ironic.disk_image_url(), "image_os_hash_algo": "sha256", "image_os_hash_value": sha256,
            "image_disk_format": "raw", "image_type": "whole-disk"})
    }

    /// Waits for what its host boots.
    async fn boots(&self, what: &str, wanted: impl FnMut(&Booted) -> bool) -> Outcome<Booted> {
        let mut host = self.bmc.watch_booted().unwrap();
        let booted = tokio::time::timeout(Duration::from_mins(1), host.wait_for(wanted)).await;
        match booted {
            Ok(Ok(booted)) => Ok(booted.clone()),
            _ => Err(format!("the host runs {:?}, not {what}", self.bmc.booted())),
        }
    }

    /// Brings a node without an agent to a live ISO, and back.
    async fn goes_live(&self, node: &Node) -> Outcome<Booted> {
        node.go("provide", "available").await?;
        node.set_instance(&self.live_iso()).await?;
        let configdrive =
            json!({"meta_data": {"name": self.name}, "user_data": USER_DATA, "network_data": {"links": []}});
        node.go_with(json!({"target": "active", "configdrive": configdrive}), "active").await?;
        let booted = self.boots("a live ISO", |booted| matches!(booted, Booted::LiveIso { .. })).await?;
        node.go("deleted", "available").await?;
        ensure(self.bmc.power_state() == Some(PowerState::Off), "it is on after it was given back")?;
        Ok(booted)
    }
}

fn ensure(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

async fn live(subject: Subject<'_>) -> Outcome {
    let node = subject.enrol("ramdisk", "redfish", false).await?;
    node.go("inspect", "manageable").await?;
    let inventory = node.inventory().await?;
    ensure(inventory["memory"]["physical_mb"] == 768 * 1024, format!("memory in {inventory}"))?;
    let Booted::LiveIso { config, .. } = subject.goes_live(&node).await? else {
        return Err("no live ISO".to_owned());
    };
    let config = config.ok_or("the host was told nothing")?;
    ensure(config.user_data.as_deref() == Some(USER_DATA.as_bytes()), "the user data are others")?;
    ensure(config.meta_data.is_some_and(|meta| meta["name"] == "live"), "the metadata are others")
}

/// `asked`: clean steps that Ironic does not run by itself.
async fn direct(subject: Subject<'_>, asked: &[&str], erased: fn(&Bmc) -> Outcome) -> Outcome {
    let node = subject.enrol("direct", "agent", true).await?;
    node.go("inspect", "manageable").await?;
    let inventory = node.inventory().await?;
    let serial = &inventory["system_vendor"]["serial_number"];
    ensure(*serial == subject.machine.serial.as_str(), format!("serial number {serial}"))?;
    let disk = &subject.bmc.resource(&subject.system()).unwrap()["Storage"];
    ensure(disk.is_object() && inventory["disks"][0]["serial"].is_string(), "no disks in the inventory")?;

    let steps: Vec<_> = asked.iter().map(|step| json!({"interface": "deploy", "step": step})).collect();
    node.go_with(json!({"target": "clean", "clean_steps": steps}), "manageable").await?;
    node.go("provide", "available").await?;
    erased(&subject.bmc)?;

    node.set_instance(&subject.disk_image(subject.stage.ironic.disk_image_sha256())).await?;
    let configdrive = json!({"meta_data": {"name": subject.name}, "user_data": USER_DATA});
    node.go_with(json!({"target": "active", "configdrive": configdrive}), "active").await?;
    let booted = subject.boots("its disk", |booted| matches!(booted, Booted::Disk(_))).await?;
    let Booted::Disk(disk) = booted else { return Err("no disk".to_owned()) };
    let digest = format!("sha256:{}", subject.stage.ironic.disk_image_sha256());
    ensure(disk.digest == digest, "another image was written")?;
    ensure(disk.config.user_data.as_deref() == Some(USER_DATA.as_bytes()), "the user data are others")?;

    node.go("deleted", "available").await?;
    ensure(subject.bmc.disk().is_none(), "the disk was not erased")?;
    ensure(subject.bmc.power_state() == Some(PowerState::Off), "it is on after it was given back")
}

/// What cleaning does with this Ironic: metadata of disks by itself, and what is asked for.
fn erasures(bmc: &Bmc, step: &str, expected: usize) -> Outcome {
    let erased = bmc.erasures();
    let of_step: Vec<_> = erased.iter().filter(|erasure| erasure.step == step).collect();
    let complete =
        of_step.iter().all(|e| e.result == "erased" && (!e.serial.is_empty() || e.device == "TPM"));
    ensure(of_step.len() == expected && complete, format!("{step}: {of_step:?}"))
}

fn dgx_erasures(bmc: &Bmc) -> Outcome {
    erasures(bmc, "erase_devices_metadata", 10)?;
    erasures(bmc, "erase_gpu_memory", 8)?;
    erasures(bmc, "clear_tpm", 1)
}

fn dell_erasures(bmc: &Bmc) -> Outcome {
    erasures(bmc, "erase_devices_metadata", 4)?;
    erasures(bmc, "erase_gpu_memory", 4)
}

async fn wrong_checksum(subject: Subject<'_>) -> Outcome {
    let node = subject.enrol("direct", "no-inspect", false).await?;
    node.go("provide", "available").await?;
    node.set_instance(&subject.disk_image(&"0".repeat(64))).await?;
    node.go_with(json!({"target": "active"}), "deploy failed").await?;
    // `last_error` does not last: what follows a failure clears it.
    let history = node.history().await?.to_string();
    ensure(history.contains("write_image") && history.contains("checksum"), history)?;
    ensure(subject.bmc.disk().is_none(), "something was written")
}

async fn media_refused(subject: Subject<'_>) -> Outcome {
    let node = subject.enrol("ramdisk", "no-inspect", false).await?;
    node.go("provide", "available").await?;
    let refused =
        Action::status(400, "{\"error\": {\"code\": \"Base.1.18.GeneralError\", \"message\": \"no\"}}");
    subject.bmc.add_fault(Fault::on("**/VirtualMedia.InsertMedia", refused));
    node.set_instance(&subject.live_iso()).await?;
    node.go("active", "deploy failed").await?;
    ensure(subject.bmc.booted() == Booted::Nothing, "something was booted")
}

async fn power_pretends(subject: Subject<'_>) -> Outcome {
    let node = subject.enrol("ramdisk", "no-inspect", false).await?;
    node.go("provide", "available").await?;
    subject.bmc.add_fault(Fault::on("**/ComputerSystem.Reset", Action::status(204, "")));
    node.set_instance(&subject.live_iso()).await?;
    node.go("active", "deploy failed").await?;
    ensure(subject.bmc.booted() == Booted::Nothing, "something was booted")
}

async fn boots_with(subject: Subject<'_>, change: impl FnOnce(&mut Behaviour)) -> Outcome {
    subject.bmc.set_behaviour(change);
    let node = subject.enrol("ramdisk", "no-inspect", false).await?;
    subject.goes_live(&node).await.map(drop)
}

async fn boot_full(subject: Subject<'_>) -> Outcome {
    subject
        .bmc
        .merge_resource(&subject.system(), &json!({"Manufacturer": "American Megatrends International"}));
    boots_with(subject, |behaviour| behaviour.boot.demands = BootStyle::FULL.map(str::to_owned).into()).await
}

async fn boot_usb_cd(subject: Subject<'_>) -> Outcome {
    let boot =
        json!({"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "Cd", "UsbCd"]});
    subject.bmc.merge_resource(&subject.system(), &json!({"Manufacturer": "Supermicro", "Boot": boot}));
    let style = BootStyle {
        demands: vec!["BootSourceOverrideEnabled".to_owned()],
        usb_cd: true,
        ..BootStyle::default()
    };
    boots_with(subject, |behaviour| behaviour.boot = style).await
}

async fn power_window(subject: Subject<'_>) -> Outcome {
    boots_with(subject, |behaviour| {
        behaviour.power.on_refused_after_off = Duration::from_secs(2);
        behaviour.power.conflict_if_already = true;
    })
    .await
}

async fn bmc_restarts(subject: Subject<'_>) -> Outcome {
    let node = subject.enrol("ramdisk", "no-inspect", false).await?;
    subject.bmc.set_behaviour(|behaviour| behaviour.restart.takes = Duration::from_secs(10));
    let restart = Fault::on("**/Systems/*", Action::RestartBmc).method("GET").times(1);
    subject.bmc.add_fault(restart);
    subject.goes_live(&node).await?;
    ensure(subject.bmc.counters().restarts == 1, "it was not restarted")
}
