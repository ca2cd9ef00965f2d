//! `bailiwick provision`, `drain`, `release`, `retire`, `quarantine` and `unquarantine`: what machines shall be used for.
//!
//! Each works out the Assignments that say so, shows the plan, asks, applies, and follows the machines until they are where
//! they should be. Interrupted, the cell goes on; given again, the command takes up following.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cell::api::types::{Machine, ObjectRef, PlanRequest};
use clap::Args;
use domain::assignment::{AssignmentSpec, Lost, Quarantine};
use domain::declaration::Metadata;
use domain::lifecycle::MachineState;
use domain::selector::MachineSelector;
use domain::{Declaration, Kind, Name, Spec};
use indicatif::ProgressBar;
use serde_json::json;

use crate::apply::plan_and_apply;
use crate::args::Global;
use crate::client::{Client, Events};
use crate::errors::{Failure, Outcome, note};
use crate::exit::Exit;
use crate::get::{What, not_found};
use crate::output::{self, Format};
use crate::progress::Progress;

/// Which machines, and how.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// Machines: names and key=value, separated by commas, with * for any characters; keys are site, rack, state,
    /// manufacturer, model, serial and labels; * alone means every machine
    #[arg(value_name = "SELECTOR", value_parser = parse_selector)]
    selector: MachineSelector,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Return once the plan is applied; the cell goes on by itself
    #[arg(long)]
    no_wait: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick provision r1-u01 --to fra1-official
  bailiwick provision 'site=fra1,rack=r1' --to fra1-official --yes
  bailiwick provision 'site=fra1,state=available,model=DGX*' --to fra1-official --no-wait

Each machine is deployed, joins with a token of its own, is compared with its node, and only then is in service.")]
pub(crate) struct ProvisionArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The base cluster they shall be nodes of
    #[arg(long, value_name = "BASECLUSTER", value_parser = crate::apply::parse_name)]
    to: Name,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick drain r1-u01
  bailiwick provision r1-u01 --to fra1-official   # back into service

No new pods, and those there move away, as far as their disruption budgets let them. The machine stays a node.")]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick release r1-u01
  bailiwick release rack=r1 --yes --no-wait

The machines are drained, leave their base cluster, and are erased; what was erased is recorded. Then they are available.")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick retire r1-u01
  bailiwick delete machine r1-u01   # afterwards, to forget it
  bailiwick retire r1-u01 --lost --reason 'burnt with row 3, ticket 4711'

Released, erased, and taken from the provisioning service.

A machine that is destroyed or stolen cannot be erased: with --lost it is retired as it is. The
record of its erasure then says of each disk, GPU memory and TPM that it was not erased, why, and
by whose word. Should it be found, it is erased before it is used again.")]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// They are gone, or will never be reached again: give them up without erasing them
    #[arg(long, requires = "reason")]
    lost: bool,
    /// What became of them; the record says so
    #[arg(long, value_name = "TEXT", requires = "lost")]
    reason: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick quarantine r1-u01 --reason 'PSU smells burnt, ticket 4711'

The provisioning service leaves the machine alone, and its node takes no pods, until `bailiwick unquarantine`.")]
pub(crate) struct QuarantineArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Why; the next person reads it
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick unquarantine r1-u01

The machine is checked and erased anew before it is used again.")]
pub(crate) struct UnquarantineArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// An empty text, such as that of a variable that is not set, never means every machine to a command that changes them.
fn parse_selector(text: &str) -> Result<MachineSelector, String> {
    if text.trim().is_empty() {
        return Err("name machines, or write * for all of them".to_owned());
    }
    text.parse().map_err(|error: domain::selector::NotASelector| error.to_string())
}

/// `provision`.
pub(crate) async fn provision(global: &Global, args: &ProvisionArgs) -> Outcome {
    let change = |spec: &mut AssignmentSpec| {
        (spec.base_cluster, spec.drain) = (Some(args.to.clone()), false);
        (spec.retire, spec.lost) = (false, None);
        true
    };
    carry(global, &args.target, &change, &End { state: MachineState::InService, of: Some(&args.to) }).await
}

/// `drain`. A machine that is no node has nothing to be drained of.
pub(crate) async fn drain(global: &Global, args: &DrainArgs) -> Outcome {
    let change = |spec: &mut AssignmentSpec| {
        spec.drain = spec.base_cluster.is_some();
        spec.drain
    };
    carry(global, &args.target, &change, &End::at(MachineState::Draining)).await
}

/// `release`.
pub(crate) async fn release(global: &Global, args: &ReleaseArgs) -> Outcome {
    // What is retired holds nothing, and is not on the shelf before it is wanted again.
    let change = |spec: &mut AssignmentSpec| {
        (spec.base_cluster, spec.drain) = (None, false);
        !spec.retire
    };
    carry(global, &args.target, &change, &End::at(MachineState::Available)).await
}

/// `retire`.
pub(crate) async fn retire(global: &Global, args: &RetireArgs) -> Outcome {
    let change = |spec: &mut AssignmentSpec| {
        (spec.base_cluster, spec.drain, spec.retire) = (None, false, true);
        if let Some(reason) = &args.reason {
            spec.lost = Some(Lost { reason: reason.clone() });
        }
        true
    };
    carry(global, &args.target, &change, &End::at(MachineState::Retired)).await
}

/// `quarantine`.
pub(crate) async fn quarantine(global: &Global, args: &QuarantineArgs) -> Outcome {
    let change = |spec: &mut AssignmentSpec| {
        spec.quarantine = Some(Quarantine { reason: args.reason.clone() });
        true
    };
    carry(global, &args.target, &change, &End::at(MachineState::Quarantined)).await
}

/// `unquarantine`.
pub(crate) async fn unquarantine(global: &Global, args: &UnquarantineArgs) -> Outcome {
    let change = |spec: &mut AssignmentSpec| spec.quarantine.take().is_some();
    carry(global, &args.target, &change, &End::at(MachineState::Inspected)).await
}

/// Where machines are sent.
struct End<'a> {
    state: MachineState,
    /// The base cluster that they shall be nodes of.
    of: Option<&'a Name>,
}

impl End<'_> {
    fn at(state: MachineState) -> Self {
        Self { state, of: None }
    }

    fn holds(&self, machine: &Machine) -> bool {
        match self.state {
            // Let back in, it goes on at once.
            MachineState::Inspected => machine.state != MachineState::Quarantined,
            MachineState::Draining => machine.drained && machine.waiting.is_none(),
            // One that changes its cluster is in service still, in the one that it leaves.
            _ => {
                machine.state == self.state && (self.of.is_none() || machine.base_cluster.as_ref() == self.of)
            }
        }
    }

    /// How far a machine is on its way, and how far that is.
    fn way(&self, state: MachineState) -> (u64, u64) {
        use MachineState as S;
        const BACK: [MachineState; 7] =
            [S::Provisioning, S::Verifying, S::InService, S::Draining, S::Wiping, S::Available, S::Retired];
        let way: &[MachineState] =
            if matches!(self.state, S::Available | S::Retired) { &BACK } else { &MachineState::ALL };
        let place = |state| way.iter().position(|known| *known == state).unwrap_or_default() as u64;
        (place(state).min(place(self.state)), place(self.state).max(1))
    }
}

/// Works out the assignments, plans, shows, asks, applies, follows.
async fn carry(
    global: &Global,
    target: &Target,
    change: &dyn Fn(&mut AssignmentSpec) -> bool,
    end: &End<'_>,
) -> Outcome {
    let client = Client::of(global)?;
    let format = target.output.unwrap_or(Format::Table);
    let chosen = choose(&client, &target.selector).await?;
    let present = assignments(&client).await?;
    let mut request = PlanRequest::default();
    let mut concerned = BTreeSet::new();
    for machine in &chosen {
        let before = present.get(machine);
        let mut spec = before.cloned().unwrap_or_default();
        if !change(&mut spec) {
            note(&format!("Machine/{machine} has nothing to change"));
            continue;
        }
        concerned.insert(machine.clone());
        if !spec.is_empty() {
            let metadata = Metadata { name: machine.clone(), labels: BTreeMap::new() };
            request.apply.push(Declaration { metadata, spec: Spec::Assignment(spec) });
        } else if before.is_some() {
            request.delete.push(ObjectRef { kind: Kind::Assignment, name: machine.clone() });
        }
    }
    if concerned.is_empty() {
        let nobody = BTreeSet::new();
        return if format == Format::Table {
            Ok(())
        } else {
            told(&concerned, &nobody, &BTreeMap::new(), end.state, format)
        };
    }
    // Before the plan is applied, so that nothing falls between.
    let changes = if target.no_wait { None } else { Some(Changes::of(&client).await?) };
    let applied = plan_and_apply(&client, &request, target.yes, format).await?;
    match changes {
        Some(changes) => follow(&client, changes, &concerned, end, format).await,
        None => output::value(format, &applied, |applied| {
            if applied.plan.is_empty() {
                "Nothing to change: the machines are assigned so already.\n".to_owned()
            } else {
                "Applied. Follow it with `bailiwick get machines --watch`.\n".to_owned()
            }
        }),
    }
}

/// The machines that a selector chooses, by name; none is a mistake.
pub(crate) async fn choose(client: &Client, selector: &MachineSelector) -> Outcome<Vec<Name>> {
    let machines = client.machines().await?;
    for name in selector.literals() {
        if machines.iter().all(|machine| machine.name.as_str() != name) {
            let known: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
            return Err(not_found("machine", &name, What::Machines, &known));
        }
    }
    let chosen: Vec<Name> = machines
        .iter()
        .filter(|machine| fits(selector, machine))
        .map(|machine| machine.name.clone())
        .collect();
    if chosen.is_empty() {
        return Err(not_found("machine that fits", &selector.to_string(), What::Machines, &[]));
    }
    Ok(chosen)
}

fn fits(selector: &MachineSelector, machine: &Machine) -> bool {
    selector.fits(&machine.name, |key| match key {
        "site" => Some(machine.site.to_string()),
        "rack" => machine.rack.as_ref().map(|rack| rack.name.to_string()),
        "state" => Some(machine.state.to_string()),
        "manufacturer" => machine.manufacturer.clone(),
        "model" => machine.model.clone(),
        "serial" => machine.serial.clone(),
        label => machine.labels.get(label).cloned(),
    })
}

/// What machines are wanted for.
pub(crate) async fn assignments(client: &Client) -> Outcome<BTreeMap<Name, AssignmentSpec>> {
    let mut found = BTreeMap::new();
    for document in client.declarations(Kind::Assignment).await? {
        if let Ok(Declaration { metadata, spec: Spec::Assignment(spec) }) = Declaration::from_json(document) {
            found.insert(metadata.name, spec);
        }
    }
    Ok(found)
}

/// Tells when it is worth looking again.
struct Changes {
    /// `None` where the caller's role may not watch events: then it is looked again now and then.
    events: Option<Events>,
}

impl Changes {
    async fn of(client: &Client) -> Outcome<Self> {
        match client.watch().await {
            Ok(events) => Ok(Self { events: Some(events) }),
            Err(Failure::Problems { exit: Exit::Refused, .. }) => Ok(Self { events: None }),
            Err(failure) => Err(failure),
        }
    }

    async fn wait(&mut self) -> Outcome {
        match &mut self.events {
            Some(events) => {
                // Many machines make many events: once one is seen, those that follow at once are looked at together.
                let first = tokio::time::timeout(Duration::from_secs(2), events.next()).await;
                if let Ok(first) = first
                    && first?.is_none()
                {
                    let message = "the cell ended; it goes on when it is started again";
                    return Err(Failure::new("cell.unreachable", message));
                }
                while let Ok(more) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
                    if more?.is_none() {
                        break;
                    }
                }
            }
            None => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        Ok(())
    }
}

/// How far a machine is on its way.
pub(crate) fn distance(state: MachineState) -> u64 {
    let place = MachineState::ALL.iter().position(|known| *known == state).unwrap_or_default();
    u64::try_from(place).unwrap_or_default()
}

/// Follows machines until each is where it should be, or needs people.
async fn follow(
    client: &Client,
    mut changes: Changes,
    concerned: &BTreeSet<Name>,
    end: &End<'_>,
    format: Format,
) -> Outcome {
    let progress = Progress::new(false);
    let bars: BTreeMap<&Name, ProgressBar> =
        concerned.iter().map(|name| (name, progress.bar(name.as_str(), end.way(end.state).1))).collect();
    let mut stuck: BTreeMap<Name, String> = BTreeMap::new();
    let mut arrived = BTreeSet::new();
    let mut said = BTreeSet::new();
    loop {
        arrived.clear();
        for machine in
            client.machines().await?.into_iter().filter(|machine| concerned.contains(&machine.name))
        {
            let waits = machine.waiting.as_ref();
            if let Some(bar) = bars.get(&machine.name) {
                bar.set_position(end.way(machine.state).0);
                bar.set_message(match waits {
                    Some(waiting) => {
                        format!("{}: {}", machine.state, output::clean(&waiting.problem.message))
                    }
                    None => machine.state.to_string(),
                });
            }
            // Without bars somebody reads a log: what is wrong is told there once.
            if let Some(waiting) = waits.filter(|waiting| waiting.problem.code != "machine.under-way")
                && !progress.is_shown()
                && said.insert((machine.name.clone(), waiting.problem.code.clone()))
            {
                note(&output::clean(&format!("Machine/{} waits: {}", machine.name, waiting.problem)));
            }
            let is_there = end.holds(&machine);
            let is_set_aside = machine.state == MachineState::Quarantined
                && !matches!(end.state, MachineState::Quarantined | MachineState::Inspected);
            let needs_people = waits.is_some_and(|waiting| waiting.until.is_none());
            if is_there {
                arrived.insert(machine.name.clone());
                stuck.remove(&machine.name);
            } else if is_set_aside || needs_people {
                let why = waits
                    .map_or_else(|| "it was quarantined".to_owned(), |waiting| waiting.problem.to_string());
                stuck.insert(machine.name.clone(), why);
            } else {
                stuck.remove(&machine.name);
            }
        }
        if arrived.len() + stuck.keys().filter(|name| !arrived.contains(*name)).count() >= concerned.len() {
            break;
        }
        changes.wait().await?;
    }
    // Dropped as they are, they would be drawn once more, after what follows.
    bars.values().for_each(ProgressBar::finish_and_clear);
    progress.clear();
    told(concerned, &arrived, &stuck, end.state, format)
}

fn told(
    concerned: &BTreeSet<Name>,
    arrived: &BTreeSet<Name>,
    stuck: &BTreeMap<Name, String>,
    end: MachineState,
    format: Format,
) -> Outcome {
    let document = json!({ "state": end, "arrived": arrived, "stuck": stuck });
    output::value(format, &document, |_| {
        let so = if end == MachineState::Inspected { "back".to_owned() } else { end.to_string() };
        let mut text = format!("{} of {} machines are {so}.\n", arrived.len(), concerned.len());
        for (name, why) in stuck {
            text += &format!("Machine/{name}: {}\n  `bailiwick why {name}` says more\n", output::clean(why));
        }
        text
    })?;
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "machine.stuck",
        format!("{} of {} machines did not arrive", stuck.len(), concerned.len()),
    ))
}
