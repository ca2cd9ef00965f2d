//! Tokens by which agents are enrolled.

use super::access::Caller;
use super::problem::Refusal;
use super::types::{AgentTokenRequest, NewAgentToken, Secret};
use super::{Api, Shared};
use crate::error::coded;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use domain::Name;
use domain::agent::AgentToken;
use domain::principal::Permission;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a token is good for unless told otherwise, and at most.
const LIFE: Duration = Duration::from_hours(1);
const LONGEST: Duration = Duration::from_hours(7 * 24);

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Makes a one-time token for the agent of a machine and shows it, this once. One made before and not used is void.
#[utoipa::path(post, path = "/api/v1/machines/{name}/agent-token", tag = "machines", params(("name" = String, Path)),
    request_body = AgentTokenRequest,
    responses((status = 201, body = NewAgentToken), (status = 409, description = "The state of the machine lets no agent in.")))]
async fn create(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    body: Result<Json<AgentTokenRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<NewAgentToken>), Refusal> {
    caller.needs(Permission::Administer)?;
    let name = name?.0;
    let machine = Name::new(name.clone()).map_err(|_| Refusal::not_found(&format!("Machine/{name}")))?;
    let Json(AgentTokenRequest { expires_in_seconds }) = body?;
    let life = expires_in_seconds.map_or(LIFE, Duration::from_secs);
    if life > LONGEST || life.is_zero() {
        return Err(Refusal::bad_request(
            "a token for an agent lives for at least a second and at most 7 days",
        ));
    }
    let Some(authority) = &api.authority else {
        let problem = coded("agent.no-listener", "this cell does not listen for agents");
        return Err(Refusal::new(StatusCode::CONFLICT, problem));
    };
    let secret = api.store.create_agent_token(&machine, life, caller.name()).await?;
    let token = Secret(AgentToken::new(*secret, authority.pin()).reveal());
    Ok((StatusCode::CREATED, Json(NewAgentToken { machine, token, expires_in_seconds: life.as_secs() })))
}
