//! What it costs to render a fleet of 10,000 GPUs.

use bailiwick_dra::{DriverView, GpuKey, Input, PublishedMachine, publish, reconcile};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::inventory::Gpu;
use domain::probe::{Driver, Host, Mig, MigProfile, NvLink, Pci, Placement, Probe, ProbedGpu};
use domain::{Containment, Name};
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

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
        });
    }
    Some(input)
}

/// The MIG profiles of an H100: 25 placements.
fn mig() -> Mig {
    let profile = |id: u32, name: &str, slices: u32, memory: u64, starts: &[u32], size: u32| MigProfile {
        id,
        name: name.to_owned(),
        slices,
        memory_bytes: memory << 20,
        multiprocessors: slices * 16,
        copy_engines: slices,
        decoders: slices,
        jpegs: slices,
        placements: starts.iter().map(|start| Placement { start: *start, size }).collect(),
        ..MigProfile::default()
    };
    let profiles = vec![
        profile(19, "1g.10gb", 1, 9984, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(20, "1g.10gb+me", 1, 9984, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(15, "1g.20gb", 1, 20096, &[0, 2, 4, 6], 2),
        profile(14, "2g.20gb", 2, 20096, &[0, 2, 4], 2),
        profile(9, "3g.40gb", 3, 40448, &[0, 4], 4),
        profile(5, "4g.40gb", 4, 40448, &[0], 4),
        profile(0, "7g.80gb", 7, 81159, &[0], 8),
    ];
    Mig { enabled: false, pending: false, profiles, instances: vec![] }
}

/// The same fleet, probed on every node.
fn probed(mut input: Input) -> Input {
    for machine in &input.machines {
        let keys: Vec<_> = machine.gpus.iter().filter_map(GpuKey::of).collect();
        let gpu = |(index, gpu): (u32, &Gpu)| ProbedGpu {
            uuid: gpu.uuid.as_ref().map(|uuid| format!("GPU-{uuid}")),
            index,
            model: gpu.model.clone(),
            brand: Some("nvidia".to_owned()),
            architecture: Some("Hopper".to_owned()),
            serial: gpu.serial.clone(),
            pci: Pci {
                address: gpu.pci_address.clone(),
                root: Some("pci0000:15".to_owned()),
                ..Pci::default()
            },
            numa_node: Some(index / 4),
            memory_bytes: Some(85_520_809_984),
            compute_capability: Some("9.0".to_owned()),
            mig: Some(mig()),
            nvlinks: (0..18)
                .map(|link| NvLink {
                    link,
                    active: true,
                    remote_pci: Some("0000:05:00.0".to_owned()),
                    remote_kind: None,
                })
                .collect(),
            ..ProbedGpu::default()
        };
        let probe = Arc::new(Probe {
            taken: Timestamp::UNIX_EPOCH,
            boot_id: None,
            host: Host::default(),
            driver: Some(Driver {
                version: Some("580.95.05".to_owned()),
                nvml: None,
                cuda: Some("13.0".to_owned()),
            }),
            confidential_computing: None,
            gpus: (0..).zip(&machine.gpus).map(gpu).collect(),
            diagnostics: vec![],
        });
        let view = |place| DriverView { probe: Arc::clone(&probe), place };
        input.drivers.extend(keys.iter().cloned().enumerate().map(|(place, key)| (key, view(place))));
        input.probed.extend(keys);
    }
    input
}

fn render(criterion: &mut Criterion) {
    let Some(input) = fleet() else { return };
    criterion.bench_function("publish 10,000 GPUs", |bench| bench.iter(|| publish(&input)));
    let mut probed = probed(input.clone());
    criterion.bench_function("publish 10,000 probed GPUs", |bench| bench.iter(|| publish(&probed)));
    probed.partitionable = probed.probed.clone();
    let mut parted = criterion.benchmark_group("with all MIG partitions");
    parted.sample_size(10);
    parted.bench_function("publish 10,000 probed GPUs", |bench| bench.iter(|| publish(&probed)));
    parted.finish();
    let output = publish(&input);
    let existing: Vec<_> = output.observed.iter().map(|object| object.json.clone()).collect();
    criterion.bench_function("reconcile 10,000 GPUs, nothing to do", |bench| {
        bench.iter(|| reconcile(&existing, &output.observed));
    });
}

criterion_group!(benches, render);
criterion_main!(benches);
