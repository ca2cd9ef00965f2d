//! What it costs to render a fleet of 10,000 GPUs.

use bailiwick_dra::{Input, PublishedMachine, publish, reconcile};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::inventory::Gpu;
use domain::{Containment, Name};
use serde_json::json;

fn fleet() -> Option<Input> {
    let name = |text: &str| Name::new(text).ok();
    let mut input = Input::new(name("bench")?, "bailiwick-cell");
    input.jurisdictions = Containment::new([(name("eu")?, vec![]), (name("de")?, vec![name("eu")?])]).ok()?;
    let site =
        json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": ["10.0.0.0/8"] });
    input.sites.insert(name("fra1")?, serde_json::from_value(site).ok()?);
    input.classes = vec![(name("h100")?, serde_json::from_value(json!({ "jurisdiction": "eu" })).ok()?)];
    for machine in 0..1250 {
        let gpu = |at: usize| Gpu {
            model: Some("NVIDIA H100 80GB HBM3".to_owned()),
            manufacturer: Some("NVIDIA".to_owned()),
            serial: Some(format!("16{machine:06}{at:02}")),
            uuid: Some(format!("00000000-0000-0000-{machine:04}-{at:012}")),
            pci_address: Some(format!("0000:{at:02x}:00.0")),
            ..Gpu::default()
        };
        input.machines.push(PublishedMachine {
            name: name(&format!("dgx-{machine:04}"))?,
            site: name("fra1")?,
            rack: None,
            zone: None,
            gpus: (0..8).map(gpu).collect(),
            alarms: vec![],
            driver: None,
            gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
            partitions: vec![],
        });
    }
    Some(input)
}

fn render(criterion: &mut Criterion) {
    let Some(input) = fleet() else { return };
    criterion.bench_function("publish 10,000 GPUs", |bench| bench.iter(|| publish(&input)));
    let output = publish(&input);
    let existing: Vec<_> = output.observed.iter().map(|object| object.json.clone()).collect();
    criterion.bench_function("reconcile 10,000 GPUs, nothing to do", |bench| {
        bench.iter(|| reconcile(&existing, &output.observed));
    });
}

criterion_group!(benches, render);
criterion_main!(benches);
