//! Accepting the GPUs that a machine shows: they were moved, exchanged or repaired, and a person knows it.

use super::access::Caller;
use super::problem::Refusal;
use super::types::{AcceptRequest, Acceptance};
use super::{Answer, Api, Shared};
use crate::error::coded;
use crate::gpus;
use crate::world::World;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use domain::gpu_views::AcceptedGpu;
use domain::principal::Permission;
use domain::{Digest, Name};
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show, accept))
}

/// What would be accepted of the GPUs that a machine shows now.
#[utoipa::path(get, path = "/api/v1/machines/{name}/accepted-gpus", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Acceptance)))]
async fn show(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Acceptance> {
    caller.needs(Permission::Read)?;
    let (machine, world) = enrolled(&api, name?.0).await?;
    Ok(Json(acceptance(&world, &machine).0))
}

/// Accepts the GPUs that a machine shows, as they were shown under this digest, in the place of those that were accepted there.
#[utoipa::path(post, path = "/api/v1/machines/{name}/accepted-gpus", tag = "machines", params(("name" = String, Path)),
    request_body = AcceptRequest,
    responses((status = 200, body = Acceptance), (status = 409, description = "The machine shows something else by now.")))]
async fn accept(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<AcceptRequest>, JsonRejection>,
) -> Answer<Acceptance> {
    caller.needs(Permission::Change)?;
    let Json(AcceptRequest { digest }) = body?;
    let (machine, world) = enrolled(&api, name?.0).await?;
    let (acceptance, gpus) = acceptance(&world, &machine);
    if acceptance.digest != digest {
        let message = format!("{machine} shows other GPUs than those that were to be accepted");
        return Err(Refusal::new(StatusCode::CONFLICT, coded("gpu.accept-stale", message)));
    }
    if !acceptance.is_empty() {
        api.store.accept_gpus(&machine, &gpus, caller.name()).await?;
    }
    Ok(Json(acceptance))
}

async fn enrolled(api: &Api, name: String) -> Result<(Name, World), Refusal> {
    let missing = || Refusal::not_found(&format!("enrolled Machine/{name}"));
    let machine = Name::new(name.clone()).map_err(|_| missing())?;
    let world = World::read(&api.store, &api.home).await?;
    if !world.enrolled().any(|(name, _)| *name == machine) {
        return Err(missing());
    }
    Ok((machine, world))
}

fn acceptance(world: &World, machine: &Name) -> (Acceptance, Vec<AcceptedGpu>) {
    let (before, after) = (world.accepted.of_machine(machine), gpus::acceptable(world, machine));
    let only_in = |these: &[AcceptedGpu], others: &[AcceptedGpu]| -> Vec<BTreeSet<String>> {
        these.iter().filter(|gpu| !others.contains(gpu)).map(|gpu| gpu.identities.clone()).collect()
    };
    let all: Vec<_> = after.iter().map(|gpu| &gpu.identities).collect();
    let was: Vec<_> = before.iter().map(|gpu| &gpu.identities).collect();
    let digest = Digest::of_json(&json!({ "machine": machine, "before": was, "after": all }));
    let conflicts = world.reconciled().of_machine(machine).iter().flat_map(gpus::problems).collect();
    let acceptance = Acceptance {
        machine: machine.clone(),
        digest,
        accepted: only_in(&after, &before),
        forgotten: only_in(&before, &after),
        conflicts,
    };
    (acceptance, after)
}
