//! `bailiwick describe` and `bailiwick why`: all that is known of one thing, and what it waits for.

use cell::api::types::{AgentItem, ClassItem, GpuDetail, GpuItem, MachineDetail, Why};
use clap::{Args, ValueEnum};
use domain::agent::{ScrubMethod, ScrubRecord};
use domain::{Problem, Waiting};
use jiff::Timestamp;

use crate::args::Global;
use crate::client::Client;
use crate::errors::{Failure, Outcome};
use crate::get::{
    What as List, age, gpu_state, health, holders, is_called, moment, not_found, trial_names, with_trial,
    zone,
};
use crate::inventory_table;
use crate::output::{self, Format, TRIAL, clean, fields, heading, shown};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick describe machine r1-u01
  bailiwick describe gpu 1654922005223
  bailiwick describe class h100 -o yaml")]
pub(crate) struct DescribeArgs {
    /// What it is
    #[arg(value_enum, ignore_case = true)]
    what: What,
    /// Its name; of a GPU the device, the serial number or the UUID
    name: String,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick why r1-u01
  bailiwick why r1-u01 -o json | jq -r .waiting.problem.code")]
pub(crate) struct WhyArgs {
    /// The machine
    machine: String,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "machines")]
    Machine,
    #[value(alias = "gpus")]
    Gpu,
    #[value(aliases = ["classes", "gpuclass", "gpuclasses"])]
    Class,
}

/// Runs `describe`.
pub(crate) async fn run(global: &Global, args: &DescribeArgs) -> Outcome {
    let client = Client::of(global)?;
    let format = args.output.unwrap_or(Format::Table);
    match args.what {
        What::Machine => output::value(format, &client.machine(&args.name).await?, machine),
        What::Gpu => {
            let (gpus, classes) = tokio::try_join!(client.gpus(), client.classes())?;
            let mut found: Vec<GpuItem> = gpus.into_iter().filter(|gpu| is_called(gpu, &args.name)).collect();
            let only = match (found.pop(), found.len()) {
                (Some(only), 0) => only,
                (None, _) => return Err(not_found("GPU", &args.name, List::Gpus, &[])),
                (Some(_), more) => return Err(ambiguous(&args.name, more + 1)),
            };
            let detail = client.gpu(name_of(&only).unwrap_or(&args.name)).await?;
            let trials = trial_names(&classes);
            output::value(format, &detail, |detail| gpu(detail, &trials))
        }
        What::Class => {
            let classes = client.classes().await?;
            let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            let found = classes.iter().find(|class| class.name.as_str() == args.name);
            let found = found.ok_or_else(|| not_found("GpuClass", &args.name, List::Classes, &known))?;
            output::value(format, found, class)
        }
    }
}

/// Runs `why`.
pub(crate) async fn why(global: &Global, args: &WhyArgs) -> Outcome {
    let why = Client::of(global)?.why(&args.machine).await?;
    output::value(args.output.unwrap_or(Format::Table), &why, reasons)
}

fn ambiguous(name: &str, count: usize) -> Failure {
    Problem::new("input.ambiguous", format!("{count} GPUs are meant by {name:?}"))
        .hint(format!("`bailiwick get gpus {name}` lists them; name one by its device or serial number"))
        .into()
}

fn machine(detail: &MachineDetail) -> String {
    let (machine, bmc) = (&detail.machine, &detail.bmc);
    let credentials = match (&bmc.secret_ref, &bmc.password_file) {
        (Some(secret), _) => format!("{} with secret {}/{}", bmc.username, secret.name, secret.key),
        (None, Some(_)) => format!("{} with a sealed password", bmc.username),
        (None, None) => bmc.username.clone(),
    };
    let mut text = fields(&[
        ("Name", machine.name.to_string()),
        ("State", format!("{} for {}", machine.state, age(machine.since, Timestamp::now()))),
        ("Site", machine.site.to_string()),
        ("Jurisdiction", machine.jurisdiction.to_string()),
        (
            "Rack",
            machine
                .rack
                .as_ref()
                .map(|rack| {
                    format!(
                        "{} {}",
                        rack.name,
                        rack.unit.map(|unit| format!("unit {unit}")).unwrap_or_default()
                    )
                })
                .unwrap_or_default(),
        ),
        ("Zone", zone(machine.zone.as_ref())),
        ("BMC address", bmc.address.clone()),
        ("BMC account", credentials),
        ("BMC pin", shown(detail.pin.as_ref())),
        (
            "Observed",
            detail
                .observed_at
                .map(|at| format!("{} ({} ago)", moment(at), age(at, Timestamp::now())))
                .unwrap_or_default(),
        ),
        ("Facts", detail.facts.to_string()),
    ]);
    if let Some(waiting) = &machine.waiting {
        text += &heading("Waits");
        text += &waits(waiting);
    }
    if let Some(known) = &detail.agent {
        text += &heading("Agent");
        text += &agent(known);
    }
    if let Some(inventory) = &detail.inventory {
        text += &heading("Inventory");
        text += &inventory_table::render(inventory);
    }
    text
}

/// The name by which the cell tells a GPU from all others.
fn name_of(gpu: &GpuItem) -> Option<&str> {
    gpu.device
        .as_deref()
        .or(gpu.nvml_uuid.as_deref())
        .or(gpu.gpu.uuid.as_deref())
        .or(gpu.gpu.serial.as_deref())
}

fn gpu(detail: &GpuDetail, trials: &std::collections::BTreeSet<String>) -> String {
    let item = &detail.item;
    let GpuItem { gpu, .. } = item;
    let classes: Vec<String> = item.allocatable_by.iter().map(|class| with_trial(class, trials)).collect();
    let mut text = fields(&[
        ("Device", shown(item.device.as_ref())),
        ("Machine", item.machine.to_string()),
        ("Site", item.site.to_string()),
        ("Jurisdiction", item.jurisdiction.to_string()),
        ("State", gpu_state(item.state).to_owned()),
        ("Allocatable by", classes.join(", ")),
        ("Allocated to", holders(item)),
        ("Prepared for", item.prepared_for.join(", ")),
        ("Health", health(item.health.as_deref())),
        ("Manufacturer", shown(gpu.manufacturer.as_ref())),
        ("Location", shown(gpu.location.as_ref())),
        ("Probed", shown(detail.probed_at.map(moment).as_ref())),
    ]);
    text += &heading("Views");
    text += &views(detail);
    if !item.conflicts.is_empty() {
        text += &heading("Contradicts");
        text += &item.conflicts.iter().map(reason).collect::<String>();
    }
    if !item.waits_for.is_empty() {
        text += &heading("What it waits for");
        text += &item.waits_for.iter().map(reason).collect::<String>();
    }
    if let Some(findings) = item.health.as_deref().filter(|findings| !findings.is_empty()) {
        text += &heading("What is wrong");
        text += &findings
            .iter()
            .map(|finding| {
                format!("- {}: {} [{}]\n", finding.severity, clean(&finding.message), finding.code)
            })
            .collect::<String>();
    }
    if !detail.scrubs.is_empty() {
        text += &heading("Scrubs");
        text += &scrubs(&detail.scrubs);
    }
    text += &heading("Told by");
    text += &gpu.sources.iter().map(|source| clean(source) + "\n").collect::<String>();
    text
}

fn scrubs(scrubs: &[ScrubRecord]) -> String {
    let errors = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let row = |scrub: &ScrubRecord| {
        let method = match scrub.method {
            ScrubMethod::Reset => "reset",
            ScrubMethod::Processes => "processes",
            ScrubMethod::Destroyed => "destroyed",
            ScrubMethod::Nothing => "nothing",
        };
        let claim = scrub.claim.as_ref().map(|claim| format!("{}/{}", claim.namespace, claim.name));
        vec![
            moment(scrub.at),
            clean(&scrub.device),
            clean(&claim.unwrap_or_else(|| "not known".to_owned())),
            method.to_owned(),
            format!("{} → {}", errors(scrub.ecc_before), errors(scrub.ecc_after)),
            scrub.failure.as_ref().map_or("done".to_owned(), |failure| clean(failure)),
        ]
    };
    output::table(&["ENDED", "DEVICE", "CLAIM", "BY", "ECC ERRORS", "RESULT"], scrubs.iter().map(row))
}

/// What each view says, side by side; a `≠` where that contradicts. Makers write models in many ways, and a BMC's UUID may be of
/// another kind than the driver's: the cell tells which differences are contradictions.
fn views(detail: &GpuDetail) -> String {
    let (redfish, spdm, nvml) = (detail.redfish.as_ref(), detail.spdm.as_ref(), detail.nvml.as_ref());
    let nothing = String::new;
    let certificate = spdm.into_iter().flat_map(|gpu| {
        let digest = gpu.sha256.map(|digest| digest.to_string()).unwrap_or_default();
        [
            ("Subject", "gpu.conflict.path-differs", [nothing(), said(spdm, |gpu| &gpu.subject), nothing()]),
            ("Certificate", "gpu.conflict.unreadable", [nothing(), digest, nothing()]),
        ]
    });
    let rows = [
        (
            "UUID",
            "gpu.conflict.uuid-differs",
            [said(redfish, |gpu| &gpu.uuid), said(spdm, |gpu| &gpu.uuid), said(nvml, |gpu| &gpu.uuid)],
        ),
        (
            "Serial",
            "gpu.conflict.serial-differs",
            [said(redfish, |gpu| &gpu.serial), said(spdm, |gpu| &gpu.serial), said(nvml, |gpu| &gpu.serial)],
        ),
        (
            "PCI address",
            "gpu.conflict.address-differs",
            [said(redfish, |gpu| &gpu.pci_address), nothing(), said(nvml, |gpu| &gpu.pci.address)],
        ),
        (
            "Model",
            "gpu.conflict.model-differs",
            [said(redfish, |gpu| &gpu.model), nothing(), said(nvml, |gpu| &gpu.model)],
        ),
        (
            "Part number",
            "",
            [said(redfish, |gpu| &gpu.part_number), nothing(), said(nvml, |gpu| &gpu.part_number)],
        ),
        (
            "Firmware",
            "",
            [said(redfish, |gpu| &gpu.firmware_version), nothing(), said(nvml, |gpu| &gpu.vbios)],
        ),
    ];
    let row = |(what, code, said): (&str, &str, [String; 3])| {
        let differs =
            if detail.item.conflicts.iter().any(|problem| problem.code == code) { "≠" } else { " " };
        let [redfish, spdm, nvml] = said;
        vec![format!("{differs} {what}"), redfish, spdm, nvml]
    };
    output::table(
        &["  WHAT", "REDFISH (BMC)", "SPDM (CERTIFICATE)", "NVML (DRIVER)"],
        rows.into_iter().chain(certificate).map(row),
    )
}

fn said<T>(view: Option<&T>, value: impl Fn(&T) -> &Option<String>) -> String {
    view.and_then(|view| value(view).clone()).unwrap_or_default()
}

/// The agent of a machine.
fn agent(agent: &AgentItem) -> String {
    let now = Timestamp::now();
    let reported = agent.reported_at.map(|at| format!("{} ago", age(at, now)));
    let standing = match (agent.alive, agent.registered) {
        (false, _) => "silent".to_owned(),
        (true, None) => "reports; its plugin is not registered".to_owned(),
        (true, Some(since)) => format!("reports; its plugin is registered since {}", moment(since)),
    };
    let mut text = fields(&[
        ("Standing", standing),
        ("Version", shown(agent.version.as_ref())),
        ("Enrolled", moment(agent.enrolled_at)),
        ("Reported", shown(reported.as_ref())),
        ("Prepared", format!("{} devices", agent.prepared.len())),
    ]);
    text += &agent.problems.iter().map(reason).collect::<String>();
    if let Some(probe) = agent.probe.as_ref().filter(|probe| !probe.gpus.is_empty()) {
        text += &heading("GPU topology");
        text += &domain::topology::draw(&probe.gpus);
    }
    text
}

fn class(item: &ClassItem) -> String {
    let requires: Vec<_> = item.requires.iter().map(|requirement| requirement.as_str()).collect();
    let note =
        if item.trial { format!("{TRIAL}: gives GPUs out on a BMC's word alone") } else { String::new() };
    fields(&[
        ("Name", item.name.to_string()),
        ("Note", note),
        ("Jurisdiction", format!("{} and all it contains", item.spec.jurisdiction)),
        ("Models", if item.spec.models.is_empty() { "any".to_owned() } else { item.spec.models.join(", ") }),
        ("Zone", zone(item.spec.zone.as_ref())),
        ("Requires", requires.join(", ")),
        ("Partition", shown(item.spec.partition.as_ref())),
        (
            "Extended resource",
            shown(item.spec.extended_resource.then(|| dra::extended_resource(&item.name)).as_ref()),
        ),
        ("Matching", format!("{} GPUs", item.matching)),
        ("Allocatable", format!("{} GPUs", item.allocatable)),
    ])
}

fn reasons(why: &Why) -> String {
    let state = format!("{} is {} for {}", why.machine, why.state, age(why.since, Timestamp::now()));
    let mut text = match &why.waiting {
        Some(waiting) => format!("{state} and waits:\n{}", waits(waiting)),
        None => match (&why.blocked, &why.reason, &why.doing) {
            (Some(problem), ..) => format!("{state} and goes no further:\n{}", reason(problem)),
            (None, Some(reason), _) => format!("{state}: {}\n", clean(reason)),
            (None, None, Some(_)) => format!("{state}.\n"),
            (None, None, None) => format!("{state} and waits for nothing.\n"),
        },
    };
    if let Some(doing) = &why.doing {
        let usual = why.usual_seconds.map(|seconds| format!(", which usually takes {}", usually(seconds)));
        text += &format!("Its step: {doing}{}.\n", usual.unwrap_or_default());
    }
    let hinted = why.waiting.as_ref().map(|waiting| &waiting.problem).or(why.blocked.as_ref());
    // What is shown as the hint above is not said twice.
    if let Some(unblock) =
        why.unblock.as_ref().filter(|_| hinted.is_none_or(|problem| problem.hint != why.unblock))
    {
        text += &format!("To go on: {}\n", clean(unblock));
    }
    if !why.gpus.is_empty() {
        text += &heading("Its GPUs");
        text += &why.gpus.iter().map(reason).collect::<String>();
    }
    text
}

/// A time as people say it of something that is never exact.
fn usually(seconds: i64) -> String {
    if seconds < 120 { format!("about {seconds} s") } else { format!("about {} min", seconds / 60) }
}

fn waits(waiting: &Waiting) -> String {
    let again = match waiting.until {
        Some(until) => format!("next try at {}", moment(until)),
        None => "not tried again before something is changed".to_owned(),
    };
    let since = age(waiting.since, Timestamp::now());
    let tried = if waiting.attempts == 1 { "once".to_owned() } else { format!("{} times", waiting.attempts) };
    format!("{}  for {since}, tried {tried}; {again}\n", reason(&waiting.problem))
}

fn reason(problem: &Problem) -> String {
    let mut text = format!("- {} [{}]\n", clean(&problem.message), problem.code);
    for (label, value) in [
        ("found:", &problem.found),
        ("expected:", &problem.expected),
        ("at:", &problem.at),
        ("hint:", &problem.hint),
    ] {
        if let Some(value) = value {
            text += &format!("  {label:<9} {}\n", clean(value));
        }
    }
    text
}
