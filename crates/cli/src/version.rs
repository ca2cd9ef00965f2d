//! `bailiwick version`: this program's and the cell's.

use clap::Args;
use serde_json::json;

use crate::args::Global;
use crate::client::Client;
use crate::errors::Outcome;
use crate::output::{self, Format, fields};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick version
  bailiwick version --client")]
pub(crate) struct VersionArgs {
    /// Only this program's; asks no cell
    #[arg(long)]
    client: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &VersionArgs) -> Outcome {
    let format = args.output.unwrap_or(Format::Table);
    let own = env!("CARGO_PKG_VERSION");
    if args.client {
        return output::value(format, &json!({ "client": own }), |_| fields(&[("Client", own.to_owned())]));
    }
    let cell = match Client::of(global)?.version().await {
        Ok(cell) => cell,
        // What is known is told all the same.
        Err(failure) => {
            output::value(format, &json!({ "client": own, "cell": null }), |_| {
                fields(&[("Client", own.to_owned())])
            })?;
            return Err(failure);
        }
    };
    output::value(format, &json!({ "client": own, "cell": cell }), |_| {
        fields(&[
            ("Client", own.to_owned()),
            ("Cell", format!("{} ({}, declarations {})", cell.version, cell.cell, cell.api_version)),
            ("Jurisdiction", cell.jurisdiction.clone()),
        ])
    })
}
