//! `bailiwick history` and `bailiwick refresh`: what happened to a machine, and to have it looked at now.

use cell::api::types::EventItem;
use clap::Args;
use domain::erasure::{Erased, Item};
use domain::plan::{Action, FieldChange};
use domain::selector::MachineSelector;
use domain::{Erasure, Problem};
use serde_json::{Value, json};

use crate::args::Global;
use crate::assign::choose;
use crate::client::Client;
use crate::errors::Outcome;
use crate::get::moment;
use crate::output::{self, Format, clean, heading, shown, table};
use crate::plan::render_field;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick history r1-u01
  bailiwick history r1-u01 --erasures
  bailiwick history r1-u01 -o json | jq -r '.history[] | [.at, .kind] | @tsv'

What the cell did because somebody ordered it names who that was. Nothing is ever taken from it:
a machine's history stays when the machine is deleted.")]
pub(crate) struct HistoryArgs {
    /// The machine
    machine: String,
    /// Only what was erased of it between its uses
    #[arg(long)]
    erasures: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick refresh r1-u01
  bailiwick refresh site=fra1

Whatever a machine waits for is tried again at once, and its inventory is read anew.")]
pub(crate) struct RefreshArgs {
    /// Machines: names and key=value, separated by commas, with * for any characters; keys are site, rack, state,
    /// manufacturer, model, serial and labels
    #[arg(value_name = "SELECTOR")]
    selector: MachineSelector,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs `history`.
pub(crate) async fn run(global: &Global, args: &HistoryArgs) -> Outcome {
    let client = Client::of(global)?;
    let format = args.output.unwrap_or(Format::Table);
    let erasures = client.erasures(&args.machine).await?;
    if args.erasures {
        return output::value(format, &json!({ "erasures": erasures }), |_| all_erased(&erasures));
    }
    let history = client.history(&args.machine).await?;
    output::value(format, &json!({ "history": history, "erasures": erasures }), |_| steps(&history))
}

/// Runs `refresh`.
pub(crate) async fn refresh(global: &Global, args: &RefreshArgs) -> Outcome {
    let client = Client::of(global)?;
    let chosen = choose(&client, &args.selector).await?;
    for machine in &chosen {
        client.refresh(machine.as_str()).await?;
    }
    output::value(args.output.unwrap_or(Format::Table), &json!({ "machines": chosen }), |_| {
        format!(
            "{} machines are looked at now; follow with `bailiwick get machines --watch`.\n",
            chosen.len()
        )
    })
}

fn steps(history: &[EventItem]) -> String {
    let rows: Vec<Vec<String>> = history
        .iter()
        .map(|event| vec![moment(event.at), event.kind.clone(), actor(event), clean(&details(event))])
        .collect();
    table(&["AT", "WHAT", "BY", "DETAILS"], rows.iter())
}

/// Who did it, and on whose order.
fn actor(event: &EventItem) -> String {
    match event.data.get("orderedBy").and_then(Value::as_str) {
        Some(principal) => format!("{} for {}", event.actor, clean(principal)),
        None => event.actor.clone(),
    }
}

/// What was ordered, field by field.
fn order(data: &Value, action: Action) -> String {
    let fields: Vec<FieldChange> =
        data.get("fields").and_then(|fields| serde_json::from_value(fields.clone()).ok()).unwrap_or_default();
    let told: Vec<_> = fields
        .iter()
        .filter(|field| field.path != "metadata.name")
        .map(|field| render_field(action, field))
        .collect();
    told.join(", ")
}

/// What matters of an event's data, in a line.
fn details(event: &EventItem) -> String {
    let data = &event.data;
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(problem) =
        data.get("problem").and_then(|problem| serde_json::from_value::<Problem>(problem.clone()).ok())
    {
        return problem.to_string();
    }
    if let Some(cause) = data.pointer("/quarantine/message").and_then(Value::as_str) {
        return format!("spec.quarantine.reason: {cause}");
    }
    match event.kind.as_str() {
        // Of the machine's own declaration, which is long, `bailiwick get` shows what it is now.
        _ if !event.subject.starts_with("Assignment/") && event.kind.starts_with("declaration.") => {
            String::new()
        }
        "declaration.created" => order(data, Action::Create),
        "declaration.updated" => order(data, Action::Update),
        "declaration.deleted" => format!("no longer {}", order(data, Action::Delete)),
        "machine.acted" => format!("{}: {}", text("by"), text("action")),
        "machine.resumed" => format!("{}, tried {}", text("code"), data["attempts"]),
        "machine.token-made" => format!("token {} for {}", text("id"), text("baseCluster")),
        "machine.certificate-approved" => text("request"),
        "machine.erased" => {
            format!("{} erased, {} not, by {}", data["erased"], data["notErased"], text("by"))
        }
        "machine.quarantined" => text("reason"),
        "machine.enrolled" => format!("serial {}, {} GPUs", text("serial"), data["gpus"]),
        _ => match (data.get("from"), data.get("tookMs")) {
            (Some(Value::String(from)), Some(took)) => format!("from {from}, last try took {took} ms"),
            _ => String::new(),
        },
    }
}

fn all_erased(erasures: &[Erasure]) -> String {
    if erasures.is_empty() {
        return "Nothing was ever erased of it.\n".to_owned();
    }
    erasures.iter().map(erased).collect()
}

fn erased(erasure: &Erasure) -> String {
    let after = erasure.base_cluster.as_ref().map_or("before its first use".to_owned(), |cluster| {
        let zone = erasure.zone.as_ref().map_or(String::new(), |zone| format!(" ({zone})"));
        format!("after its use in {cluster}{zone}")
    });
    let rows: Vec<Vec<String>> = erasure.items.iter().map(row).collect();
    let mut text = heading(&format!("{}, {after}, by {}", moment(erasure.at), erasure.by));
    text += &table(&["PART", "SERIAL", "DEVICE", "RESULT", "HOW OR WHY NOT"], rows.iter());
    text
}

fn row(item: &Item) -> Vec<String> {
    let (result, detail) = match &item.erased {
        Erased::Erased { method } => ("erased", method.clone()),
        Erased::Absent => ("absent", String::new()),
        Erased::Untouched => ("untouched", "nothing was put on it in this use".to_owned()),
        Erased::Removed => ("removed", "it is in the machine no more".to_owned()),
        Erased::NotErased { reason } => ("not erased", reason.clone()),
    };
    let part = item.part.as_str().to_owned();
    vec![part, shown(item.serial.as_ref()), shown(item.device.as_ref()), result.to_owned(), clean(&detail)]
}
