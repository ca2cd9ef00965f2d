//! `bailiwick accept`: GPUs that were moved, exchanged or repaired are as they should be.

use std::collections::BTreeSet;

use cell::api::types::{AcceptRequest, Acceptance};
use clap::{Args, Subcommand};
use domain::Name;

use crate::apply::parse_name;
use crate::args::Global;
use crate::client::Client;
use crate::errors::{Outcome, note};
use crate::output::{self, Format, clean};
use crate::plan::confirm;

#[derive(Args, Debug)]
pub(crate) struct AcceptArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Accept the GPUs that a machine shows now
    Gpus(GpusArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick accept gpus r1-u01
  bailiwick accept gpus r1-u01 --yes -o json

Where a GPU is first confirmed by all its views, in a machine in service, is written down. One that shows elsewhere later, takes
the place of another, or has another serial number, UUID or certificate is kept out until it is accepted. What the views of a GPU
contradict each other in is not mended by it.")]
struct GpusArgs {
    /// The machine
    #[arg(value_parser = parse_name)]
    machine: Name,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

impl AcceptArgs {
    pub(crate) fn output(&self) -> Option<Format> {
        let What::Gpus(args) = &self.what;
        args.output
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &AcceptArgs) -> Outcome {
    let What::Gpus(args) = &args.what;
    let client = Client::of(global)?;
    let format = args.output.unwrap_or(Format::Table);
    let shown = client.acceptable_gpus(&args.machine).await?;
    if shown.is_empty() {
        return output::value(format, &shown, |_| {
            "Nothing to accept: the GPUs are those that were.\n".into()
        });
    }
    if format == Format::Table {
        output::text(&render(&shown))?;
    } else if !args.yes {
        note(&render(&shown));
    }
    if !args.yes {
        confirm("Accept these GPUs?").await?;
    }
    let accepted = client.accept_gpus(&args.machine, &AcceptRequest { digest: shown.digest }).await?;
    output::value(format, &accepted, |accepted| format!("Accepted in {}.\n", accepted.machine))
}

fn render(shown: &Acceptance) -> String {
    let line = |sign: char, gpu: &BTreeSet<String>| {
        let identities: Vec<_> = gpu.iter().map(|identity| clean(identity)).collect();
        format!("{sign} {}\n", identities.join(" "))
    };
    let mut text = format!("GPUs of Machine/{}:\n", shown.machine);
    text.extend(shown.forgotten.iter().map(|gpu| line('-', gpu)));
    text.extend(shown.accepted.iter().map(|gpu| line('+', gpu)));
    text.extend(shown.conflicts.iter().map(|problem| format!("! {}\n", clean(&problem.to_string()))));
    text
}
