//! The HTTP API under `/api/v1`: every route asks for a token, checks its role, and answers errors as problem details.

mod accept;
mod access;
mod agents;
mod events;
mod firmware;
mod gpus;
mod machines;
mod plans;
pub(crate) mod problem;
pub mod schema;
mod tokens;
pub mod types;

use crate::agents::Authority;
use crate::provision::Services;
use crate::publish::Status;
use access::Caller;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::Name;
use domain::principal::Permission;
use problem::Refusal;
use serde_json::Value;
use std::sync::Arc;
use store::Store;
use tokio_util::sync::CancellationToken;
use types::{Publication, Version};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub store: Store,
    pub home: Name,
    pub cell: String,
    pub status: Status,
    pub services: Services,
    pub hosts: Vec<String>,
    /// Who signs agents' certificates; `None` where the cell has no listener for them.
    pub authority: Option<Arc<Authority>>,
    /// See [`crate::Settings::machines_per_site`].
    pub machines_per_site: usize,
    pub stop: CancellationToken,
}

type Shared = State<Arc<Api>>;

/// A body of JSON or a refusal.
type Answer<T> = Result<Json<T>, Refusal>;

/// Largest body taken: some ten thousand machines.
const LARGEST_BODY: usize = 32 << 20;

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(version))
        .routes(routes!(publications))
        .merge(machines::routes())
        .merge(plans::routes())
        .merge(events::routes())
        .merge(firmware::routes())
        .merge(tokens::routes())
        .merge(agents::routes())
        .merge(accept::routes())
}

/// The description of the API (OpenAPI 3.1).
pub fn openapi() -> Value {
    let mut router = routes();
    let description = router.get_openapi_mut();
    "Bailiwick cell".clone_into(&mut description.info.title);
    "v1".clone_into(&mut description.info.version);
    description.info.description = Some(
        "One cell: its machines, GPUs and classes, what is planned and what happened. \
         Every call carries `Authorization: Bearer <token>`; errors are problem details (RFC 9457) with a stable `code`."
            .to_owned(),
    );
    description.info.license = Some(utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").build());
    description.info.contact = None;
    let mut document = serde_json::to_value(router.into_openapi()).unwrap_or_default();
    schema::add_domain_schemas(&mut document);
    document
}

pub(crate) fn router(api: Api) -> Router {
    let api = Arc::new(api);
    let (router, _) = routes().split_for_parts();
    let description = openapi();
    router
        .route("/openapi.json", get(move || async move { Json(description) }))
        .route("/healthz", get(healthz))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), access::check_host))
        .with_state(api)
}

/// Whether the cell can reach its database.
async fn healthz(State(api): Shared) -> Result<&'static str, Refusal> {
    api.store.last_event().await?;
    Ok("ok\n")
}

/// Who serves, and for which jurisdiction.
#[utoipa::path(get, path = "/api/v1/version", tag = "cell", responses((status = 200, body = Version)))]
async fn version(State(api): Shared, caller: Caller) -> Answer<Version> {
    caller.needs(Permission::Read)?;
    Ok(Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: domain::declaration::API_VERSION.to_owned(),
        jurisdiction: api.home.to_string(),
        cell: api.cell.clone(),
    }))
}

/// How the last publication to each sink went.
#[utoipa::path(get, path = "/api/v1/publications", tag = "cell", responses((status = 200, body = Vec<Publication>)))]
async fn publications(State(api): Shared, caller: Caller) -> Answer<Vec<Publication>> {
    caller.needs(Permission::Read)?;
    Ok(Json(api.status.all()))
}
