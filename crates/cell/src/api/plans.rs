//! Declarations and the plans that change them.

use super::access::Caller;
use super::machines::page;
use super::problem::Refusal;
use super::types::{Applied, Page, Paging, PlanRequest};
use super::{Answer, Api, Shared, schema};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use domain::plan::Wish;
use domain::principal::Permission;
use domain::{Declaration, Digest, Kind, Name, Plan, Problem, Spec};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Store, StoreError, Zeroizing};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(make))
        .routes(routes!(show))
        .routes(routes!(apply))
        .routes(routes!(declarations))
        .routes(routes!(declaration))
}

/// Makes a plan and keeps it. Nothing changes until it is applied.
#[utoipa::path(post, path = "/api/v1/plans", tag = "plans", request_body = PlanRequest,
    responses((status = 200, body = schema::Plan), (status = 422, description = "Every reason why it must not be.")))]
async fn make(
    State(api): Shared,
    caller: Caller,
    body: Result<Json<PlanRequest>, JsonRejection>,
) -> Answer<Plan> {
    caller.needs(Permission::Change)?;
    let Json(request) = body?;
    let mut passwords = BTreeMap::new();
    for (machine, secret) in &request.passwords {
        if !request.apply.iter().any(|d| d.kind() == Kind::Machine && d.name() == machine) {
            return Err(Refusal::bad_request(format!(
                "a password is given for Machine/{machine}, which is not in the request"
            )));
        }
        passwords.insert(machine.clone(), Zeroizing::new(secret.0.clone()));
    }
    let mut problems = missing_passwords(&api.store, &request.apply, &passwords).await?;
    let wish = Wish {
        new_passwords: new_passwords(&api.store, &passwords).await?,
        apply: request.apply,
        delete: request.delete.into_iter().map(|object| (object.kind, object.name)).collect(),
    };
    let current = api.store.declarations().await?;
    let plan = match Plan::make(&current, &wish, Some(&api.home)) {
        Ok(plan) if problems.is_empty() => plan,
        Ok(_) => return Err(Refusal::invalid(problems)),
        Err(more) => {
            problems.extend(more);
            return Err(Refusal::invalid(problems));
        }
    };
    if !plan.is_empty() {
        api.store.save_plan(&plan, &passwords, caller.name()).await?;
    }
    Ok(Json(plan))
}

/// Machines whose `passwordFile` nobody sent and for which none is sealed.
async fn missing_passwords(
    store: &Store,
    declared: &[Declaration],
    given: &BTreeMap<Name, Zeroizing<String>>,
) -> Result<Vec<Problem>, Refusal> {
    let mut problems = Vec::new();
    for declaration in declared {
        let Spec::Machine(spec) = &declaration.spec else { continue };
        let name = declaration.name();
        if spec.bmc.password_file.is_some()
            && !given.contains_key(name)
            && store.credentials(name).await?.is_none()
        {
            problems.push(crate::error::coded(
                "machine.no-password",
                format!("no password came with {}", declaration.reference()),
            ));
        }
    }
    Ok(problems)
}

/// The machines whose password is new, each with a mark that no other plan has.
async fn new_passwords(
    store: &Store,
    given: &BTreeMap<Name, Zeroizing<String>>,
) -> Result<BTreeMap<Name, String>, Refusal> {
    let mut new = BTreeMap::new();
    for (machine, password) in given {
        if !store.password_equals(machine, password).await? {
            let mut mark = [0; 8];
            getrandom::fill(&mut mark).map_err(store::StoreError::Random)?;
            new.insert(machine.clone(), hex::encode(mark));
        }
    }
    Ok(new)
}

/// A kept plan.
#[utoipa::path(get, path = "/api/v1/plans/{digest}", tag = "plans", params(("digest" = String, Path)),
    responses((status = 200, body = schema::Plan)))]
async fn show(
    State(api): Shared,
    caller: Caller,
    digest: Result<Path<String>, PathRejection>,
) -> Answer<Plan> {
    caller.needs(Permission::Read)?;
    let digest = parse(&digest?.0)?;
    let stored = api.store.plan(&digest).await?;
    Ok(Json(stored.ok_or(StoreError::PlanUnknown(digest))?.plan))
}

/// Applies a kept plan as a whole. Applying it again changes nothing; one whose ground has shifted is refused.
#[utoipa::path(post, path = "/api/v1/plans/{digest}/apply", tag = "plans", params(("digest" = String, Path)),
    responses((status = 200, body = Applied), (status = 409, description = "What it starts from has changed.")))]
async fn apply(
    State(api): Shared,
    caller: Caller,
    digest: Result<Path<String>, PathRejection>,
) -> Answer<Applied> {
    caller.needs(Permission::Change)?;
    let digest = parse(&digest?.0)?;
    let applied = api.store.apply_plan(&digest, caller.name()).await?;
    let stored = api.store.plan(&digest).await?.ok_or(StoreError::PlanUnknown(digest))?;
    Ok(Json(Applied { plan: stored.plan, already: applied.already }))
}

fn parse(digest: &str) -> Result<Digest, Refusal> {
    digest.parse().map_err(|error: domain::name::NotADigest| Refusal::bad_request(error.to_string()))
}

/// Which declarations.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Filter {
    /// Only of this kind.
    kind: Option<String>,
    /// The `continue` of the page before.
    after: Option<String>,
    /// Items a page, 1 to 1000; 500 unless told.
    limit: Option<u32>,
}

/// What is declared.
#[utoipa::path(get, path = "/api/v1/declarations", tag = "declarations", params(Filter),
    responses((status = 200, body = Page<schema::Declaration>)))]
async fn declarations(
    State(api): Shared,
    caller: Caller,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer<Page<Declaration>> {
    caller.needs(Permission::Read)?;
    let Query(Filter { kind, after, limit }) = filter?;
    let kind = kind.map(|kind| parse_kind(&kind)).transpose()?;
    let mut all = api.store.declarations().await?;
    all.retain(|declaration| kind.is_none_or(|kind| declaration.kind() == kind));
    all.sort_by_key(|declaration| (declaration.kind(), declaration.name().clone()));
    page(all, &Paging { after, limit }, Declaration::reference).map(Json)
}

/// One declaration.
#[utoipa::path(get, path = "/api/v1/declarations/{kind}/{name}", tag = "declarations",
    params(("kind" = String, Path), ("name" = String, Path)), responses((status = 200, body = schema::Declaration)))]
async fn declaration(
    State(api): Shared,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Answer<Declaration> {
    caller.needs(Permission::Read)?;
    let (kind, name) = path?.0;
    let (kind, missing) = (parse_kind(&kind)?, format!("{kind}/{name}"));
    let name = Name::new(name).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let found = api.store.declaration(kind, &name).await?;
    found.map(Json).ok_or_else(|| Refusal::not_found(&missing))
}

fn parse_kind(text: &str) -> Result<Kind, Refusal> {
    Kind::parse(text).ok_or_else(|| Refusal::bad_request(format!("there is no kind {text:?}")))
}
