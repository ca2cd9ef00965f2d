//! Machines, GPUs and classes as they are known now.

use super::access::Caller;
use super::gpus;
use super::problem::Refusal;
use super::types::{
    AgentItem, ClassItem, EventItem, GpuDetail, GpuItem, Machine, MachineDetail, Page, Paging, Why,
};
use super::{Answer, Api, Shared};
use crate::error::coded;
use crate::life::is_drained;
use crate::reconcile::share;
use crate::world::{KnownMachine, World};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use domain::inventory::Gpu;
use domain::lifecycle::{self, Step};
use domain::principal::Permission;
use domain::{Fact, Goal, Kind, MachineState, Name, Problem, Spec, Waiting};
use http::StatusCode;
use std::sync::Arc;
use store::AgentRecord;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(machines))
        .routes(routes!(machine))
        .routes(routes!(why))
        .routes(routes!(facts))
        .routes(routes!(history))
        .routes(routes!(erasures))
        .routes(routes!(refresh))
        .routes(routes!(gpus))
        .routes(routes!(gpu))
        .routes(routes!(classes))
}

/// One page of sorted items: those whose key comes after the one given.
pub(super) fn page<T>(
    items: Vec<T>,
    paging: &Paging,
    key: impl Fn(&T) -> String,
) -> Result<Page<T>, Refusal> {
    let limit = paging.limit.unwrap_or(500);
    if !(1..=1000).contains(&limit) {
        return Err(Refusal::bad_request(format!("limit is {limit}; it must be 1 to 1000")));
    }
    let limit = limit as usize;
    let start = match &paging.after {
        None => 0,
        Some(after) => items.iter().position(|item| key(item) > *after).unwrap_or(items.len()),
    };
    let more = items.len() > start + limit;
    let items: Vec<T> = items.into_iter().skip(start).take(limit).collect();
    let next = items.last().filter(|_| more).map(&key);
    Ok(Page { items, next })
}

fn summary(
    world: &World,
    name: &Name,
    known: &KnownMachine,
    inventory: Option<&domain::Inventory>,
) -> Machine {
    let identity = inventory.map(|inventory| &inventory.identity);
    Machine {
        name: name.clone(),
        state: known.record.state,
        since: known.record.since,
        waiting: known.record.waiting.clone(),
        site: known.spec.site.clone(),
        jurisdiction: world.jurisdiction_of(known).unwrap_or(&world.home).clone(),
        rack: known.spec.rack.clone(),
        zone: world.zone_of(known).cloned(),
        manufacturer: identity.and_then(|identity| identity.manufacturer.clone()),
        model: identity.and_then(|identity| identity.model.clone()),
        serial: known.record.serial.clone(),
        gpus: known.gpus.len(),
        base_cluster: known.record.instance.as_ref().map(|instance| instance.base_cluster.clone()),
        drained: is_drained(&known.record),
        labels: known.labels.clone(),
    }
}

/// Machines, by name.
#[utoipa::path(get, path = "/api/v1/machines", tag = "machines", params(Paging), responses((status = 200, body = Page<Machine>)))]
async fn machines(
    State(api): Shared,
    caller: Caller,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer<Page<Machine>> {
    caller.needs(Permission::Read)?;
    let Query(paging) = paging?;
    let world = World::read(&api.store, &api.home).await?;
    let names: Vec<&Name> = world.machines.keys().collect();
    let names = page(names, &paging, std::string::ToString::to_string)?;
    let mut items = Vec::with_capacity(names.items.len());
    for name in names.items {
        let inventory = api.store.inventory(name).await?.map(|(inventory, _)| inventory);
        items.push(summary(&world, name, &world.machines[name], inventory.as_ref()));
    }
    Ok(Json(Page { items, next: names.next }))
}

fn find<'w>(world: &'w World, name: &str) -> Result<(&'w Name, &'w KnownMachine), Refusal> {
    let found = world.machines.iter().find(|(known, _)| known.as_str() == name);
    found.ok_or_else(|| Refusal::not_found(&format!("Machine/{name}")))
}

/// All that is known of one machine.
#[utoipa::path(get, path = "/api/v1/machines/{name}", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = MachineDetail)))]
async fn machine(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<MachineDetail> {
    caller.needs(Permission::Read)?;
    let world = World::read(&api.store, &api.home).await?;
    let (name, known) = find(&world, &name?.0)?;
    let (inventory, observed_at) = api.store.inventory(name).await?.unzip();
    Ok(Json(MachineDetail {
        machine: summary(&world, name, known, inventory.as_ref()),
        bmc: known.spec.bmc.clone(),
        pin: known.record.pin.map(|pin| pin.to_string()),
        inventory,
        observed_at,
        agent: known.agent.as_ref().map(agent_item),
        facts: api.store.facts(name).await?.len(),
    }))
}

fn agent_item(agent: &AgentRecord) -> AgentItem {
    AgentItem {
        enrolled_at: agent.enrolled_at,
        reported_at: agent.reported_at,
        alive: agent.alive,
        registered: agent.registered,
        version: agent.version.clone(),
        problems: agent.problems.clone(),
        prepared: agent.prepared.clone(),
        probe: agent.probe.as_ref().map(|record| (*record.probe).clone()),
        probed_at: agent.probe.as_ref().map(|record| record.at),
    }
}

/// Why a machine, or a GPU of it, is not further than it is.
#[utoipa::path(get, path = "/api/v1/machines/{name}/why", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Why)))]
async fn why(State(api): Shared, caller: Caller, name: Result<Path<String>, PathRejection>) -> Answer<Why> {
    caller.needs(Permission::Read)?;
    let world = World::read(&api.store, &api.home).await?;
    let (name, known) = find(&world, &name?.0)?;
    let node_of = known.record.instance.as_ref().map(|instance| &instance.base_cluster);
    let step = lifecycle::next(known.record.state, &known.goal, node_of).filter(|_| !is_there(known));
    let blocked = blocked(&api, known, step);
    let info = step.filter(|_| blocked.is_none()).and_then(|step| step.info(known.record.state));
    Ok(Json(Why {
        machine: name.clone(),
        state: known.record.state,
        since: known.record.since,
        waiting: match waits_for_its_turn(&api, known).await? {
            Some(turn) => Some(turn),
            None => known.record.waiting.clone(),
        },
        reason: set_aside(&api, name, known).await?,
        doing: info.map(|info| info.doing.to_owned()),
        usual_seconds: info.map(|info| info.usual.as_secs()),
        unblock: blocked.as_ref().map_or_else(|| unblock(known), |problem| problem.hint.clone()),
        blocked,
        gpus: gpu_problems(&api, &world, name, known).await?,
    }))
}

/// A machine that is due, and that nobody works on because so many of its site are worked on.
async fn waits_for_its_turn(api: &Api, known: &KnownMachine) -> Result<Option<Waiting>, Refusal> {
    let Some(overdue) = api.store.overdue(&known.record.name).await? else { return Ok(None) };
    if overdue.held < share(api.machines_per_site, overdue.replicas) * overdue.replicas {
        return Ok(None);
    }
    let message = format!("{} machines of Site/{} are worked on at once", overdue.held, known.spec.site);
    let now = api.store.clock().await?;
    Ok(Some(Waiting { problem: coded("limit.site", message), since: now, until: Some(now), attempts: 0 }))
}

/// What keeps a machine's GPUs from being probed, published or allocated.
async fn gpu_problems(
    api: &Api,
    world: &World,
    name: &Name,
    known: &KnownMachine,
) -> Result<Vec<Problem>, Refusal> {
    let mut problems = reasons(world, known);
    problems.extend(world.reconciled().of_machine(name).iter().flat_map(crate::gpus::problems));
    let model = api.store.model(&known.record).await?;
    problems.extend(gpus::awaited(world, name, known, model.as_deref()));
    problems.extend(known.agent.iter().flat_map(|agent| agent.problems.iter().cloned()));
    let place = format!("Machine/{name}");
    for publication in api.status.all() {
        let ours = |problem: &&Problem| {
            problem.at.as_ref().is_some_and(|at| *at == place || at.starts_with(&format!("{place} ")))
        };
        problems.extend(publication.left_out.iter().filter(ours).cloned());
        problems.extend(publication.problem);
    }
    problems.dedup();
    Ok(problems)
}

/// Why a machine that nobody wants yet is not inspected. Enrolled it is of use as it is, so it waits for nothing; one that is
/// wanted waits, and says for what.
fn blocked(api: &Api, known: &KnownMachine, step: Option<Step>) -> Option<Problem> {
    let idle = step == Some(Step::Inspect) && known.record.waiting.is_none();
    if idle { api.services.of(&known.spec.site).err() } else { None }
}

/// Whether a machine is where it shall be, though it goes on looking after that.
fn is_there(known: &KnownMachine) -> bool {
    let settled = known.record.waiting.is_none();
    match known.record.state {
        MachineState::InService => matches!(known.goal, Goal::Serve(_)),
        MachineState::Draining => settled && is_drained(&known.record),
        MachineState::Quarantined => settled,
        _ => false,
    }
}

/// Why people, or the cell itself, have set a machine aside.
async fn set_aside(api: &Api, name: &Name, known: &KnownMachine) -> Result<Option<String>, Refusal> {
    if known.record.state != MachineState::Quarantined {
        return Ok(None);
    }
    let declared = api.store.declaration(Kind::Assignment, name).await?;
    Ok(match declared.map(|declared| declared.spec) {
        Some(Spec::Assignment(spec)) => spec.quarantine.map(|quarantine| quarantine.reason),
        _ => None,
    })
}

/// What a machine that only people can help needs of them.
fn unblock(known: &KnownMachine) -> Option<String> {
    if known.record.state == MachineState::Quarantined {
        let name = &known.record.name;
        return Some(format!("look at it; then `bailiwick unquarantine {name}`"));
    }
    let waiting = known.record.waiting.as_ref().filter(|waiting| waiting.until.is_none())?;
    waiting.problem.hint.clone()
}

/// What keeps a machine's GPUs from claims, class by class.
fn reasons(world: &World, known: &KnownMachine) -> Vec<Problem> {
    let mut reasons = Vec::new();
    if !known.record.state.is_enrolled() || known.gpus.is_empty() {
        return reasons;
    }
    for (name, class) in &world.classes {
        let matching = known.gpus.iter().filter(|gpu| world.matches(class, known, gpu)).count();
        let given = known.gpus.iter().filter(|gpu| world.allocatable(class, known, gpu)).count();
        if given < matching {
            let requires: Vec<_> = class.requires.iter().map(|requirement| requirement.as_str()).collect();
            reasons.push(
                coded(
                    "gpu.not-allocatable",
                    format!("{} of {matching} GPUs cannot be claimed by class {name}", matching - given),
                )
                .difference(met(world, known), requires.join(", "))
                .at(format!("GpuClass/{name}")),
            );
        }
    }
    reasons
}

/// What all GPUs of a machine meet.
fn met(world: &World, known: &KnownMachine) -> &'static str {
    let probed = |gpu| {
        let reconciled = world.reconciled().find(&known.record.name, gpu);
        reconciled.is_some_and(|gpu| crate::gpus::confirmed(gpu).is_some())
    };
    if known.gpus.iter().all(probed) { "inventoried, probed" } else { "inventoried" }
}

/// Every fact known of one machine, with its source, path and time.
#[utoipa::path(get, path = "/api/v1/machines/{name}/facts", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Vec<Object>)))]
async fn facts(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Vec<Fact>> {
    caller.needs(Permission::Read)?;
    let name = name?.0;
    let missing = || Refusal::not_found(&format!("Machine/{name}"));
    let known = Name::new(name.clone()).map_err(|_| missing())?;
    api.store.machine(&known).await?.ok_or_else(missing)?;
    Ok(Json(api.store.facts(&known).await?))
}

/// How many entries of a machine's history are given at most: the newest.
const HISTORY: u32 = 1000;

/// What happened to one machine and what was ordered of it, step by step, oldest first. What a step did because the machine's
/// assignment says so names in `data.orderedBy` who changed that last.
#[utoipa::path(get, path = "/api/v1/machines/{name}/history", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Vec<EventItem>)))]
async fn history(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Vec<EventItem>> {
    caller.needs(Permission::Read)?;
    let name = name?.0;
    let missing = || Refusal::not_found(&format!("Machine/{name}"));
    let known = Name::new(name.clone()).map_err(|_| missing())?;
    let mut events = api.store.history(&known, HISTORY).await?;
    if events.is_empty() {
        return Err(missing());
    }
    events.reverse();
    Ok(Json(events.into_iter().map(EventItem::from).collect()))
}

/// What was erased of one machine between its uses, newest first. Kept when the machine is deleted.
#[utoipa::path(get, path = "/api/v1/machines/{name}/erasures", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Vec<Object>)))]
async fn erasures(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Vec<domain::Erasure>> {
    caller.needs(Permission::Read)?;
    let name = name?.0;
    let known = Name::new(name.clone()).map_err(|_| Refusal::not_found(&format!("Machine/{name}")))?;
    Ok(Json(api.store.erasures(&known).await?))
}

/// Has a machine read again, and its step taken again, now.
#[utoipa::path(post, path = "/api/v1/machines/{name}/refresh", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Object)))]
async fn refresh(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<serde_json::Value> {
    caller.needs(Permission::Change)?;
    let name = name?.0;
    let missing = || Refusal::not_found(&format!("Machine/{name}"));
    let known = Name::new(name.clone()).map_err(|_| missing())?;
    if !api.store.refresh(&known, caller.name()).await? {
        return Err(missing());
    }
    Ok(Json(serde_json::json!({ "machine": known })))
}

/// GPUs of all machines, by machine and device.
#[utoipa::path(get, path = "/api/v1/gpus", tag = "gpus", params(Paging), responses((status = 200, body = Page<GpuItem>)))]
async fn gpus(
    State(api): Shared,
    caller: Caller,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer<Page<GpuItem>> {
    caller.needs(Permission::Read)?;
    let Query(paging) = paging?;
    let world = World::read(&api.store, &api.home).await?;
    let known = gpus::known(&world);
    let page = page(known, &paging, |gpu| gpu.key.clone())?;
    let allocations = api.status.allocations();
    Ok(Json(Page {
        items: page.items.into_iter().map(|gpu| gpu.item(&world, &allocations)).collect(),
        next: page.next,
    }))
}

/// One GPU with what each view says of it.
#[utoipa::path(get, path = "/api/v1/gpus/{name}", tag = "gpus",
    params(("name" = String, Path, description = "Its device, serial number or UUID, by whichever view.")),
    responses((status = 200, body = GpuDetail), (status = 409, description = "Several GPUs are meant.")))]
async fn gpu(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<GpuDetail> {
    caller.needs(Permission::Read)?;
    let name = name?.0;
    let world = World::read(&api.store, &api.home).await?;
    let mut found: Vec<_> = gpus::known(&world).into_iter().filter(|gpu| gpu.is_called(&name)).collect();
    match (found.pop(), found.len()) {
        (Some(only), 0) => {
            let model = api.store.model(only.record()).await?;
            Ok(Json(only.detail(&world, &api.status.allocations(), model.as_deref())))
        }
        (None, _) => Err(Refusal::not_found(&format!("GPU {name}"))),
        (Some(_), more) => {
            let message = format!("{} GPUs are meant by {name:?}", more + 1);
            Err(Refusal::new(StatusCode::CONFLICT, coded("gpu.ambiguous", message)))
        }
    }
}

/// GPU classes with how many GPUs each could give.
#[utoipa::path(get, path = "/api/v1/classes", tag = "gpus", params(Paging), responses((status = 200, body = Page<ClassItem>)))]
async fn classes(
    State(api): Shared,
    caller: Caller,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer<Page<ClassItem>> {
    caller.needs(Permission::Read)?;
    let Query(paging) = paging?;
    let world = World::read(&api.store, &api.home).await?;
    let count = |test: &dyn Fn(&KnownMachine, &Gpu) -> bool| {
        world.machines.values().map(|known| known.gpus.iter().filter(|gpu| test(known, gpu)).count()).sum()
    };
    let items = world.classes.iter().map(|(name, spec)| ClassItem {
        name: name.clone(),
        requires: spec.requires.clone(),
        trial: spec.is_trial(),
        matching: count(&|known, gpu| world.matches(spec, known, gpu)),
        allocatable: count(&|known, gpu| world.allocatable(spec, known, gpu)),
        spec: spec.clone(),
    });
    page(items.collect(), &paging, |item: &ClassItem| item.name.to_string()).map(Json)
}
