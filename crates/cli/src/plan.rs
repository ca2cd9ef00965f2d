//! `bailiwick plan`, and how every plan is shown and confirmed.

use std::collections::BTreeMap;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use cell::api::types::{ObjectRef, PlanRequest};
use clap::Args;
use domain::plan::{Action, Change, FieldChange};
use domain::{Digest, Kind, Name, Plan};
use serde_json::Value;

use crate::args::Global;
use crate::client::Client;
use crate::declarations::{self, Declarations};
use crate::errors::{Failure, Outcome};
use crate::output::{self, Format, TRIAL};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick plan -f inventory/
  bailiwick plan -f machines.yaml --delete Machine/r1-u07 -o json > plan.json
  bailiwick apply --plan \"$(jq -r .digest plan.json)\"

The cell keeps the plan under its digest. Applied later, it does what was shown, or is refused as stale.")]
pub(crate) struct PlanArgs {
    /// Declarations: files, directories (all *.yaml and *.yml below), `-` for standard input
    #[arg(long = "filename", short = 'f', value_name = "PATH", num_args = 1.., required_unless_present = "delete")]
    paths: Vec<PathBuf>,
    /// Objects that shall go
    #[arg(long, value_name = "KIND/NAME", num_args = 1.., value_parser = parse_reference)]
    delete: Vec<ObjectRef>,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &PlanArgs) -> Outcome {
    let mut request = PlanRequest { delete: args.delete.clone(), ..PlanRequest::default() };
    let mut places = BTreeMap::new();
    if !args.paths.is_empty() {
        let mut found = declarations::read(&args.paths).await?;
        places = found.places();
        (request.apply, request.passwords) = (found.objects, found.passwords);
    }
    let plan = Client::of(global)?.plan(&request).await;
    let plan = plan.map_err(|failure| Declarations::locate(&places, failure))?;
    output::value(args.output.unwrap_or(Format::Table), &plan, |plan| {
        let mut text = render(plan);
        if !plan.is_empty() {
            text += &format!("\nTo apply just this: bailiwick apply --plan {}\n", plan.digest);
        }
        text
    })
}

/// `Kind/name`, the kind in any usual spelling.
pub(crate) fn parse_reference(text: &str) -> Result<ObjectRef, String> {
    let (kind, name) = text.split_once('/').ok_or("write KIND/NAME, such as Machine/r1-u01")?;
    Ok(ObjectRef { kind: parse_kind(kind)?, name: Name::new(name).map_err(|error| error.to_string())? })
}

/// A kind as people type it.
pub(crate) fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| {
        let kinds = Kind::ALL.map(|kind| kind.as_str().to_lowercase());
        format!("there is no kind {text:?}; {}", domain::manifest::suggestion(text, &kinds))
    })
}

/// A digest as `plan` prints it.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error: domain::name::NotADigest| error.to_string())
}

/// The plan for people.
pub(crate) fn render(plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("Nothing to change: {} as declared.\n", objects(plan.unchanged));
    }
    let mut text: String = plan.changes.iter().map(render_change).collect();
    text += &format!("\nPlan: {}.\nDigest: {}\n", summary(plan), plan.digest);
    text
}

/// `2 to create, 1 to update, 3 unchanged`.
fn summary(plan: &Plan) -> String {
    let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
    let parts = [
        (count(Action::Create), "to create"),
        (count(Action::Update), "to update"),
        (count(Action::Delete), "to delete"),
        (plan.unchanged, "unchanged"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(", ")
}

fn objects(count: usize) -> String {
    if count == 1 { "1 object is".to_owned() } else { format!("{count} objects are") }
}

fn render_change(change: &Change) -> String {
    let (mark, colour) = match change.action {
        Action::Create => ('+', AnsiColor::Green),
        Action::Update => ('~', AnsiColor::Yellow),
        Action::Delete => ('-', AnsiColor::Red),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let bold = style.bold();
    let mut text = format!("{bold}{mark} {}/{}{bold:#}{}\n", change.kind, change.name, trial_note(change));
    for field in change.fields.iter().filter(|field| field.path != "metadata.name") {
        text += &format!("    {style}{}{style:#}\n", render_field(change.action, field));
    }
    text
}

pub(crate) fn render_field(action: Action, field: &FieldChange) -> String {
    let FieldChange { path, from, to } = field;
    match action {
        Action::Create => format!("{path}: {}", plain(to)),
        Action::Delete => format!("{path}: {}", plain(from)),
        Action::Update if from.is_null() => format!("{path}: {} (new)", plain(to)),
        Action::Update if to.is_null() => format!("{path}: {} (goes)", plain(from)),
        Action::Update => format!("{path}: {} → {}", plain(from), plain(to)),
    }
}

/// Says at once that a class is for trials.
fn trial_note(change: &Change) -> String {
    let spec = change.after.get("spec").cloned().unwrap_or_default();
    match (change.kind, serde_json::from_value::<domain::declaration::GpuClassSpec>(spec)) {
        (Kind::GpuClass, Ok(spec)) if spec.is_trial() => {
            format!("  {TRIAL}: gives GPUs out on a BMC's word alone")
        }
        _ => String::new(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => output::clean(text),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Asks a person, if there is one.
pub(crate) async fn confirm(question: &str) -> Outcome {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::new(
            "plan.unconfirmed",
            "nobody is there to confirm the plan; nothing was changed",
        ));
    }
    let _ = write!(anstream::stderr().lock(), "{question} [y/N] ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    })
    .await;
    match answer {
        Ok(Ok(line)) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes") => Ok(()),
        _ => Err(Failure::new("plan.declined", "the plan was declined; nothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::plan::Wish;

    fn plan(before: &str, after: &str) -> Plan {
        let read = |text: &str| -> Vec<domain::Declaration> {
            domain::manifest::read("f", text)
                .unwrap()
                .into_iter()
                .map(|located| located.declaration)
                .collect()
        };
        let wish = Wish { apply: read(after), ..Wish::default() };
        Plan::make(&read(before), &wish, None).unwrap()
    }

    fn shown(plan: &Plan) -> String {
        let text = anstream::adapter::strip_str(&render(plan)).to_string();
        text.lines().filter(|line| !line.starts_with("Digest")).collect::<Vec<_>>().join("\n")
    }

    const EU: &str = "apiVersion: bailiwick.dev/v1alpha1\nkind: Jurisdiction\nmetadata: {name: eu}\nspec: {displayName: Europe}\n";
    const TRIAL_CLASS: &str = "---\napiVersion: bailiwick.dev/v1alpha1\nkind: GpuClass\nmetadata: {name: try}\nspec: {jurisdiction: eu, requires: [inventoried]}\n";

    #[test]
    fn a_plan_shows_what_is_new_and_names_trials() {
        assert_eq!(
            shown(&plan("", &format!("{EU}{TRIAL_CLASS}"))),
            "+ Jurisdiction/eu\n    spec.displayName: Europe\n+ GpuClass/try  TRIAL: gives GPUs out on a BMC's word alone\n    spec.jurisdiction: eu\n    spec.requires: [inventoried]\n\nPlan: 2 to create."
        );
    }

    #[test]
    fn a_change_shows_from_what_to_what() {
        let new = EU.replace("Europe", "European Union");
        assert_eq!(
            shown(&plan(EU, &new)),
            "~ Jurisdiction/eu\n    spec.displayName: Europe → European Union\n\nPlan: 1 to update."
        );
        assert_eq!(shown(&plan(EU, EU)), "Nothing to change: 1 object is as declared.");
    }
}
