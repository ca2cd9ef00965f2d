//! `bailiwick firmware check`: machines held against the firmware profiles of their models.

use std::path::{Path, PathBuf};

use cell::api::types::FirmwareCheck;
use clap::{Args, Subcommand};
use domain::firmware::{Compliance, Finding, FirmwareProfileSpec, Verdict, assess};
use domain::selector::MachineSelector;
use domain::{Inventory, Name, Problem, Spec};
use serde_json::json;

use crate::args::Global;
use crate::client::Client;
use crate::declarations;
use crate::errors::{Failure, Outcome};
use crate::files;
use crate::get::{What, not_found};
use crate::output::{self, Format, clean, heading, shown, table};

#[derive(Args, Debug)]
pub(crate) struct FirmwareArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what was found against what the profile wants, with the source of each value
    Check(CheckArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick firmware check
  bailiwick firmware check 'site=fra1,model=DGX*' --all
  bailiwick firmware check r1-u01 -o json | jq '.items[].compliance.findings[] | select(.verdict != \"pass\")'
  # With no cell: the document that `bailiwick inspect` prints.
  bailiwick inspect … > r1-u01.json
  bailiwick firmware check --inventory r1-u01.json --profiles firmware-profiles/

Ends with 1 where a machine is not compliant, has no profile, or was not read: unknown is never pass.")]
struct CheckArgs {
    /// Machines: names and key=value, separated by commas, with * for any characters; keys are site, rack, state,
    /// manufacturer, model, serial and labels [default: all]
    #[arg(conflicts_with = "inventory")]
    selector: Option<MachineSelectorText>,
    /// Check this inventory document, of `bailiwick inspect -o json`, instead of a cell's machines
    #[arg(long, value_name = "FILE", requires = "profiles")]
    inventory: Option<PathBuf>,
    /// Profiles to check it against: a YAML file or a directory of them
    #[arg(long, value_name = "PATH", requires = "inventory")]
    profiles: Option<PathBuf>,
    /// Show also the values that are as wanted
    #[arg(long)]
    all: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

/// A selector that was read once, so that a mistake is one of the command line.
#[derive(Clone, Debug)]
struct MachineSelectorText(String);

impl std::str::FromStr for MachineSelectorText {
    type Err = domain::selector::NotASelector;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<MachineSelector>().map(|_| Self(text.to_owned()))
    }
}

impl FirmwareArgs {
    pub(crate) fn output(&self) -> Option<Format> {
        let Action::Check(args) = &self.action;
        args.output
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &FirmwareArgs) -> Outcome {
    let Action::Check(args) = &args.action;
    let format = args.output.unwrap_or(Format::Table);
    if let (Some(inventory), Some(profiles)) = (&args.inventory, &args.profiles) {
        return check_document(inventory, profiles, args.all, format).await;
    }
    let selector = args.selector.as_ref().map_or("", |text| text.0.as_str());
    let checks = Client::of(global)?.firmware_check(selector).await?;
    if checks.is_empty() && !selector.is_empty() {
        return Err(not_found("machine that fits", selector, What::Machines, &[]));
    }
    let all = args.all || checks.len() == 1;
    output::value(format, &json!({ "items": checks }), |_| render(&checks, all))?;
    verdict(checks.iter().filter(|check| !check.is_compliant()).count(), checks.len())
}

/// One document of `inspect`, with no cell.
async fn check_document(inventory: &Path, profiles: &Path, all: bool, format: Format) -> Outcome {
    let text = files::read_text(inventory)?;
    let document: Inventory = serde_json::from_str(&text).map_err(|error| {
        let name = inventory.display();
        Failure::new(
            "input.unreadable",
            format!("{name} is no document of `bailiwick inspect -o json`: {error}"),
        )
    })?;
    let compliance = assess(&profiles_in(profiles).await?, &document);
    output::value(format, &compliance, |compliance| {
        let title = document.identity.serial.as_deref().unwrap_or("machine");
        let mut text = table(HEADER, [row(title, Some(compliance))]);
        text += &values(&[(title, compliance)], all || compliance.is_compliant());
        text
    })?;
    verdict(usize::from(!compliance.is_compliant()), 1)
}

async fn profiles_in(path: &Path) -> Outcome<Vec<(Name, FirmwareProfileSpec)>> {
    let declared = declarations::read(&[path.to_path_buf()]).await?;
    let (mut profiles, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for object in declared.objects {
        let reference = object.reference();
        if let Spec::FirmwareProfile(spec) = object.spec {
            problems.extend(spec.problems(&reference));
            profiles.push((object.metadata.name, *spec));
        }
    }
    match (problems.is_empty(), profiles.is_empty()) {
        (false, _) => Err(Failure::all(problems)),
        (_, true) => Err(Failure::new("input.empty", format!("{} holds no FirmwareProfile", path.display()))),
        _ => Ok(profiles),
    }
}

/// The end of the command: not compliant is a failure, said once after the result.
fn verdict(wrong: usize, machines: usize) -> Outcome {
    if wrong == 0 {
        return Ok(());
    }
    let message = format!("{wrong} of {machines} machines are not as their firmware profiles want");
    Err(Problem::new("firmware.not-compliant", message)
        .hint("a machine without a profile, and one that was not read, do not pass either")
        .into())
}

const HEADER: &[&str] = &["MACHINE", "RESULT", "PROFILE", "AS WANTED", "WHY"];

fn render(checks: &[FirmwareCheck], all: bool) -> String {
    if checks.is_empty() {
        return "No machines.\n".to_owned();
    }
    let rows = checks.iter().map(|check| row(check.machine.as_str(), check.compliance.as_ref()));
    let known: Vec<_> = checks
        .iter()
        .filter_map(|check| Some((check.machine.as_str(), check.compliance.as_ref()?)))
        .collect();
    table(HEADER, rows) + &values(&known, all)
}

fn row(machine: &str, compliance: Option<&Compliance>) -> [String; 5] {
    let result = match compliance {
        Some(Compliance::Compliant { .. }) => "compliant",
        Some(Compliance::NotCompliant { .. }) => "not compliant",
        Some(Compliance::NoProfile { .. }) => "no profile",
        Some(Compliance::Ambiguous { .. }) => "ambiguous",
        None => "not read",
    };
    let findings = compliance.map(Compliance::findings).unwrap_or_default();
    let passed = findings.iter().filter(|finding| finding.verdict == Verdict::Pass).count();
    let why = match compliance {
        None => "its BMC was not read yet".to_owned(),
        Some(Compliance::NotCompliant { .. }) => String::new(),
        Some(other) => other.problem().map(|problem| problem.message).unwrap_or_default(),
    };
    [
        machine.to_owned(),
        result.to_owned(),
        shown(compliance.and_then(Compliance::profile)),
        if findings.is_empty() { String::new() } else { format!("{passed} of {}", findings.len()) },
        why,
    ]
}

/// The values themselves; those as wanted only if asked for.
fn values(machines: &[(&str, &Compliance)], all: bool) -> String {
    let told = |finding: &&Finding| all || finding.verdict != Verdict::Pass;
    let rows: Vec<_> = machines
        .iter()
        .flat_map(|(machine, compliance)| {
            compliance.findings().iter().filter(told).map(|finding| value(machine, finding))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = &["MACHINE", "COMPONENT", "VERDICT", "FOUND", "WANTED", "SOURCE"];
    heading(if all { "Values" } else { "Not as wanted" }) + &table(header, rows)
}

fn value(machine: &str, finding: &Finding) -> [String; 6] {
    // a place where nothing was found is as much a source as one where something was
    let source = finding.source.clone().unwrap_or_else(|| finding.fact.clone());
    let found = match &finding.note {
        Some(note) => format!("{} ({})", finding.found.as_deref().unwrap_or("nothing"), clean(note)),
        None => shown(finding.found.as_ref()),
    };
    let verdict = finding.verdict.as_str().to_owned();
    [machine.to_owned(), finding.component.clone(), verdict, found, finding.wanted.clone(), source]
}
