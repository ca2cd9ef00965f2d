//! `bailiwick-agent probe`: what the driver knows of this host's GPUs, once.

use crate::Error;
use crate::output::{self, Format, fields, heading, table};
use clap::Args;
use domain::probe::{ConfidentialComputing, FabricState, MigProfile, Probe, ProbedGpu};
use gpu::{Context, HostRoot, Nvml, Xids};
use jiff::Timestamp;
use std::path::PathBuf;

/// Options of `probe`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent probe
  bailiwick-agent probe --wide
  bailiwick-agent probe -o json | jq '.gpus[] | {uuid, serial, health}'
  bailiwick-agent probe --host-root /host")]
pub struct ProbeArgs {
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
    /// Everything that is told: more columns, readings, MIG profiles, and a drawing of how the GPUs are connected
    #[arg(long)]
    wide: bool,
    /// The driver's library, where it is neither the host's nor a driver container's
    #[arg(long, value_name = "PATH", env = "BAILIWICK_NVML", hide_env_values = true)]
    nvml: Option<PathBuf>,
    /// Where the host's root directory is, in a container
    #[arg(
        long,
        value_name = "PATH",
        env = "BAILIWICK_HOST_ROOT",
        hide_env_values = true,
        default_value = "/"
    )]
    host_root: PathBuf,
}

/// Runs the command.
pub fn run(args: &ProbeArgs) -> Result<(), Error> {
    let host = HostRoot::at(&args.host_root);
    let nvml = Nvml::of(args.nvml.as_deref(), &host)?;
    let context = Context { host: &host, now: Timestamp::now(), previous: None };
    let probe = gpu::probe(&nvml, &context, &mut Xids::default())?;
    match args.output {
        Format::Json => output::json(&probe),
        Format::Table => output::text(&render(&probe, args.wide)),
    }
}

/// The probe for people.
fn render(probe: &Probe, wide: bool) -> String {
    let mut text = summary(probe);
    text += &heading(&format!("GPUs ({})", probe.gpus.len()));
    text += &if wide { wide_table(&probe.gpus) } else { narrow_table(&probe.gpus) };
    if wide {
        text += &readings(&probe.gpus);
        text += &profiles(&probe.gpus);
    }
    text += &instances(&probe.gpus);
    let findings = probe.gpus.iter().flat_map(|gpu| gpu.health.iter().map(move |finding| (gpu, finding)));
    text += &part(
        "Findings",
        &["GPU", "SEVERITY", "CODE", "MESSAGE"],
        findings.map(|(gpu, finding)| {
            vec![
                gpu.index.to_string(),
                finding.severity.to_string(),
                finding.code.clone(),
                finding.message.clone(),
            ]
        }),
    );
    text += &part(
        "Diagnostics",
        &["CODE", "FIELD", "MESSAGE"],
        probe.diagnostics.iter().map(|d| vec![d.code.clone(), d.field.clone(), d.message.clone()]),
    );
    if wide && !probe.gpus.is_empty() {
        text += &heading("Topology");
        text += &domain::topology::draw(&probe.gpus);
    }
    text
}

fn summary(probe: &Probe) -> String {
    let driver = probe.driver.clone().unwrap_or_default();
    let of = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let versions = [driver.version, of("NVML", driver.nvml), of("CUDA", driver.cuda)];
    fields(&[
        ("Host", shown(probe.host.hostname.as_ref())),
        ("System UUID", shown(probe.host.system_uuid.as_ref())),
        ("Driver", versions.into_iter().flatten().collect::<Vec<_>>().join(", ")),
        (
            "Confidential computing",
            probe.confidential_computing.as_ref().map(confidential).unwrap_or_default(),
        ),
    ])
}

fn confidential(mode: &ConfidentialComputing) -> String {
    let mut words = vec![match mode.enabled {
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
        None => "not known".to_owned(),
    }];
    if mode.enabled == Some(true) {
        words.extend(mode.environment.clone());
        words.extend(mode.dev_tools.filter(|on| *on).map(|_| "developer tools let in".to_owned()));
        words.extend(mode.ready.filter(|ready| !ready).map(|_| "not ready for work".to_owned()));
    }
    words.join(", ")
}

fn narrow_table(gpus: &[ProbedGpu]) -> String {
    let header = ["GPU", "MODEL", "MEMORY", "PCI ADDRESS", "NUMA", "MIG", "NVLINK", "HEALTH", "UUID"];
    table(
        &header,
        gpus.iter().map(|gpu| {
            vec![
                gpu.index.to_string(),
                shown(gpu.model.as_ref()),
                memory(gpu),
                shown(gpu.pci.address.as_ref()),
                shown(gpu.numa_node.as_ref()),
                mig(gpu),
                nvlinks(gpu),
                health(gpu),
                shown(gpu.uuid.as_ref()),
            ]
        }),
    )
}

fn wide_table(gpus: &[ProbedGpu]) -> String {
    let header = [
        "GPU",
        "MODEL",
        "ARCHITECTURE",
        "MEMORY",
        "SERIAL",
        "PART NUMBER",
        "VBIOS",
        "CUDA",
        "PCI ADDRESS",
        "PCI ID",
        "PCI ROOT",
        "NUMA",
        "MODULE",
        "DEVICE",
        "ECC",
        "MIG",
        "NVLINK",
        "FABRIC",
        "HEALTH",
        "UUID",
    ];
    table(
        &header,
        gpus.iter().map(|gpu| {
            vec![
                gpu.index.to_string(),
                shown(gpu.model.as_ref()),
                shown(gpu.architecture.as_ref()),
                memory(gpu),
                shown(gpu.serial.as_ref()),
                shown(gpu.part_number.as_ref()),
                shown(gpu.vbios.as_ref()),
                shown(gpu.compute_capability.as_ref()),
                shown(gpu.pci.address.as_ref()),
                shown(gpu.pci.device_id.as_ref()),
                shown(gpu.pci.root.as_ref()),
                shown(gpu.numa_node.as_ref()),
                shown(gpu.module_id.as_ref()),
                gpu.minor.map(|minor| format!("/dev/nvidia{minor}")).unwrap_or_default(),
                gpu.ecc.as_ref().map(|ecc| switch(ecc.enabled, ecc.pending)).unwrap_or_default(),
                mig(gpu),
                nvlinks(gpu),
                fabric(gpu),
                health(gpu),
                shown(gpu.uuid.as_ref()),
            ]
        }),
    )
}

/// What changes all the time, beside what it is at most.
fn readings(gpus: &[ProbedGpu]) -> String {
    let header = [
        "GPU",
        "SM CLOCK",
        "MEMORY CLOCK",
        "POWER",
        "TEMPERATURE",
        "MEMORY USED",
        "ECC ERRORS",
        "REMAPPED ROWS",
        "NVLINK ERRORS",
        "PROCESSES",
    ];
    let rows = gpus.iter().map(|gpu| {
        let (now, most) = (&gpu.readings, &gpu.limits);
        let watts = |milliwatts: Option<u32>| milliwatts.map(|milliwatts| milliwatts / 1000);
        let counts = |corrected: Option<u64>, uncorrected: Option<u64>| {
            let both = corrected.zip(uncorrected);
            both.map(|(one, other)| format!("{one} corrected, {other} not")).unwrap_or_default()
        };
        let rows = gpu.remapped_rows.as_ref();
        vec![
            gpu.index.to_string(),
            of_most(now.sm_clock_mhz, most.sm_clock_mhz, "MHz"),
            of_most(now.memory_clock_mhz, most.memory_clock_mhz, "MHz"),
            of_most(watts(now.power_milliwatts), watts(most.power_milliwatts), "W"),
            of_most(now.temperature_celsius, most.slowdown_celsius, "°C"),
            now.memory_used_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default(),
            counts(now.ecc_corrected, now.ecc_uncorrected),
            rows.map(|rows| (rows.correctable + rows.uncorrectable).to_string()).unwrap_or_default(),
            shown(now.nvlink_errors.as_ref()),
            shown(now.processes.as_ref()),
        ]
    });
    part("Readings", &header, rows)
}

/// A reading, and what it is at most.
fn of_most(now: Option<u32>, most: Option<u32>, unit: &str) -> String {
    match (now, most) {
        (Some(now), Some(most)) => format!("{now} of {most} {unit}"),
        (Some(now), None) => format!("{now} {unit}"),
        (None, Some(most)) => format!("at most {most} {unit}"),
        (None, None) => String::new(),
    }
}

/// What GPUs can be parted into and where, of those that are alike once.
fn profiles(gpus: &[ProbedGpu]) -> String {
    let mut alike: Vec<(Vec<u32>, &[MigProfile])> = Vec::new();
    for (gpu, mig) in gpus.iter().filter_map(|gpu| Some((gpu, gpu.mig.as_ref()?))) {
        match alike.iter_mut().find(|(_, profiles)| *profiles == mig.profiles) {
            Some((same, _)) => same.push(gpu.index),
            None => alike.push((vec![gpu.index], &mig.profiles)),
        }
    }
    let rows = alike.iter().flat_map(|(gpus, profiles)| {
        profiles.iter().map(move |profile| {
            let places = profile.placements.iter().map(|place| format!("{}:{}", place.start, place.size));
            vec![
                ranges(gpus),
                profile.name.clone(),
                profile.id.to_string(),
                profile.slices.to_string(),
                format!("{} MiB", profile.memory_bytes >> 20),
                profile.max_instances.to_string(),
                places.collect::<Vec<_>>().join(" "),
            ]
        })
    });
    part("MIG profiles", &["GPUS", "PROFILE", "ID", "SLICES", "MEMORY", "AT MOST", "PLACEMENTS"], rows)
}

/// Rising numbers, `0-3,5`.
fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

fn instances(gpus: &[ProbedGpu]) -> String {
    let all = gpus.iter().filter_map(|gpu| Some((gpu, gpu.mig.as_ref()?)));
    let rows = all.flat_map(|(gpu, mig)| {
        mig.instances.iter().map(move |instance| {
            let profile = mig.profiles.iter().find(|profile| Some(profile.id) == instance.profile);
            vec![
                gpu.index.to_string(),
                profile.map(|profile| profile.name.clone()).unwrap_or_default(),
                instance.placement.map(|p| format!("{}:{}", p.start, p.size)).unwrap_or_default(),
                format!("{}/{}", instance.gpu_instance, instance.compute_instance),
                shown(instance.uuid.as_ref()),
            ]
        })
    });
    part("MIG instances", &["GPU", "PROFILE", "PLACEMENT", "INSTANCE", "UUID"], rows)
}

/// A table under a heading, or nothing where it has no rows.
fn part(title: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    heading(&format!("{title} ({})", rows.len())) + &table(header, rows)
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// Frame buffer in GiB, as `nvidia-smi` has it in MiB.
fn memory(gpu: &ProbedGpu) -> String {
    gpu.memory_bytes.map(|bytes| format!("{} GiB", bytes >> 30)).unwrap_or_default()
}

/// A switch that takes effect at the next reset.
fn switch(now: bool, next: bool) -> String {
    let word = |on| if on { "on" } else { "off" };
    if now == next { word(now).to_owned() } else { format!("{}, {} next", word(now), word(next)) }
}

fn mig(gpu: &ProbedGpu) -> String {
    gpu.mig.as_ref().map(|mig| switch(mig.enabled, mig.pending)).unwrap_or_default()
}

fn nvlinks(gpu: &ProbedGpu) -> String {
    let active = gpu.nvlinks.iter().filter(|link| link.active).count();
    if gpu.nvlinks.is_empty() { String::new() } else { format!("{active}/{}", gpu.nvlinks.len()) }
}

fn fabric(gpu: &ProbedGpu) -> String {
    let Some(fabric) = &gpu.fabric else { return String::new() };
    match (fabric.state, fabric.succeeded, fabric.clique_id) {
        (FabricState::NotStarted, ..) => "not joined".to_owned(),
        (FabricState::InProgress, ..) => "joining".to_owned(),
        (FabricState::Completed, Some(false), _) => "failed".to_owned(),
        (FabricState::Completed, _, Some(clique)) => match &fabric.cluster_uuid {
            Some(cluster) => format!("clique {clique} of {cluster}"),
            None => format!("clique {clique}"),
        },
        (FabricState::Completed, ..) => "joined".to_owned(),
    }
}

fn health(gpu: &ProbedGpu) -> String {
    gpu.worst().map_or_else(|| "healthy".to_owned(), |worst| worst.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_takes_effect_later_says_so() {
        assert_eq!((switch(true, true), switch(false, true)), ("on".to_owned(), "off, on next".to_owned()));
    }

    #[test]
    fn a_reading_is_told_beside_its_limit_as_far_as_both_are_known() {
        let told = [(Some(3), Some(9)), (Some(3), None), (None, Some(9)), (None, None)];
        let told = told.map(|(now, most)| of_most(now, most, "W"));
        assert_eq!(told, ["3 of 9 W", "3 W", "at most 9 W", ""]);
    }

    #[test]
    fn gpus_that_are_alike_are_told_once() {
        assert_eq!(ranges(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
    }

    #[test]
    fn confidential_computing_that_lets_tools_in_says_so() {
        let mode = ConfidentialComputing {
            enabled: Some(true),
            dev_tools: Some(true),
            environment: Some("production".into()),
            ready: Some(true),
        };
        assert_eq!(confidential(&mode), "on, production, developer tools let in");
    }
}
