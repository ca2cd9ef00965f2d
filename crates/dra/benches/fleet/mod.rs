//! 10,000 GPUs in 1,250 machines.

#[path = "../../tests/support/h100.rs"]
mod h100;

use bailiwick_dra::{GpuKey, Input, PublishedMachine};
use domain::inventory::Gpu;
use domain::probe::{Driver, NvLink, Pci, ProbedGpu};
use domain::{Containment, Name};
use serde_json::json;

pub(crate) const MACHINES: usize = 1250;

/// DGX H100s that nobody has looked into but their BMCs.
pub(crate) fn inventoried() -> Input {
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

/// The same, and every driver tells of its GPUs; those of so many machines are in MIG mode, and may be parted so.
pub(crate) fn probed(parted: usize, partitions: &[&str]) -> Input {
    let mut input = inventoried();
    for (at, machine) in input.machines.iter_mut().enumerate() {
        let is_parted = at < parted;
        machine.driver = Some(Driver {
            version: Some("580.95.05".to_owned()),
            nvml: Some("13.580.95.05".to_owned()),
            cuda: Some("13.0".to_owned()),
        });
        if is_parted {
            machine.partitions = partitions.iter().map(|wish| wish.parse().unwrap()).collect();
        }
        for (at, gpu) in machine.gpus.iter().enumerate() {
            input.probed.insert(GpuKey::of(gpu).unwrap(), as_probed(gpu, at, is_parted));
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
    if parted { h100::in_mig_mode(probed) } else { probed }
}
