//! What a probe tells of a GPU that can be parted.

use domain::probe::{Finding, Mig, MigProfile, Pci, Placement, ProbedGpu, Severity};

/// Id, name, multiprocessors, memory slices, places: the profiles of an H100 with 80 GB, as NVIDIA's MIG user guide lists them.
const PROFILES: [(u32, &str, u32, u32, &[u32]); 7] = [
    (19, "1g.10gb", 16, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (20, "1g.10gb+me", 16, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, "1g.20gb", 26, 2, &[0, 2, 4, 6]),
    (14, "2g.20gb", 32, 2, &[0, 2, 4]),
    (9, "3g.40gb", 60, 4, &[0, 4]),
    (5, "4g.40gb", 64, 4, &[0]),
    (0, "7g.80gb", 132, 8, &[0]),
];

/// What a probe tells of an H100.
pub(crate) fn h100(worst: Option<Severity>) -> ProbedGpu {
    let profile = |(id, name, multiprocessors, size, starts): (u32, &str, u32, u32, &[u32])| MigProfile {
        id,
        name: name.to_owned(),
        memory_bytes: u64::from(size) * (10 << 30),
        multiprocessors,
        slices: slices(name),
        copy_engines: slices(name),
        decoders: slices(name),
        max_instances: 7 / slices(name),
        placements: starts.iter().map(|start| Placement { start: *start, size }).collect(),
        ..MigProfile::default()
    };
    let finding = |severity| Finding { severity, code: "gpu.health.xid".into(), message: String::new() };
    ProbedGpu {
        uuid: Some("GPU-00000000-0000-0000-0000-000000000001".into()),
        model: Some("NVIDIA H100 80GB HBM3".into()),
        brand: Some("nvidia".into()),
        architecture: Some("Hopper".into()),
        compute_capability: Some("9.0".into()),
        memory_bytes: Some(80 << 30),
        numa_node: Some(1),
        pci: Pci { address: Some("0000:1b:00.0".into()), root: Some("pci0000:15".into()), ..Pci::default() },
        mig: Some(Mig { profiles: PROFILES.map(profile).to_vec(), ..Mig::default() }),
        health: worst.map(finding).into_iter().collect(),
        ..ProbedGpu::default()
    }
}

/// The same with its MIG mode on.
pub(crate) fn in_mig_mode(gpu: ProbedGpu) -> ProbedGpu {
    let on = |mig| Mig { enabled: true, pending: true, ..mig };
    ProbedGpu { mig: gpu.mig.map(on), ..gpu }
}

/// The compute slices that a profile's name begins with.
fn slices(name: &str) -> u32 {
    name[..1].parse().unwrap()
}
