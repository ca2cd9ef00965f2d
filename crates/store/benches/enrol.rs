//! How fast machines are declared, discovered, enrolled and seen again, one after the other, with commits that reach the disk.
//!
//! `cargo bench -p bailiwick-store`; run without `--bench` (as `cargo test --all-targets` does) it takes ten machines only.
#![allow(clippy::print_stdout)] // what a benchmark is for

use bailiwick_store::{Store, StoreError, StoreOptions};
use domain::inventory::{Gpu, Identity, Nic};
use domain::{Digest, Inventory, Name, fact};
use jiff::Timestamp;
use std::error::Error;
use std::time::Instant;
use testbed::Postgres;

mod support;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let machines = if std::env::args().any(|argument| argument == "--bench") { 1000 } else { 10 };
    let directory = tempfile::tempdir()?;
    let options = |url| StoreOptions { url, key_file: directory.path().join("key"), max_connections: 4 };
    let url = format!("sqlite://{}", directory.path().join("db").display());
    measure("SQLite", &Store::open(options(url)).await?, machines).await?;

    let server = Postgres::options().durable(true).start().await?;
    server.create_database("bench").await?;
    measure("PostgreSQL", &Store::open(options(server.url("bench"))).await?, machines).await?;
    Ok(())
}

async fn measure(database: &str, store: &Store, machines: u32) -> Result<(), Box<dyn Error>> {
    let support::Rack { plan, passwords } = support::rack(machines)?;
    let start = Instant::now();
    store.save_plan(&plan, &passwords, "bench").await?;
    store.apply_plan(&plan.digest, "bench").await?;
    report(database, "declared", machines, start);
    let records = store.machines().await?;
    let pin = Digest::of(b"key");

    let start = Instant::now();
    for record in &records {
        store.record_discovery(&record.name, record.generation, &pin).await?;
    }
    report(database, "discovered", machines, start);
    for pass in ["enrolled", "seen again"] {
        let start = Instant::now();
        let mut facts = 0;
        for record in &records {
            facts = enrol(store, &record.name, record.generation).await?;
        }
        report(database, &format!("{pass} ({facts} facts each)"), machines, start);
    }
    let start = Instant::now();
    let gpus = store.gpus().await?.len();
    println!("{database}: {gpus} GPUs listed in {:?}", start.elapsed());
    store.close().await;
    Ok(())
}

async fn enrol(store: &Store, machine: &Name, generation: i64) -> Result<usize, StoreError> {
    let at = Timestamp::now();
    let gpu = |number: u32| Gpu {
        model: Some("NVIDIA H100 80GB HBM3".into()),
        manufacturer: Some("NVIDIA".into()),
        serial: Some(format!("{machine}-G{number}")),
        uuid: Some(format!("{machine}-U{number}")),
        part_number: Some("2330-885-A1".into()),
        firmware_version: Some("96.00.99.00.05".into()),
        pci_address: Some(format!("0000:{number:02x}:00.0")),
        sources: vec![format!("/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_{number}")],
        ..Gpu::default()
    };
    let nic = |number: u32| Nic {
        mac: format!("02:00:00:00:00:{number:02x}"),
        model: Some("ConnectX-7".into()),
        sources: vec![format!("/redfish/v1/Systems/1/EthernetInterfaces/{number}")],
    };
    let inventory = Inventory {
        identity: Identity { serial: Some(machine.to_string()), ..Identity::default() },
        gpus: (0..8).map(gpu).collect(),
        nics: (0..40).map(nic).collect(),
        ..Inventory::default()
    };
    let facts = fact::from_inventory(&inventory, at);
    store.record_enrolment(machine, generation, &inventory, &facts, at).await?;
    Ok(facts.len())
}

fn report(database: &str, what: &str, machines: u32, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{database}: {machines} {what} in {seconds:.2} s, {:.0} a second",
        f64::from(machines) / seconds
    );
}
