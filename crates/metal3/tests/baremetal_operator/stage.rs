//! The counterparts, and the few moves that all scenarios are made of.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bailiwick_metal3::drive::Persistence;
use bailiwick_metal3::{Progress, Registration, Standing, Transport, Wish, bmc_address, step};
use kube::Client;
use serde_json::Value;
use sim::{Bmc, Booted, HostOptions, Model, RunningSite, SimMachine, Site};
use testbed::{BaremetalOperator, ControlPlane, Ironic};

use crate::support;

/// A scenario's end, or the sentence that says why it failed.
pub type Outcome<T = ()> = Result<T, String>;

/// Longest wait for one wish: the operator backs off for one to two minutes after a failure.
const PATIENCE: Duration = Duration::from_mins(10);
/// Often, so that figures are exact; the cell polls as it is told.
const POLL: Duration = Duration::from_secs(1);

pub struct Stage {
    pub operator: BaremetalOperator,
    pub ironic: Ironic,
    pub plane: ControlPlane,
    pub client: Client,
    site: RunningSite,
    figures: Mutex<Vec<String>>,
    _directory: tempfile::TempDir,
}

impl Stage {
    pub async fn start(machines: usize) -> Self {
        let plane = ControlPlane::options().scheduler(false);
        let (plane, ironic) = tokio::join!(plane.start(), Ironic::options().start());
        let (plane, ironic) = (plane.unwrap(), ironic.unwrap());
        let operator = BaremetalOperator::options().concurrency(8).start(&plane, &ironic).await.unwrap();
        let client = support::cell(&plane, operator.namespace()).await;
        let directory = tempfile::tempdir().unwrap();
        let hosts = HostOptions {
            ironic_url: Some(ironic.url().to_owned()),
            firmware: Duration::from_secs(1),
            heartbeat: Duration::from_secs(1),
            ..HostOptions::default()
        };
        let site =
            Site::builder(directory.path().join("site")).seed("metal3").machines(Model::CpuNode, machines);
        let site = site.bootable(hosts).build().start().await.unwrap();
        Self { operator, ironic, plane, client, site, figures: Mutex::default(), _directory: directory }
    }

    pub fn subject(&self, n: usize, name: &'static str) -> Subject<'_> {
        let machine = &self.site.machines()[n];
        let bmc = Arc::clone(self.site.bmc(&machine.name).unwrap());
        let system = bmc.tree().host_system().unwrap();
        let interfaces = bmc.resource(&format!("{system}/EthernetInterfaces")).unwrap();
        let first = bmc.resource(interfaces["Members"][0]["@odata.id"].as_str().unwrap()).unwrap();
        let authority = machine.url.strip_prefix("https://").unwrap();
        let address = bmc_address(Transport::Https, authority, &system).unwrap();
        let account = (machine.username.as_str(), machine.password.as_str());
        let mac = first["MACAddress"].as_str().unwrap();
        let registration = support::registration(name, address, mac, account);
        Subject { stage: self, machine, bmc, registration, name }
    }

    /// What was measured, one line each.
    pub fn figures(&self) -> String {
        let mut figures = self.figures.lock().unwrap().clone();
        figures.sort();
        figures.join("\n")
    }
}

/// A machine with what Metal3 must know of it.
pub struct Subject<'a> {
    pub stage: &'a Stage,
    pub machine: &'a SimMachine,
    pub bmc: Arc<Bmc>,
    pub registration: Registration,
    pub name: &'static str,
}

impl Subject<'_> {
    pub async fn step(&self, wish: &Wish) -> Outcome<Progress> {
        let namespace = self.stage.operator.namespace();
        match step(&self.stage.client, namespace, &self.registration, wish).await {
            // Another writer was quicker, which is the operator.
            Err(error) if error.code() == "metal3.conflict" => {
                Ok(Progress::Acted(bailiwick_metal3::Action {
                    verb: "",
                    kind: "",
                    name: String::new(),
                    uid: String::new(),
                }))
            }
            answer => answer.map_err(|error| format!("{}: {error}", self.name)),
        }
    }

    /// Steps until this is so; the error tells the last progress.
    pub async fn until(
        &self,
        wish: &Wish,
        what: &str,
        is_so: impl Fn(&Progress) -> bool,
    ) -> Outcome<Progress> {
        let begun = Instant::now();
        let mut way: Vec<String> = Vec::new();
        loop {
            let progress = self.step(wish).await?;
            self.note(&progress, begun, &mut way);
            if is_so(&progress) {
                let line = format!(
                    "{}: {what} {:.1} s [{}]",
                    self.name,
                    begun.elapsed().as_secs_f64(),
                    way.join(", ")
                );
                self.stage.figures.lock().unwrap().push(line);
                return Ok(progress);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{}: {wish} and not {what} but {progress:?} after {way:?}", self.name));
            }
            if !matches!(progress, Progress::Acted(_)) {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    #[allow(clippy::unused_self)] // read beside the others
    fn note(&self, progress: &Progress, begun: Instant, way: &mut Vec<String>) {
        let said = match progress {
            Progress::Acted(action) => format!("{} {}", action.verb, action.kind),
            Progress::Waiting { problem, .. } | Progress::Refused { problem, .. } => problem.code.clone(),
            Progress::Reached(_) => "reached".to_owned(),
        };
        if way.last().is_none_or(|last| last.split(" @").next() != Some(said.as_str())) {
            way.push(format!("{said} @{:.1}", begun.elapsed().as_secs_f64()));
        }
    }

    /// Brings it where it is wished; a passing refusal on the way is waited out.
    pub async fn reaches(&self, wish: &Wish) -> Outcome<Option<Standing>> {
        let over = |progress: &Progress| {
            let lasting = matches!(progress, Progress::Refused { persistence: Persistence::Lasting, .. });
            lasting || matches!(progress, Progress::Reached(_))
        };
        match self.until(wish, &format!("-> {wish}"), over).await? {
            Progress::Reached(standing) => Ok(standing),
            other => Err(format!("{}: {wish}: {other:?}", self.name)),
        }
    }

    /// Steps until it is refused with this code; returns what is said.
    pub async fn refused(&self, wish: &Wish, code: &str) -> Outcome<String> {
        let is_so = |progress: &Progress| matches!(progress, Progress::Refused { problem, .. } if problem.code == code);
        match self.until(wish, code, is_so).await? {
            Progress::Refused { problem, .. } => Ok(problem.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    pub async fn boots(&self, what: &str, wanted: impl FnMut(&Booted) -> bool) -> Outcome<Booted> {
        let mut host = self.bmc.watch_booted().unwrap();
        match tokio::time::timeout(PATIENCE, host.wait_for(wanted)).await {
            Ok(Ok(booted)) => Ok(booted.clone()),
            _ => Err(format!("{}: the host runs {:?}, not {what}", self.name, self.bmc.booted())),
        }
    }

    /// A merge patch by a person.
    pub async fn edit(&self, host: &str, patch: &Value) {
        support::edit(&self.stage.plane, self.stage.operator.namespace(), host, patch).await;
    }

    /// What kubectl prints, in the namespace of the hosts.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.stage.operator.namespace());
        let arguments: Vec<_> = arguments.iter().copied().chain([namespace.as_str()]).collect();
        support::kubectl(&self.stage.plane, &arguments).await
    }

    /// Waits until something is true that nobody tells of.
    pub async fn comes_true(&self, what: &str, is_so: impl AsyncFn() -> bool) -> Outcome {
        let begun = Instant::now();
        while !is_so().await {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{}: never {what}", self.name));
            }
            tokio::time::sleep(POLL).await;
        }
        let line = format!("{}: {what} {:.1} s", self.name, begun.elapsed().as_secs_f64());
        self.stage.figures.lock().unwrap().push(line);
        Ok(())
    }
}

pub fn ensure(holds: bool, otherwise: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
