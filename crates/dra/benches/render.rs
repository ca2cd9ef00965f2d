//! What it costs to render a fleet of 10,000 GPUs: as a BMC lists them, as their drivers tell of them, and in all their partitions.
#![allow(clippy::unwrap_used, reason = "a fleet that cannot be made is no fleet to measure")]

#[path = "../tests/support/h100.rs"]
mod h100;

use bailiwick_dra::{GpuKey, Input, Object, PublishedMachine, publish, reconcile};
use criterion::{Criterion, criterion_group, criterion_main};
use domain::inventory::Gpu;
use domain::probe::{Driver, Mig, NvLink, Pci, ProbedGpu};
use domain::{Containment, Name};
use serde_json::json;
use std::cell::OnceCell;

const MACHINES: usize = 1250;

/// DGX H100s that nobody has looked into but their BMCs.
fn inventoried() -> Input {
    let name = |text: &str| Name::new(text).unwrap();
    let mut input = Input::new(name("bench"), "bailiwick-cell");
    input.jurisdictions = Containment::new([(name("eu"), vec![]), (name("de"), vec![name("eu")])]).unwrap();
    let site =
        json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": ["10.0.0.0/8"] });
    input.sites.insert(name("fra1"), serde_json::from_value(site).unwrap());
    input.classes = vec![(name("h100"), serde_json::from_value(json!({ "jurisdiction": "eu" })).unwrap())];
    for machine in 0..MACHINES {
        let gpu = |at: usize| Gpu {
            model: Some("NVIDIA H100 80GB HBM3".to_owned()),
            manufacturer: Some("NVIDIA".to_owned()),
            serial: Some(format!("16{machine:06}{at:02}")),
            uuid: Some(format!("00000000-0000-0000-{machine:04}-{at:012}")),
            pci_address: Some(format!("0000:{at:02x}:00.0")),
            ..Gpu::default()
        };
        input.machines.push(PublishedMachine {
            name: name(&format!("dgx-{machine:04}")),
            site: name("fra1"),
            rack: None,
            zone: None,
            gpus: (0..8).map(gpu).collect(),
            alarms: vec![],
            driver: None,
            gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
            partitions: vec![],
        });
    }
    input
}

/// The same, and every driver tells of its GPUs; all of them parted into whatever they can be, or none.
fn probed(parted: bool) -> Input {
    let mut input = inventoried();
    for machine in &mut input.machines {
        machine.driver = Some(Driver {
            version: Some("580.95.05".to_owned()),
            nvml: Some("13.580.95.05".to_owned()),
            cuda: Some("13.0".to_owned()),
        });
        if parted {
            machine.partitions = vec!["*".to_owned()];
        }
        for (at, gpu) in machine.gpus.iter().enumerate() {
            input.probed.insert(GpuKey::of(gpu).unwrap(), as_probed(gpu, at, parted));
        }
    }
    input
}

/// What NVML tells of the H100 at this place of a DGX.
fn as_probed(gpu: &Gpu, at: usize, parted: bool) -> ProbedGpu {
    let mut probed = h100::h100(None);
    let link = |link: u32| NvLink {
        link,
        active: true,
        remote_pci: Some(format!("0000:{:02x}:00.0", 0xa0 + link % 4)),
        ..NvLink::default()
    };
    probed.index = u32::try_from(at).unwrap();
    probed.uuid = gpu.uuid.as_ref().map(|uuid| format!("GPU-{uuid}"));
    probed.serial.clone_from(&gpu.serial);
    probed.vbios = Some("96.00.A5.00.01".to_owned());
    probed.pci = Pci { address: gpu.pci_address.clone(), ..probed.pci };
    probed.nvlinks = (0..18).map(link).collect();
    probed.mig = probed.mig.map(|mig| Mig { enabled: parted, pending: parted, ..mig });
    probed
}

fn render(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("10,000 GPUs");
    group.sample_size(20);
    for kind in ["inventoried", "probed", "with all partitions"] {
        // Made when it is measured: the last is large.
        let input = OnceCell::new();
        let input = || {
            input.get_or_init(|| match kind {
                "inventoried" => inventoried(),
                _ => probed(kind != "probed"),
            })
        };
        group.bench_function(format!("{kind}: publish"), |bench| {
            let input = input();
            bench.iter(|| publish(input));
        });
        group.bench_function(format!("{kind}: reconcile, nothing to do"), |bench| {
            let output = publish(input());
            let existing: Vec<_> = output.observed.iter().map(Object::json).collect();
            bench.iter(|| reconcile(&existing, &output.observed));
        });
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
