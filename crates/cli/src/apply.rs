//! `bailiwick apply` and `bailiwick delete`: a plan is shown, confirmed, and applied as a whole.

use std::path::PathBuf;

use cell::api::types::{Applied, ObjectRef, PlanRequest};
use clap::Args;
use domain::plan::Action;
use domain::{Digest, Kind, Name, Plan};

use crate::args::Global;
use crate::assign::assignments;
use crate::client::Client;
use crate::declarations::{self, Declarations};
use crate::errors::{Outcome, note};
use crate::output::{self, Format};
use crate::plan::{self, confirm};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick apply -f inventory/
  bailiwick apply -f machines.yaml --yes
  kustomize build site | bailiwick apply -f - --yes
  bailiwick apply --plan sha256:0123…

A machine's `passwordFile` is read here, relative to the file that declares the machine, and goes to the cell, which seals it.
What is not named stays as it is; `bailiwick delete` takes things away.")]
pub(crate) struct ApplyArgs {
    /// Declarations: files, directories (all *.yaml and *.yml below), `-` for standard input
    #[arg(long = "filename", short = 'f', value_name = "PATH", num_args = 1.., required_unless_present = "plan")]
    paths: Vec<PathBuf>,
    /// Apply this reviewed plan, as `bailiwick plan` printed it, without asking again
    #[arg(long, value_name = "DIGEST", conflicts_with = "paths", value_parser = plan::parse_digest)]
    plan: Option<Digest>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick delete machine r1-u07 r1-u08
  bailiwick delete class trial --yes

What others refer to is not deleted; the refusal names them.")]
pub(crate) struct DeleteArgs {
    /// jurisdiction, legalentity, site, machine, basecluster, assignment, firmwareprofile or class
    #[arg(value_parser = plan::parse_kind)]
    kind: Kind,
    /// Names
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    names: Vec<Name>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

/// Runs `apply`.
pub(crate) async fn run(global: &Global, args: &ApplyArgs) -> Outcome {
    let format = args.output.unwrap_or(Format::Table);
    let client = Client::of(global)?;
    if let Some(digest) = &args.plan {
        let reviewed = client.kept_plan(digest).await?;
        return show(format, &client.apply(&reviewed.digest).await?);
    }
    let mut found = declarations::read(&args.paths).await?;
    let places = found.places();
    let request = PlanRequest { apply: found.objects, passwords: found.passwords, ..PlanRequest::default() };
    let outcome = carry_out(&client, &request, args.yes, format).await;
    outcome.map_err(|failure| Declarations::locate(&places, failure))
}

/// Runs `delete`.
pub(crate) async fn delete(global: &Global, args: &DeleteArgs) -> Outcome {
    let client = Client::of(global)?;
    let mut delete: Vec<_> =
        args.names.iter().map(|name| ObjectRef { kind: args.kind, name: name.clone() }).collect();
    if args.kind == Kind::Machine {
        // That a machine is retired is all that its assignment says; deleted alone, it would bring the machine back.
        let retired = assignments(&client).await?.into_iter().filter(|(_, spec)| spec.retire);
        let retired = retired.map(|(name, _)| name).filter(|name| args.names.contains(name));
        delete.extend(retired.map(|name| ObjectRef { kind: Kind::Assignment, name }));
    }
    let request = PlanRequest { delete, ..PlanRequest::default() };
    carry_out(&client, &request, args.yes, args.output.unwrap_or(Format::Table)).await
}

/// Plans, shows, asks, applies, and says so.
async fn carry_out(client: &Client, request: &PlanRequest, yes: bool, format: Format) -> Outcome {
    let applied = plan_and_apply(client, request, yes, format).await?;
    match format {
        Format::Table if !applied.plan.is_empty() => output::text(&format!("\n{}\n", told(&applied))),
        _ => show(format, &applied),
    }
}

/// Plans, shows, asks, applies. An empty plan is not applied, and not shown.
pub(crate) async fn plan_and_apply(
    client: &Client,
    request: &PlanRequest,
    yes: bool,
    format: Format,
) -> Outcome<Applied> {
    let plan = client.plan(request).await?;
    if plan.is_empty() {
        return Ok(Applied { plan, already: true });
    }
    if format == Format::Table {
        output::text(&plan::render(&plan))?;
    } else if !yes {
        note(&anstream::adapter::strip_str(&plan::render(&plan)).to_string());
    }
    if !yes {
        confirm("Apply this plan?").await?;
    }
    client.apply(&plan.digest).await
}

fn show(format: Format, applied: &Applied) -> Outcome {
    output::value(format, applied, |applied| {
        if applied.plan.is_empty() { plan::render(&applied.plan) } else { told(applied) + "\n" }
    })
}

fn told(applied: &Applied) -> String {
    let Applied { plan, already } = applied;
    if *already {
        return format!("Plan {} was applied before; nothing was done.", plan.digest);
    }
    let machines =
        plan.changes.iter().any(|change| change.kind == Kind::Machine && change.action != Action::Delete);
    let next = if machines { "\nFollow it with `bailiwick get machines --watch`." } else { "" };
    format!("Applied: {}.{next}", counts(plan))
}

fn counts(plan: &Plan) -> String {
    let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
    let parts = [
        (count(Action::Create), "created"),
        (count(Action::Update), "updated"),
        (count(Action::Delete), "deleted"),
        (plan.unchanged, "unchanged"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(", ")
}
