//! Real Ironic with its `redfish` hardware type drives simulated machines, and we drive Ironic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_ironic::deployment::{DiskFormat, HashAlgorithm};
use bailiwick_ironic::erasure::{self, Watch};
use bailiwick_ironic::{
    Agent, AutomatedClean, Bmc, ConfigDrive, DeployKind, Deployment, Image, Registration, RootDevice, Secret,
    VerifyCa, Wish,
};
use serde_json::{Map, json};
use sim::{Booted, HostOptions, Model, RunningSite};
use testbed::Ironic;
use uuid::Uuid;

use crate::site::{self, Site, bring, deployed, reach, task};

/// One simulated machine and the Ironic that drives it.
struct Stage {
    ironic: Arc<Ironic>,
    site: Site,
    machines: RunningSite,
    _directory: tempfile::TempDir,
}

impl Stage {
    async fn new(model: Model) -> Self {
        let ironic = crate::real().await;
        let directory = tempfile::tempdir().unwrap();
        let hosts = HostOptions {
            ironic_url: Some(ironic.url().to_owned()),
            heartbeat: Duration::from_secs(1),
            ..HostOptions::default()
        };
        let seed = Uuid::new_v4().simple().to_string();
        let machines = sim::Site::builder(directory.path().join("site")).seed(&seed).latency_scale(0.1);
        let machines = machines.machines(model, 1).bootable(hosts).build().start().await.unwrap();
        let site = Site::new(ironic.url());
        Self { ironic, site, machines, _directory: directory }
    }

    fn bmc(&self) -> &Arc<sim::Bmc> {
        self.machines.bmc(&self.machines.machines()[0].name).unwrap()
    }

    fn registration(&self, inspect: &str) -> Registration {
        let (machine, bmc) = (&self.machines.machines()[0], self.bmc());
        let system = bmc.tree().host_system().unwrap();
        let interfaces = bmc.resource(&format!("{system}/EthernetInterfaces")).unwrap();
        let first = bmc.resource(interfaces["Members"][0]["@odata.id"].as_str().unwrap()).unwrap();
        let interfaces: [(&str, &str); 6] = [
            ("boot", "redfish-virtual-media"),
            ("inspect", inspect),
            ("network", "noop"),
            ("bios", "redfish"),
            ("firmware", "redfish"),
            ("raid", "redfish"),
        ];
        Registration {
            bmc: Bmc::Redfish {
                address: machine.url.clone(),
                system_id: Some(system),
                username: machine.username.clone(),
                password: Secret::new(machine.password.clone()),
                verify_ca: VerifyCa::Off,
            },
            interfaces: BTreeMap::from(interfaces.map(|(name, chosen)| (name.to_owned(), chosen.to_owned()))),
            agent: Agent::Iso(self.ironic.agent_iso_url()),
            macs: vec![first["MACAddress"].as_str().unwrap().parse().unwrap()],
            ..site::machine()
        }
    }

    fn image(&self, hash: &str) -> Deployment {
        Self::deployment(DeployKind::Direct(Image {
            source: self.ironic.disk_image_url(),
            hash_algorithm: HashAlgorithm::Sha256,
            hash: hash.to_owned(),
            disk_format: DiskFormat::Raw,
        }))
    }

    fn deployment(kind: DeployKind) -> Deployment {
        let meta_data = Map::from_iter([("name".to_owned(), json!("node-1"))]);
        Deployment {
            instance_uuid: Uuid::new_v4(),
            kind,
            root_device: RootDevice::default(),
            config_drive: Some(ConfigDrive {
                meta_data,
                user_data: Some(Secret::new("#cloud-config\n")),
                network_data: None,
            }),
        }
    }

    async fn boots(&self, wanted: impl FnMut(&Booted) -> bool) -> Booted {
        let mut host = self.bmc().watch_booted().unwrap();
        tokio::time::timeout(Duration::from_mins(1), host.wait_for(wanted)).await.unwrap().unwrap().clone()
    }
}

#[tokio::test]
async fn a_machine_is_inspected_erased_and_deployed_by_its_agent_and_what_was_erased_is_known() {
    let stage = Stage::new(Model::DgxH100).await;
    let registration = stage.registration("agent");
    let node = bring(&stage.site, &registration, Wish::Inspected { after: None }).await;
    let inspection = stage.site.client().inventory(node.uuid).await.unwrap().unwrap();
    let inventory = inspection.inventory;
    assert_eq!(inventory.system_vendor.serial_number, Some(stage.machines.machines()[0].serial.clone()));
    assert!(!inventory.disks.is_empty() && inventory.disks.iter().all(|disk| disk.serial.is_some()));

    // What is asked for first shows what the agent has beside it.
    let mut watch = Watch::default();
    for expected in [&["erase_devices"][..], &["erase_gpu_memory", "clear_tpm"], &[]] {
        let history = stage.site.client().history(node.uuid).await.unwrap();
        let steps = erasure::record(&watch, Some(&inventory), &history).steps_to_ask_for(&watch);
        let names: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(names, expected);
        if steps.is_empty() {
            break;
        }
        let wish = Wish::Cleaned { request: Uuid::new_v4(), steps };
        let (cleaned, way) = reach(&stage.site, &task(&registration, wish)).await.unwrap();
        for seen in way.nodes.iter().chain(cleaned.as_deref()) {
            watch.note(seen);
        }
    }
    let history = stage.site.client().history(node.uuid).await.unwrap();
    let record = erasure::record(&watch, Some(&inventory), &history);
    assert!(record.disks_erased(), "{record:?}");
    assert!(record.gpu_memory.is_erased() && record.tpm.is_erased(), "{record:?}");
    assert!(record.errors.is_empty(), "{record:?}");
    // What Ironic says is what the machine did.
    let erased = stage.bmc().erasures();
    let serials: Vec<String> = erased
        .iter()
        .filter(|erasure| erasure.step == "erase_devices")
        .map(|erasure| erasure.serial.clone())
        .collect();
    for disk in &record.disks {
        assert!(serials.contains(disk.disk.serial.as_ref().unwrap()), "{disk:?} {serials:?}");
    }

    let deployment = stage.image(stage.ironic.disk_image_sha256());
    bring(&stage.site, &registration, deployed(&deployment)).await;
    let booted = stage.boots(|booted| matches!(booted, Booted::Disk(_))).await;
    let Booted::Disk(disk) = booted else { panic!("{booted:?}") };
    assert_eq!(disk.config.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));

    // What Ironic cleans by itself here is metadata, and that is no erasure.
    let mut cleaned = registration.clone();
    cleaned.automated_clean = AutomatedClean::Set(Some(true));
    let (released, way) = reach(&stage.site, &task(&cleaned, Wish::Released)).await.unwrap();
    let mut watch = Watch::default();
    for seen in way.nodes.iter().chain(released.as_deref()) {
        watch.note(seen);
    }
    let record = erasure::record(&watch, Some(&inventory), &[]);
    assert!(record.steps.contains(&"deploy.erase_devices_metadata".to_owned()), "{record:?}");
    assert!(!record.disks_erased());
}

#[tokio::test]
async fn a_wrong_password_is_told_and_heals_when_corrected_also_on_a_machine_in_use() {
    let stage = Stage::new(Model::CpuNode).await;
    let right = stage.registration("redfish");
    let mut wrong = right.clone();
    let Bmc::Redfish { password, .. } = &mut wrong.bmc else { panic!("a Redfish registration") };
    *password = Secret::new("wrong-password");
    wrong.credentials = "v0".to_owned();
    let error = reach(&stage.site, &task(&wrong, Wish::Registered)).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.verify-failed", true));
    assert!(!format!("{error} {error:?}").contains("wrong-password"));

    let node = bring(&stage.site, &right, Wish::Inspected { after: None }).await;
    let inspection = stage.site.client().inventory(node.uuid).await.unwrap().unwrap();
    assert_eq!(inspection.inventory.memory.physical_mb, Some(768 * 1024));

    let live = Stage::deployment(DeployKind::Ramdisk { boot_iso: stage.ironic.live_iso_url() });
    bring(&stage.site, &right, deployed(&live)).await;
    stage.boots(|booted| matches!(booted, Booted::LiveIso { .. })).await;
    stage.site.client().probe_bmc(node.uuid).await.unwrap();

    stage.bmc().set_password("another-password");
    let mut rotated = right.clone();
    let Bmc::Redfish { password, .. } = &mut rotated.bmc else { panic!("a Redfish registration") };
    *password = Secret::new("another-password");
    rotated.credentials = "v2".to_owned();
    let (active, way) = reach(&stage.site, &task(&rotated, deployed(&live))).await.unwrap();
    assert_eq!(way.acted, ["patch /driver_info/redfish_password, /extra/bailiwick"]);
    stage.site.client().probe_bmc(node.uuid).await.unwrap();
    assert!(!format!("{active:?}").contains("another-password"));

    bring(&stage.site, &rotated, Wish::Released).await;
    assert_eq!(stage.bmc().power_state(), Some(sim::PowerState::Off));
}

#[tokio::test]
async fn a_deploy_that_failed_is_left_for_another_instance() {
    let stage = Stage::new(Model::CpuNode).await;
    let registration = stage.registration("no-inspect");
    bring(&stage.site, &registration, Wish::Available).await;
    let bad = stage.image(&"0".repeat(64));
    let error = reach(&stage.site, &task(&registration, deployed(&bad))).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.deploy-failed", true));
    assert!(error.to_string().contains("checksum"), "{error}");

    let good = stage.image(stage.ironic.disk_image_sha256());
    let (_, way) = reach(&stage.site, &task(&registration, deployed(&good))).await.unwrap();
    let verbs: Vec<&str> = way.acted.iter().filter_map(|action| action.strip_prefix("provision: ")).collect();
    assert_eq!(verbs, ["deleted", "active"]);
    stage.boots(|booted| matches!(booted, Booted::Disk(_))).await;
}
