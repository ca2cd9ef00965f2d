//! `bailiwick get`: lists, and lists that follow what happens.

use std::collections::{BTreeMap, BTreeSet};

use cell::api::types::{Allocation, ClassItem, GpuItem, GpuState, Machine, Publication};
use clap::{Args, ValueEnum};
use domain::declaration::Zone;
use domain::manifest::near;
use domain::probe::Finding;
use domain::{Kind, Problem};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::Client;
use crate::errors::{Failure, Outcome};
use crate::output::{self, Format, TRIAL, shown, table};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick get machines
  bailiwick get machines --watch
  bailiwick get gpus --wide
  bailiwick get gpus -o json | jq -r '.items[] | [.machine, .gpu.serial] | @tsv'
  bailiwick get classes
  bailiwick get baseclusters
  bailiwick get publications
  bailiwick get site fra1 -o yaml > site.yaml

A class marked TRIAL gives GPUs out on a BMC's word alone: nothing else has confirmed them.")]
pub(crate) struct GetArgs {
    /// What to list
    #[arg(value_enum, ignore_case = true)]
    what: What,
    /// Only this one; of GPUs a device, a serial number, a UUID or a machine
    name: Option<String>,
    /// Print again whatever changes, until interrupted; needs the role auditor or more
    #[arg(long, short)]
    watch: bool,
    /// More columns; of GPUs their health and addresses
    #[arg(long)]
    wide: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    #[value(alias = "machine")]
    Machines,
    #[value(alias = "gpu")]
    Gpus,
    #[value(aliases = ["class", "gpuclass", "gpuclasses"])]
    Classes,
    #[value(alias = "site")]
    Sites,
    #[value(alias = "jurisdiction")]
    Jurisdictions,
    #[value(name = "legalentities", aliases = ["legalentity", "entity", "entities"])]
    LegalEntities,
    #[value(name = "firmwareprofiles", aliases = ["firmwareprofile"])]
    FirmwareProfiles,
    #[value(name = "baseclusters", aliases = ["basecluster", "clusters", "cluster"])]
    BaseClusters,
    #[value(alias = "assignment")]
    Assignments,
    /// How the last publication to each sink went, and what was left out
    #[value(alias = "publication")]
    Publications,
}

/// One thing of a list: its row for people and its document for programs.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    key: String,
    row: Vec<String>,
    /// What a wide table shows beside that.
    more: Vec<String>,
    document: Value,
}

impl Item {
    fn new(key: String, row: Vec<String>, document: Value) -> Self {
        Self { key, row, more: Vec::new(), document }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        self.row.iter().chain(self.more.iter().filter(|_| wide)).cloned().collect()
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &GetArgs) -> Outcome {
    let client = Client::of(global)?;
    let format = args.output.unwrap_or(Format::Table);
    if args.watch {
        return watch(&client, args, format).await;
    }
    let items = fetch(&client, args.what, args.name.as_deref()).await?;
    if let (Some(_), [only], true) = (&args.name, &items[..], format != Format::Table) {
        return output::value(format, &only.document, |_| String::new());
    }
    // A publication has as many rows as troubles, and one document.
    let documents: Vec<&Value> =
        items.iter().map(|item| &item.document).filter(|document| !document.is_null()).collect();
    output::value(format, &json!({ "items": documents }), |_| render(args, &items))
}

fn render(args: &GetArgs, items: &[Item]) -> String {
    if items.is_empty() {
        return format!("No {}.\n", word(args.what));
    }
    table(&header(args), items.iter().map(|item| item.cells(args.wide)))
}

fn word(what: What) -> &'static str {
    match what {
        What::Machines => "machines",
        What::Gpus => "GPUs",
        What::Classes => "classes",
        What::Sites => "sites",
        What::Jurisdictions => "jurisdictions",
        What::LegalEntities => "legal entities",
        What::FirmwareProfiles => "firmware profiles",
        What::BaseClusters => "base clusters",
        What::Assignments => "assignments",
        What::Publications => "publications",
    }
}

/// Lists once, then what differs after each event. The stream is opened first, so that nothing falls between.
async fn watch(client: &Client, args: &GetArgs, format: Format) -> Outcome {
    let mut events = client.watch().await?;
    let mut known: BTreeMap<String, Item> = BTreeMap::new();
    let mut first = true;
    loop {
        let items = match fetch(client, args.what, args.name.as_deref()).await {
            // It may come yet, or it has gone.
            Err(Failure::Problems { exit: crate::exit::Exit::NotFound, .. }) if !first => Vec::new(),
            outcome => outcome?,
        };
        let now: BTreeMap<String, Item> = items.into_iter().map(|item| (item.key.clone(), item)).collect();
        let gone: Vec<&String> = known.keys().filter(|key| !now.contains_key(*key)).collect();
        let changed =
            |item: &Item| known.get(&item.key).is_none_or(|before| before.document != item.document);
        if format == Format::Table {
            // The whole table is laid out, so that columns stay where they are.
            let text = table(&header(args), now.values().map(|item| item.cells(args.wide)));
            let mut lines = text.split_inclusive('\n');
            let mut shown: String = lines.next().filter(|_| first).unwrap_or_default().to_owned();
            shown.extend(lines.zip(now.values()).filter(|(_, item)| changed(item)).map(|(line, _)| line));
            shown.extend(gone.into_iter().map(|key| format!("{key} is gone\n")));
            output::text(&shown)?;
        } else {
            for item in now.values().filter(|item| changed(item)) {
                output::value(format, &item.document, |_| String::new())?;
            }
        }
        known = now;
        first = false;
        if events.next().await?.is_none() {
            return Err(Failure::new("cell.unreachable", "the cell ended the stream of events"));
        }
    }
}

async fn fetch(client: &Client, what: What, name: Option<&str>) -> Outcome<Vec<Item>> {
    Ok(match (what, name) {
        (What::Machines, Some(name)) => {
            let detail = client.machine(name).await?;
            vec![Item { document: document(&detail), ..machine_item(&detail.machine) }]
        }
        (What::Machines, None) => client.machines().await?.iter().map(machine_item).collect(),
        (What::Gpus, _) => gpus(client, name).await?,
        (What::Classes, _) => {
            let classes = client.classes().await?;
            let kept = classes.iter().filter(|class| name.is_none_or(|name| class.name.as_str() == name));
            let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            found(kept.map(class_item).collect(), "GpuClass", name, what, &known)?
        }
        (What::Sites, _) => declared(client, Kind::Site, name).await?,
        (What::Jurisdictions, _) => declared(client, Kind::Jurisdiction, name).await?,
        (What::LegalEntities, _) => declared(client, Kind::LegalEntity, name).await?,
        (What::FirmwareProfiles, _) => declared(client, Kind::FirmwareProfile, name).await?,
        (What::BaseClusters, _) => declared(client, Kind::BaseCluster, name).await?,
        (What::Assignments, _) => declared(client, Kind::Assignment, name).await?,
        (What::Publications, _) => {
            let publications = client.publications().await?;
            let kept = publications.iter().filter(|item| name.is_none_or(|name| item.sink == name));
            found(kept.flat_map(publication_items).collect(), "sink", name, what, &[])?
        }
    })
}

async fn gpus(client: &Client, name: Option<&str>) -> Outcome<Vec<Item>> {
    let (gpus, classes) = tokio::try_join!(client.gpus(), client.classes())?;
    let trials: BTreeSet<String> = trial_names(&classes);
    let kept = gpus.iter().enumerate().filter(|(_, gpu)| name.is_none_or(|name| is_called(gpu, name)));
    found(kept.map(|(at, gpu)| gpu_item(at, gpu, &trials)).collect(), "GPU", name, What::Gpus, &[])
}

/// Names of the classes that give GPUs out on a BMC's word alone.
pub(crate) fn trial_names(classes: &[ClassItem]) -> BTreeSet<String> {
    classes.iter().filter(|class| class.trial).map(|class| class.name.to_string()).collect()
}

/// Whether a person may mean this GPU by the name.
pub(crate) fn is_called(item: &GpuItem, name: &str) -> bool {
    let names = [
        item.device.as_deref(),
        item.gpu.serial.as_deref(),
        item.gpu.uuid.as_deref(),
        item.nvml_uuid.as_deref(),
        Some(item.machine.as_str()),
    ];
    names.into_iter().flatten().any(|known| known.eq_ignore_ascii_case(name))
}

fn found(items: Vec<Item>, what: &str, name: Option<&str>, of: What, known: &[&str]) -> Outcome<Vec<Item>> {
    match name {
        Some(name) if items.is_empty() => Err(not_found(what, name, of, known)),
        _ => Ok(items),
    }
}

/// There is no such thing among those of a list; what was probably meant, where that is known.
pub(crate) fn not_found(what: &str, name: &str, of: What, known: &[&str]) -> Failure {
    let list = of.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let meant = near(name, known).map_or_else(String::new, |word| format!("did you mean `{word}`? "));
    Problem::new("input.not-found", format!("there is no {what} {name:?}"))
        .hint(format!("{meant}`bailiwick get {list}` lists what there is"))
        .into()
}

async fn declared(client: &Client, kind: Kind, name: Option<&str>) -> Outcome<Vec<Item>> {
    let documents = match name {
        Some(name) => vec![client.declaration(kind, name).await?],
        None => client.declarations(kind).await?,
    };
    Ok(documents.into_iter().map(|document| declared_item(kind, document)).collect())
}

fn header(args: &GetArgs) -> Vec<&'static str> {
    let more: &[&str] = if args.wide && args.what == What::Gpus { GPU_MORE } else { &[] };
    columns(args.what).iter().chain(more).copied().collect()
}

fn columns(what: What) -> &'static [&'static str] {
    match what {
        What::Machines => MACHINE_HEADER,
        What::Gpus => GPU_HEADER,
        What::Classes => &["NAME", "JURISDICTION", "MODELS", "REQUIRES", "MATCHING", "ALLOCATABLE", "NOTE"],
        What::Sites => &["NAME", "JURISDICTION", "OPERATOR", "COUNTRY", "BMC NETWORKS", "ZONE"],
        What::Jurisdictions => &["NAME", "WITHIN", "DISPLAY NAME"],
        What::LegalEntities => &["NAME", "LEGAL NAME", "COUNTRY", "LEI", "ULTIMATE PARENT"],
        What::FirmwareProfiles => &["NAME", "MANUFACTURER", "MODEL", "PRODUCT", "NUMBERS FROM"],
        What::BaseClusters => &["NAME", "JURISDICTION", "SITE", "KUBERNETES", "ENDPOINT", "ZONE"],
        What::Assignments => &["MACHINE", "BASE CLUSTER", "QUARANTINED BECAUSE"],
        What::Publications => &["SINK", "IN LINE", "OBJECTS", "WHAT IS WRONG OR LEFT OUT"],
    }
}

const MACHINE_HEADER: &[&str] =
    &["NAME", "STATE", "SITE", "RACK", "MODEL", "SERIAL", "GPUS", "SINCE", "WAITS FOR"];
const GPU_HEADER: &[&str] =
    &["MACHINE", "DEVICE", "MODEL", "SERIAL", "JURISDICTION", "STATE", "ALLOCATABLE BY", "ALLOCATED TO"];
/// What a wide table of GPUs shows beside that.
const GPU_MORE: &[&str] =
    &["HEALTH", "PCI ADDRESS", "UUID BY DRIVER", "PREPARED FOR", "CONTRADICTS", "WAITS FOR"];

/// A table of machines.
pub(crate) fn machine_table(machines: &[Machine]) -> String {
    table(MACHINE_HEADER, machines.iter().map(|machine| machine_item(machine).row))
}

/// A table of GPUs.
pub(crate) fn gpu_table(gpus: &[GpuItem], trials: &BTreeSet<String>) -> String {
    table(GPU_HEADER, gpus.iter().enumerate().map(|(at, gpu)| gpu_item(at, gpu, trials).row))
}

fn machine_item(machine: &Machine) -> Item {
    let rack = machine.rack.as_ref().map(|rack| match rack.unit {
        Some(unit) => format!("{} u{unit}", rack.name),
        None => rack.name.to_string(),
    });
    let row = vec![
        machine.name.to_string(),
        machine.state.to_string(),
        machine.site.to_string(),
        shown(rack.as_ref()),
        shown(machine.model.as_ref()),
        shown(machine.serial.as_ref()),
        machine.gpus.to_string(),
        age(machine.since, Timestamp::now()),
        shown(machine.waiting.as_ref().map(|waiting| &waiting.problem.code)),
    ];
    Item::new(machine.name.to_string(), row, document(machine))
}

/// A sink, and a row for each thing that is wrong with it.
fn publication_items(publication: &Publication) -> Vec<Item> {
    let since = publication.at.map(|at| format!("{} ago", age(at, Timestamp::now())));
    let wrong: Vec<String> = publication
        .problem
        .iter()
        .chain(&publication.left_out)
        .map(|problem| output::clean(&problem.to_string()))
        .collect();
    let first = vec![
        publication.sink.clone(),
        shown(since.as_ref()),
        publication.objects.to_string(),
        shown(wrong.first()),
    ];
    let blank = || vec![String::new(), String::new(), String::new()];
    let more = wrong.iter().skip(1).map(|text| [blank(), vec![text.clone()]].concat());
    let rows = std::iter::once(first).chain(more).collect::<Vec<_>>();
    let item = |(at, row)| {
        let document = if at == 0 { document(publication) } else { Value::Null };
        Item::new(format!("{} {at}", publication.sink), row, document)
    };
    rows.into_iter().enumerate().map(item).collect()
}

fn gpu_item(at: usize, item: &GpuItem, trials: &BTreeSet<String>) -> Item {
    let classes: Vec<String> = item.allocatable_by.iter().map(|class| with_trial(class, trials)).collect();
    let row = vec![
        item.machine.to_string(),
        shown(item.device.as_ref()),
        shown(item.gpu.model.as_ref()),
        shown(item.gpu.serial.as_ref()),
        item.jurisdiction.to_string(),
        gpu_state(item.state).to_owned(),
        classes.join(", "),
        holders(item),
    ];
    let codes = |problems: &[Problem]| {
        problems.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>().join(", ")
    };
    let more = vec![
        health(item.health.as_deref()),
        shown(item.pci_address.as_ref()),
        shown(item.nvml_uuid.as_ref()),
        item.prepared_for.join(", "),
        codes(&item.conflicts),
        codes(&item.waits_for),
    ];
    let key = item
        .device
        .as_ref()
        .map_or_else(|| format!("{}/{at}", item.machine), |device| format!("{}/{device}", item.machine));
    Item { key, row, more, document: document(item) }
}

/// A class's name, and that it is for trials.
pub(crate) fn with_trial(class: &str, trials: &BTreeSet<String>) -> String {
    if trials.contains(class) { format!("{class} ({TRIAL})") } else { class.to_owned() }
}

/// How far it has come, in one word: as the API says it.
pub(crate) fn gpu_state(state: GpuState) -> &'static str {
    match state {
        GpuState::Inventoried => "inventoried",
        GpuState::Probed => "probed",
        GpuState::Allocatable => "allocatable",
        GpuState::Allocated => "allocated",
        GpuState::Conflicting => "conflicting",
        GpuState::Unidentified => "unidentified",
    }
}

/// Who has a GPU in the cluster: `namespace/pod`, or the claim where no pod has it yet.
pub(crate) fn holders(item: &GpuItem) -> String {
    let of = |allocation: &Allocation| -> Vec<String> {
        let Allocation { namespace, claim, pods, .. } = allocation;
        if pods.is_empty() {
            return vec![format!("{namespace}/{claim} (claim)")];
        }
        pods.iter().map(|pod| format!("{namespace}/{pod}")).collect()
    };
    // A pod may have several parts of it.
    let all: BTreeSet<_> = item.allocated_to.iter().flat_map(of).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// The worst of what is wrong with a GPU; nothing where no driver has told.
pub(crate) fn health(findings: Option<&[Finding]>) -> String {
    match findings {
        None => String::new(),
        Some([]) => "healthy".to_owned(),
        Some([worst, rest @ ..]) => match rest.len() {
            0 => format!("{}: {}", worst.severity, worst.code),
            more => format!("{}: {} and {more} more", worst.severity, worst.code),
        },
    }
}

fn class_item(class: &ClassItem) -> Item {
    let requires: Vec<_> = class.requires.iter().map(|requirement| requirement.as_str()).collect();
    let row = vec![
        class.name.to_string(),
        class.spec.jurisdiction.to_string(),
        if class.spec.models.is_empty() { "any".to_owned() } else { class.spec.models.join(", ") },
        requires.join(", "),
        class.matching.to_string(),
        class.allocatable.to_string(),
        if class.trial { format!("{TRIAL}: on a BMC's word alone") } else { String::new() },
    ];
    Item::new(class.name.to_string(), row, document(class))
}

fn declared_item(kind: Kind, document: Value) -> Item {
    let text = |path: &str| match document.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    let name = text("/metadata/name");
    let fields: &[&str] = match kind {
        Kind::Jurisdiction => &["/spec/within", "/spec/displayName"],
        Kind::LegalEntity => &["/spec/legalName", "/spec/country", "/spec/lei", "/spec/ultimateParent"],
        Kind::FirmwareProfile => {
            &["/spec/match/manufacturer", "/spec/match/model", "/spec/match/product", "/spec/source"]
        }
        Kind::BaseCluster => {
            &["/spec/jurisdiction", "/spec/site", "/spec/kubernetesVersion", "/spec/endpoint"]
        }
        Kind::Assignment => &["/spec/baseCluster", "/spec/quarantine/reason"],
        _ => &["/spec/jurisdiction", "/spec/operator", "/spec/country", "/spec/bmcNetworks"],
    };
    let mut row: Vec<String> =
        std::iter::once(name.clone()).chain(fields.iter().map(|path| text(path))).collect();
    if matches!(kind, Kind::Site | Kind::BaseCluster) {
        let declared =
            document.pointer("/spec/zone").and_then(|value| serde_json::from_value(value.clone()).ok());
        row.push(zone(declared.as_ref()));
    }
    Item::new(name, row, document)
}

fn document(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A moment for people, in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A classification for people: `official, sensitive`.
pub(crate) fn zone(zone: Option<&Zone>) -> String {
    let Some(zone) = zone else { return String::new() };
    let handling = zone.handling.map(domain::declaration::Handling::as_str);
    [Some(zone.tier.as_str()), handling].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How long ago, in the two largest units that matter.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_told_in_units_that_matter() {
        let ages = [0, 119, 120, 7_199, 7_260, 200_000]
            .map(|seconds| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap()));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h1m", "2d7h"]);
    }

    #[test]
    fn a_trial_class_is_named_as_such() {
        let trials = BTreeSet::from(["try".to_owned()]);
        assert_eq!([with_trial("try", &trials), with_trial("real", &trials)], ["try (TRIAL)", "real"]);
    }
}
