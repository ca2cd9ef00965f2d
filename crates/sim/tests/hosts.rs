//! Hosts in numbers, what plays their operating systems, and what goes wrong on them.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bailiwick_sim::{
    Behaviour, Booted, BootedHost, HostFault, HostOptions, MachineKind, OnBoot, RunningSite, Site, iso,
};
use support::{File, small_tree};

/// Operating systems that run until they are dropped, and are counted.
#[derive(Debug, Default)]
struct Running(Arc<AtomicUsize>);

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OnBoot for Running {
    fn run(&self, host: BootedHost) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        assert!(!host.macs.is_empty() && matches!(host.booted, Booted::LiveIso { .. }));
        self.0.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(&self.0));
        Box::pin(async move {
            let _counted = counted;
            std::future::pending::<()>().await;
        })
    }
}

async fn site(directory: &std::path::Path, machines: usize, on_boot: Option<Arc<dyn OnBoot>>) -> RunningSite {
    let (tree, behaviour) = (Arc::new(small_tree()), Arc::new(Behaviour::default()));
    let kind = MachineKind::Tree { name: "small".to_owned(), tree, behaviour };
    let site = Site::builder(directory).latency_scale(0.0).machines(kind, machines);
    let hosts = HostOptions { on_boot, heartbeat: Duration::from_millis(10), ..HostOptions::default() };
    site.bootable(hosts).build().start().await.unwrap()
}

/// Puts the ISO into every machine's drive and switches it off and on.
async fn boot_all(site: &RunningSite, iso: &str) {
    for machine in site.machines() {
        let slot = "/redfish/v1/Managers/BMC/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia";
        let request = support::client().post(format!("{}{slot}", machine.url));
        let request = request.basic_auth(&machine.username, Some(&machine.password));
        let body = serde_json::json!({ "Image": iso }).to_string();
        assert_eq!(request.body(body).send().await.unwrap().status(), 204);
        let bmc = site.bmc(&machine.name).unwrap();
        bmc.switch(false);
        bmc.switch(true);
    }
}

async fn becomes(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn what_plays_an_operating_system_ends_with_the_power_and_with_the_site() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::serve(iso::image("LIVE", "")).await;
    let running = Arc::new(AtomicUsize::new(0));
    let site = site(directory.path(), 3, Some(Arc::new(Running(Arc::clone(&running))))).await;
    boot_all(&site, &file.url).await;
    becomes("all run", || running.load(Ordering::SeqCst) == 3).await;
    site.bmc("r1-u02").unwrap().switch(false);
    becomes("one ended", || running.load(Ordering::SeqCst) == 2).await;
    drop(site);
    becomes("all ended", || running.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_host_that_hangs_boots_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::serve(iso::image("LIVE", "")).await;
    let site = site(directory.path(), 1, None).await;
    let bmc = Arc::clone(site.bmc("r1-u01").unwrap());
    bmc.add_host_fault(HostFault::NoBoot, 1);
    boot_all(&site, &file.url).await;
    let progress = || bmc.resource("/redfish/v1/Systems/1").unwrap()["BootProgress"]["LastState"].clone();
    becomes("it hangs", || progress() == "SystemHardwareInitializationComplete").await;
    bmc.switch(false);
    bmc.switch(true);
    becomes("it boots", || matches!(bmc.booted(), Booted::LiveIso { .. })).await;
}

#[tokio::test]
async fn an_agent_whose_ironic_is_away_waits_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let ironic = format!("http://127.0.0.1:{}", support::unused_port());
    let file = File::serve(iso::agent(Some(&ironic))).await;
    let site = site(directory.path(), 1, None).await;
    boot_all(&site, &file.url).await;
    let bmc = site.bmc("r1-u01").unwrap();
    becomes("the agent runs", || matches!(bmc.booted(), Booted::Agent { .. })).await;
    site.shutdown().await;
}

#[tokio::test]
async fn hundreds_of_hosts_boot_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::serve(iso::image("LIVE", "")).await;
    let site = site(directory.path(), 300, None).await;
    boot_all(&site, &file.url).await;
    let booted = || {
        let live = |machine: &&bailiwick_sim::SimMachine| {
            matches!(site.bmc(&machine.name).unwrap().booted(), Booted::LiveIso { .. })
        };
        site.machines().iter().filter(live).count()
    };
    becomes("all booted", || booted() == 300).await;
}
