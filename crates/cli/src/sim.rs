//! `bailiwick sim`: a simulated site, until it is asked to end.

use std::path::PathBuf;

use ::sim::{RunningSite, Site};
use clap::Args;
use domain::Problem;
use serde_json::json;

use crate::errors::{Failure, Outcome, note};
use crate::output::{self, Format};
use crate::signals::asked_to_end;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick sim --site rack.toml
  bailiwick sim --state ./simulated -o json

Every BMC is real HTTPS Redfish on a loopback address of its own. Serials and keys stay the same from run to run.")]
pub(crate) struct SimArgs {
    /// Site file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "state")]
    site: Option<PathBuf>,
    /// Instead of a site file: the rack of the quickstart, with its keys in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "site")]
    state: Option<PathBuf>,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: &SimArgs) -> Outcome {
    let site = match (&args.site, &args.state) {
        (Some(file), _) => Site::from_file(file).map_err(|error| failed(&error))?,
        (None, Some(directory)) => Site::quickstart_rack(directory),
        (None, None) => return Err(Failure::new("input.empty", "no site is named")),
    };
    let running = site.start().await.map_err(|error| failed(&error))?;
    let shown = show(&running, args.output.unwrap_or(Format::Table));
    if shown.is_ok() {
        note("simulating until interrupted");
        asked_to_end().await;
    }
    running.shutdown().await;
    shown
}

fn show(running: &RunningSite, format: Format) -> Outcome {
    let machines: Vec<_> = running
        .machines()
        .iter()
        .map(|machine| {
            json!({
                "name": machine.name, "rack": machine.rack, "url": machine.url, "model": machine.model, "serial": machine.serial,
                "username": machine.username, "pin": machine.pin,
            })
        })
        .collect();
    let document = json!({ "passwordFile": running.password_file(), "machines": machines });
    output::value(format, &document, |_| {
        let rows = running.machines().iter().map(|machine| {
            vec![
                machine.name.clone(),
                machine.url.clone(),
                machine.model.clone(),
                machine.serial.clone(),
                machine.username.clone(),
                machine.pin.clone(),
            ]
        });
        let table = output::table(&["NAME", "BMC", "MODEL", "SERIAL", "USER", "PIN"], rows);
        format!("{table}\nPassword file: {}\n", running.password_file().display())
    })
}

/// Errors of the simulator.
pub(crate) fn failed(error: &::sim::Error) -> Failure {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(because) = cause {
        message += &format!(": {because}");
        cause = because.source();
    }
    let problem = Problem::new(error.code(), message);
    match crate::codes::hint(error.code()) {
        Some(hint) => problem.hint(hint).into(),
        None => problem.into(),
    }
}
