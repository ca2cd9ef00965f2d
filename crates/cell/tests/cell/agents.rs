//! Agents enrol with a cell by mutual TLS, report, and hold permits; everybody else is refused.

use crate::agent::{Agent, enrolled, host, url};
use crate::line::Line;
use crate::support::Client;
use agent::cell::{Error, StateDir, enrol};
use bailiwick_cell::AgentSettings;
use domain::agent::AgentToken;
use domain::{Diagnose as _, Digest};
use serde_json::{Value, json};
use sim::Model;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// A machine with GPUs in service, and where its agent calls.
struct Stage {
    line: Line,
    machine: String,
    uuid: String,
    cell: SocketAddr,
}

impl Stage {
    /// A machine that is enrolled; nothing is done with it.
    async fn enrolled(change: impl FnOnce(&mut AgentSettings)) -> Self {
        Self::of(Model::PowerEdgeXe, change).await
    }

    async fn of(model: Model, change: impl FnOnce(&mut AgentSettings)) -> Self {
        let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        agents.report_interval = Duration::from_secs(1);
        change(&mut agents);
        let settings = |settings: &mut bailiwick_cell::Settings| settings.agents = Some(agents);
        let line = Line::of(model, 1, |ironic| ironic, settings).await;
        line.declare().await;
        let (machine, uuid) = (line.site.machines()[0].name.clone(), line.site.machines()[0].uuid.clone());
        line.client.wait_for_event("machine.enrolled", &machine).await;
        let cell = line.cell.agents_address().unwrap();
        Self { line, machine, uuid, cell }
    }

    async fn in_service(change: impl FnOnce(&mut AgentSettings)) -> Self {
        Self::in_service_of(Model::PowerEdgeXe, change).await
    }

    async fn in_service_of(model: Model, change: impl FnOnce(&mut AgentSettings)) -> Self {
        let stage = Self::of(model, change).await;
        stage.line.arrive("available").await;
        stage.line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
        stage
    }

    fn client(&self) -> &Client {
        &self.line.client
    }

    fn path(&self, name: &str) -> PathBuf {
        self.line.dir.path().join(name)
    }

    async fn agent(&self) -> Agent {
        Agent::start(self.client(), self.cell, &self.machine, &self.uuid, &self.path("agent")).await
    }

    async fn agent_of(&self, probe: domain::probe::Probe) -> Agent {
        let dir = self.path("agent");
        let (dir, _) = enrolled(self.client(), self.cell, &self.machine, &self.uuid, &dir).await.unwrap();
        Agent::run(dir, host(probe))
    }

    /// What the probe reads of a library of NVML's form, on a host with the GPUs that the machine's BMC lists.
    async fn by_driver(&self) -> domain::probe::Probe {
        let described = self.client().probe_of(&self.machine, &self.uuid).await;
        let text = serde_json::to_string(&described).unwrap();
        let driver = self.path("driver");
        std::fs::create_dir_all(&driver).unwrap();
        let installed =
            nvml_stand_in::Installed::into(&driver, &nvml_stand_in::Description::parse(&text).unwrap())
                .unwrap();
        let library = gpu::Nvml::open(Some(&installed.library())).unwrap();
        let root = gpu::HostRoot::at(driver.join("root"));
        let context = gpu::Context { host: &root, now: jiff::Timestamp::now(), previous: None };
        let read = gpu::probe(&library, &context, &mut gpu::Xids::default()).unwrap();
        domain::probe::Probe { host: described.host, ..read }
    }

    async fn gpus(&self) -> Vec<Value> {
        self.client().get("/api/v1/gpus").await["items"].as_array().unwrap().clone()
    }

    async fn devices(&self) -> Vec<String> {
        self.gpus().await.iter().map(|gpu| gpu["device"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until all GPUs are in this state; those that could be given out, or are, are probed too.
    async fn gpus_become(&self, state: &str) {
        let is = |gpu: &Value| {
            let found = gpu["state"].as_str().unwrap();
            found == state || state == "probed" && matches!(found, "allocatable" | "allocated")
        };
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let gpus = self.gpus().await;
            if !gpus.is_empty() && gpus.iter().all(is) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not {state}: {gpus:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its BMC is read again.
    async fn refresh(&self) {
        let path = format!("/api/v1/machines/{}/refresh", self.machine);
        assert_eq!(self.client().call("POST", &path, None).await.0, 200);
    }

    /// Waits until all views are in, and of all that could contradict this alone is left.
    async fn conflict(&self, code: &str) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let gpus = self.gpus().await;
            let mut doubtful = gpus.iter().filter(|gpu| gpu["conflicts"] != json!([]));
            if let (Some(gpu), None) = (doubtful.next(), doubtful.next())
                && gpu["conflicts"].as_array().unwrap().iter().all(|conflict| conflict["code"] == code)
            {
                return gpu.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "no {code}: {gpus:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A person accepts the GPUs that the machine shows.
    async fn accept(&self) -> Value {
        let path = format!("/api/v1/machines/{}/accepted-gpus", self.machine);
        let shown = self.client().get(&path).await;
        let stale = json!({ "digest": Digest::of(b"").to_string() });
        let (status, refused) = self.client().call("POST", &path, Some(stale)).await;
        assert_eq!((status, refused["code"].as_str()), (409, Some("gpu.accept-stale")));
        let request = json!({ "digest": shown["digest"] });
        let (status, accepted) = self.client().call("POST", &path, Some(request)).await;
        assert_eq!(status, 200, "{accepted}");
        accepted
    }

    async fn enrol_with(&self, token: &str, uuid: &str, name: &str) -> Result<(), Error> {
        let dir = StateDir::open(self.path(name)).unwrap();
        enrol(&dir, &url(self.cell), token, Some(uuid.to_owned())).await.map(drop)
    }

    /// A call by somebody who need not be an agent.
    async fn call(&self, path: &str, body: Vec<u8>, identity: Option<&str>) -> (u16, Value) {
        let mut builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
        if let Some(pem) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        let request = builder.build().unwrap().post(format!("https://{}{path}", self.cell));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }
}

fn code(result: Result<(), Error>) -> String {
    result.unwrap_err().problem().code
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_of_a_machine_in_service_holds_a_permit_for_each_gpu_that_its_driver_confirms() {
    let stage = Stage::in_service(|_| {}).await;
    let agent = stage.agent().await;
    let devices = stage.devices().await;
    assert_eq!(devices.len(), Model::PowerEdgeXe.gpu_count());
    for device in &devices {
        agent.until(device, None).await;
        assert!(agent.gate.permit(device).unwrap().gpu.starts_with("GPU-"));
    }
    stage.gpus_become("probed").await;
    let facts = stage.client().get(&format!("/api/v1/machines/{}/facts", stage.machine)).await;
    assert!(facts.as_array().unwrap().iter().any(|fact| fact["source"] == "nvml"));

    // A GPU that the driver shows no more loses its permit with the report that says so.
    agent.host.send_modify(|host| std::sync::Arc::make_mut(&mut host.probe).gpus.truncate(1));
    agent.until(devices.last().unwrap(), Some("permit.none")).await;
    agent.until(&devices[0], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_whose_views_contradict_or_that_is_unfit_loses_its_permit_until_that_is_mended() {
    let stage = Stage::in_service(|_| {}).await;
    let agent = stage.agent().await;
    let devices = stage.devices().await;
    agent.until(&devices[0], None).await;
    let whole = agent.host.borrow().probe.clone();
    let change = |change: fn(&mut domain::probe::Probe)| {
        agent.host.send_modify(|host| {
            host.probe = whole.clone();
            change(std::sync::Arc::make_mut(&mut host.probe));
        });
    };

    change(|probe| probe.gpus[0].serial = Some("1650000000000".into()));
    agent.until(&devices[0], Some("permit.none")).await;
    agent.until(&devices[1], None).await;
    let path = format!("/api/v1/gpus/{}", devices[0]);
    let gpu = stage.client().get(&path).await;
    assert_eq!(
        (&gpu["state"], &gpu["conflicts"][0]["code"]),
        (&json!("conflicting"), &json!("gpu.conflict.serial-differs"))
    );
    assert_ne!(gpu["redfish"]["serial"], gpu["nvml"]["serial"]);
    // No class counts on it, not even one for a trial that asks for no views.
    let sound = stage.client().get(&format!("/api/v1/gpus/{}", devices[1])).await;
    assert_eq!(gpu["allocatableBy"], json!([]));
    assert_ne!(sound["allocatableBy"], json!([]));
    let why = stage.client().get(&format!("/api/v1/machines/{}/why", stage.machine)).await;
    assert!(why["gpus"].to_string().contains("gpu.conflict.serial-differs"), "{why}");

    change(|probe| {
        probe.gpus[0].health.push(domain::probe::Finding {
            severity: domain::probe::Severity::Critical,
            code: "gpu.health.row-remap-failed".into(),
            message: "a row could not be remapped".into(),
        });
    });
    stage.gpus_become("probed").await;
    agent.until(&devices[0], Some("permit.none")).await;

    // A GPU that the host alone shows is told, and is no device.
    change(|probe| {
        let mut more = probe.gpus[0].clone();
        (more.uuid, more.serial) =
            (Some("GPU-00000000-0000-0000-0000-00000000beef".into()), Some("1".into()));
        (more.index, more.pci.address) = (99, Some("0000:ff:00.0".into()));
        probe.gpus.push(more);
    });
    agent.until(&devices[0], None).await;
    let gpu = stage.client().get("/api/v1/gpus/GPU-00000000-0000-0000-0000-00000000beef").await;
    assert_eq!((&gpu["state"], &gpu["device"]), (&json!("conflicting"), &Value::Null));
    assert_eq!(gpu["conflicts"][0]["code"], "gpu.conflict.unexpected", "{gpu}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_in_service_has_an_agent_and_no_permits() {
    let stage = Stage::enrolled(|_| {}).await;
    let agent = stage.agent().await;
    stage.gpus_become("probed").await;
    let device = &stage.devices().await[0];
    // The permits that came with the report are there, and empty.
    agent.until(device, Some("permit.none")).await;
    assert!(agent.gate.lasts().is_zero());
    let mut gate = agent.gate.clone();
    let answered = async {
        while !gate.is_closed() {
            gate.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), answered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cell_is_away_permits_run_out_and_come_back_with_it() {
    let stage = Stage::in_service(|agents| agents.permit_life = Duration::from_secs(4)).await;
    let agent = stage.agent().await;
    let device = stage.devices().await[0].clone();
    agent.until(&device, None).await;
    let Stage { line, cell: address, .. } = stage;
    let Line { cell, .. } = line;
    let mut settings = cell.settings().clone();
    cell.shutdown().await;
    assert!(agent.gate.permit(&device).is_ok(), "an agent goes on with what it has");
    let mut gate = agent.gate.clone();
    gate.turned().await;
    assert_eq!(agent.gate.permit(&device).unwrap_err().code(), "permit.expired");
    settings.agents.as_mut().unwrap().listen = address;
    let cell = bailiwick_cell::Cell::start(settings).await.unwrap();
    agent.until(&device, None).await;
    cell.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_started_again_goes_on_with_its_permits_and_none_of_another_start_of_the_host() {
    let stage = Stage::in_service(|_| {}).await;
    let agent = stage.agent().await;
    let device = stage.devices().await[0].clone();
    agent.until(&device, None).await;
    let probe = agent.host.borrow().probe.clone();
    let dir = agent.stop().await;
    let (_sender, seen) = tokio::sync::watch::channel(host((*probe).clone()));
    for (boot, permitted) in [(Some("boot-1"), true), (Some("boot-2"), false), (None, false)] {
        let boot_id = boot.map(str::to_owned);
        let (_, gate) = agent::cell::Reporter::new(dir.clone(), boot_id, seen.clone()).unwrap();
        assert_eq!(gate.permit(&device).is_ok(), permitted, "{boot:?}");
    }
    for file in std::fs::read_dir(dir.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_ends() {
    let stage = Stage::enrolled(|agents| agents.certificate_life = Duration::from_secs(6)).await;
    let agent = stage.agent().await;
    let first = agent.dir.identity().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    let renewed = loop {
        let now = agent.dir.identity().unwrap();
        if now.certificate != first.certificate {
            break now;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_ne!(renewed.key, first.key);
    assert!(renewed.received < first.received.checked_add(Duration::from_secs(6)).unwrap());
    // The old one still is this agent's, and lets in until its end; then it may be renewed, and nothing else.
    let old = format!("{}{}", first.key, first.certificate);
    let report = json!({
        "version": "1", "digest": Digest::of(b"").to_string(), "registered": null, "bootId": "b",
    });
    let ended = loop {
        let (status, answer) = stage.call("/agent/v1/report", report.to_string().into(), Some(&old)).await;
        if status != 200 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(ended["code"], "agent.certificate-ended", "{ended}");
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let body = json!({ "csr": csr }).to_string();
    assert_eq!(stage.call("/agent/v1/renew", body.into(), Some(&old)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_for_its_machine_and_its_cell() {
    let stage = Stage::enrolled(|_| {}).await;
    let other = "00000000-0000-0000-0000-00000000beef";
    let token = stage.client().agent_token(&stage.machine).await;
    assert_eq!(code(stage.enrol_with(&token, other, "other").await), "agent.other-machine");
    // The answer of the first try may have been lost: the same host asks again.
    let dir = StateDir::open(stage.path("one")).unwrap();
    enrol(&dir, &url(stage.cell), &token, Some(stage.uuid.clone())).await.unwrap();
    assert_eq!(code(stage.enrol_with(&token, &stage.uuid, "two").await), "agent.token-used");
    // Nothing of a token is said to a cell that it does not name.
    let secret = AgentToken::new([7; 32], &Digest::of(b"another authority")).reveal();
    assert_eq!(code(stage.enrol_with(&secret, &stage.uuid, "three").await), "agent.cell-untrusted");
    assert_eq!(code(stage.enrol_with("bwa_x", &stage.uuid, "four").await), "agent.token-malformed");

    let path = format!("/api/v1/machines/{}/agent-token", stage.machine);
    let (status, answer) = stage.client().call("POST", &path, Some(json!({ "expiresInSeconds": 1 }))).await;
    assert_eq!(status, 201, "{answer}");
    let late = answer["token"].as_str().unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    // Refused for its host all the while, and late in the end.
    while code(stage.enrol_with(late, other, "five").await) != "agent.token-late" {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_certificate_of_this_cell_or_one_of_an_earlier_enrolment_is_refused() {
    let stage = Stage::enrolled(|_| {}).await;
    let (_, first) =
        enrolled(stage.client(), stage.cell, &stage.machine, &stage.uuid, &stage.path("a")).await.unwrap();
    let (_, second) =
        enrolled(stage.client(), stage.cell, &stage.machine, &stage.uuid, &stage.path("b")).await.unwrap();
    let pem = |identity: &agent::cell::Identity| format!("{}{}", identity.key, identity.certificate);
    let report = json!({
        "version": "1", "digest": Digest::of(b"").to_string(), "registered": null, "bootId": "b",
    });
    let body = || report.to_string().into_bytes();
    let (status, answer) = stage.call("/agent/v1/report", body(), None).await;
    assert_eq!((status, answer["code"].as_str()), (401, Some("agent.no-certificate")));
    let (status, answer) = stage.call("/agent/v1/report", body(), Some(&pem(&first))).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("agent.ended")));
    let (status, answer) = stage.call("/agent/v1/report", body(), Some(&pem(&second))).await;
    assert_eq!(status, 200, "{answer}");

    // A certificate of the machine's name that the cell did not sign: the handshake fails.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, stage.machine.as_str());
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let foreign = params.self_signed(&key).unwrap().pem();
    let identity = reqwest::Identity::from_pem((key.serialize_pem() + &foreign).as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    let client = client.identity(identity).build().unwrap();
    let refused = client.post(format!("https://{}/agent/v1/report", stage.cell)).send().await;
    assert!(refused.is_err(), "{refused:?}");

    // A machine that is set aside ends its agent.
    let quarantine = json!({ "quarantine": { "reason": "odd" } });
    stage.line.want(&stage.machine, quarantine).await;
    stage.line.until(&stage.machine, |machine| machine["state"] == "quarantined").await;
    for path in ["/agent/v1/report", "/agent/v1/renew"] {
        let (status, answer) = stage.call(path, body(), Some(&pem(&second))).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("agent.ended")), "{path}");
    }
    let path = format!("/api/v1/machines/{}/agent-token", stage.machine);
    let (status, answer) = stage.client().call("POST", &path, Some(json!({}))).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("agent.not-allowed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_too_often_or_contradicts_itself_is_refused() {
    let stage = Stage::enrolled(|_| {}).await;
    let (_, identity) =
        enrolled(stage.client(), stage.cell, &stage.machine, &stage.uuid, &stage.path("a")).await.unwrap();
    let pem = format!("{}{}", identity.key, identity.certificate);
    let probe = stage.client().probe_of(&stage.machine, &stage.uuid).await;
    let mut report = json!({
        "version": "1", "digest": Digest::of(b"").to_string(), "registered": null, "bootId": "b", "probe": probe,
    });
    let (status, answer) = stage.call("/agent/v1/report", report.to_string().into(), Some(&pem)).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("agent.report-malformed")));
    report["version"] = "x".repeat(domain::agent::LARGEST_CALL).into();
    let (status, _) = stage.call("/agent/v1/report", report.to_string().into(), Some(&pem)).await;
    assert_eq!(status, 413);
    let too_often = async {
        loop {
            let (status, answer) = stage.call("/agent/v1/report", b"{}".to_vec(), Some(&pem)).await;
            if status == 429 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_mins(1), too_often).await.unwrap();
    assert_eq!(answer["code"], "agent.too-often");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_falls_silent_is_told_and_confirms_no_gpu_any_more() {
    let stage = Stage::enrolled(|_| {}).await;
    let agent = stage.agent().await;
    stage.gpus_become("probed").await;
    agent.stop().await;
    stage.client().wait_for_event("agent.silent", &stage.machine).await;
    stage.gpus_become("inventoried").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gpus_of_a_dgx_h100_are_probed_and_published_once_bmc_certificates_and_driver_agree() {
    let stage = Stage::in_service_of(Model::DgxH100, |_| {}).await;
    stage.gpus_become("inventoried").await;
    let class = json!({ "jurisdiction": "eu", "requires": ["inventoried", "probed"] });
    stage.client().apply(vec![crate::support::document("GpuClass", "probed", class)], &[]).await;
    let agent = stage.agent_of(stage.by_driver().await).await;
    stage.gpus_become("probed").await;
    let devices = stage.devices().await;
    assert_eq!(devices.len(), 8);
    for device in &devices {
        agent.until(device, None).await;
    }
    let gpu = stage.client().get(&format!("/api/v1/gpus/{}", devices[0])).await;
    let component = gpu["spdm"]["component"].as_str().unwrap();
    assert!(component.starts_with("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_"), "{gpu}");
    assert!(gpu["redfish"]["sources"].as_array().unwrap().contains(&gpu["spdm"]["protects"][0]), "{gpu}");
    assert!(gpu["spdm"]["sha256"].as_str().unwrap().starts_with("sha256:"), "{gpu}");
    assert_ne!(gpu["spdm"]["serial"], gpu["redfish"]["serial"]);
    assert_eq!(gpu["allocatableBy"], json!(["probed", "trial"]));
    stage.client().wait_until_published().await;
    let observed = crate::support::publish_dir(&stage.line.dir).join("observed");
    let published: String = std::fs::read_dir(observed)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(devices.iter().all(|device| published.contains(device)), "{published}");

    // One certificate is gone: that GPU alone is kept out.
    let bmc = stage.line.site.bmc(&stage.machine).unwrap();
    let chain = format!("{component}/Certificates/CertChain");
    let whole = bmc.resource(&chain).unwrap();
    assert!(bmc.merge_resource(&chain, &json!({ "CertificateString": "none" })));
    stage.refresh().await;
    assert_eq!(stage.conflict("gpu.conflict.unreadable").await["device"], devices[0].as_str());
    agent.until(&devices[0], Some("permit.none")).await;
    agent.until(&devices[1], None).await;
    bmc.set_resource(&chain, whole);
    stage.refresh().await;
    agent.until(&devices[0], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_with_another_certificate_or_in_the_place_of_another_is_kept_out_until_a_person_accepts_it() {
    let stage = Stage::in_service_of(Model::DgxH100, |_| {}).await;
    let agent = stage.agent().await;
    stage.gpus_become("probed").await;
    let seen = stage.client().wait_for_event("gpu.accepted", &stage.machine).await;
    assert_eq!(seen["actor"], "cell");
    let bmc = stage.line.site.bmc(&stage.machine).unwrap();
    let chain = |id: &str| format!("/redfish/v1/Chassis/{id}/Certificates/CertChain");
    let other = bmc.resource(&chain("EROT_BIOS_0")).unwrap()["CertificateString"].clone();
    assert!(bmc.merge_resource(&chain("HGX_ERoT_GPU_SXM_1"), &json!({ "CertificateString": other })));
    stage.refresh().await;
    let gpu = stage.conflict("gpu.conflict.changed").await;
    agent.until(gpu["device"].as_str().unwrap(), Some("permit.none")).await;
    let accepted = stage.accept().await;
    assert_eq!(accepted["accepted"].as_array().unwrap().len(), 1);
    stage.gpus_become("probed").await;

    // The board in SXM 2 is exchanged, as BMC and driver both see.
    let (serial, uuid) = ("1650000000000", "00000000-0000-4000-8000-00000000beef");
    let before = gpu_at(&stage, "SXM2").await;
    let chassis = "/redfish/v1/Chassis/HGX_GPU_SXM_2";
    for path in [
        "/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_2".to_owned(),
        chassis.to_owned(),
        format!("{chassis}/PCIeDevices/GPU_SXM_2"),
    ] {
        assert!(bmc.merge_resource(&path, &json!({ "SerialNumber": serial, "UUID": uuid })));
    }
    agent.host.send_modify(|host| {
        let gpus = &mut std::sync::Arc::make_mut(&mut host.probe).gpus;
        let gpu =
            gpus.iter_mut().find(|gpu| gpu.serial.as_deref() == before["gpu"]["serial"].as_str()).unwrap();
        (gpu.serial, gpu.uuid) = (Some(serial.to_owned()), Some(format!("GPU-{uuid}")));
    });
    stage.refresh().await;
    // Its certificate is that of the root of trust beside it, which stayed.
    stage.conflict("gpu.conflict.changed").await;
    let after = gpu_at(&stage, "SXM2").await;
    let forgotten = stage.accept().await["forgotten"].clone();
    assert_eq!(forgotten.as_array().unwrap().len(), 1, "{forgotten}");
    assert!(forgotten.to_string().contains(before["gpu"]["serial"].as_str().unwrap()), "{forgotten}");
    stage.gpus_become("probed").await;
    agent.until(after["device"].as_str().unwrap(), None).await;
}

async fn gpu_at(stage: &Stage, location: &str) -> Value {
    stage.gpus().await.into_iter().find(|gpu| gpu["gpu"]["location"] == location).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_by_our_driver_has_no_permits_either() {
    let stage = Stage::in_service(|_| {}).await;
    let agent = stage.agent().await;
    let device = stage.devices().await.remove(0);
    agent.until(&device, None).await;
    let mut pool = crate::line::pool();
    pool["spec"]["gpuDriver"] = json!("nvidia");
    stage.client().apply(vec![pool], &[]).await;
    agent.until(&device, Some("permit.none")).await;
    stage.client().apply(vec![crate::line::pool()], &[]).await;
    agent.until(&device, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_connect_and_say_nothing_keep_no_agent_out() {
    let stage = Stage::enrolled(|_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(tokio::net::TcpStream::connect(stage.cell).await.unwrap());
    }
    let _agent = stage.agent().await;
    stage.gpus_become("probed").await;
    // The oldest of them gave way, long before its time was over.
    let ended = async {
        let mut byte = [0];
        tokio::io::AsyncReadExt::read(&mut silent[0], &mut byte).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_earlier_enrolment_takes_no_calls_from_the_agent_that_is_there_now() {
    let stage = Stage::enrolled(|_| {}).await;
    let enrolled = async |dir| {
        let (_, identity) =
            enrolled(stage.client(), stage.cell, &stage.machine, &stage.uuid, &stage.path(dir))
                .await
                .unwrap();
        format!("{}{}", identity.key, identity.certificate)
    };
    let (old, new) = (enrolled("old").await, enrolled("new").await);
    for _ in 0..30 {
        let (status, _) = stage.call("/agent/v1/report", b"{}".to_vec(), Some(&old)).await;
        assert!(status == 403 || status == 429, "{status}");
    }
    let (status, _) = stage.call("/agent/v1/report", b"{}".to_vec(), Some(&new)).await;
    assert_eq!(status, 422, "let in, and the report is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_something_else_each_time_fills_no_log() {
    let stage = Stage::enrolled(|_| {}).await;
    let (_, identity) =
        enrolled(stage.client(), stage.cell, &stage.machine, &stage.uuid, &stage.path("a")).await.unwrap();
    let pem = format!("{}{}", identity.key, identity.certificate);
    let digest = Digest::of(b"").to_string();
    let report = |registered: Option<&str>| {
        json!({ "version": "1", "digest": digest, "registered": registered, "bootId": "b" }).to_string()
    };
    let mut taken = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while taken < 60 {
        let registered = (taken % 2 == 0).then_some("2026-11-21T00:00:00Z");
        let (status, _) = stage.call("/agent/v1/report", report(registered).into(), Some(&pem)).await;
        taken += usize::from(status == 200);
        assert!(tokio::time::Instant::now() < deadline, "only {taken}");
        if status == 429 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let events = stage.client().get("/api/v1/events?limit=1000").await;
    let told =
        events["items"].as_array().unwrap().iter().filter(|event| {
            ["agent.registered", "agent.unregistered"].iter().any(|kind| event["kind"] == *kind)
        });
    let told = told.count();
    assert!((20..=42).contains(&told), "{told} of 60");
}
