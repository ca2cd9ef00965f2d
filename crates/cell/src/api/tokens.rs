//! Tokens: who may call.

use super::access::Caller;
use super::problem::Refusal;
use super::types::{NewToken, Secret, TokenItem, TokenRequest};
use super::{Answer, Api, Shared};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use domain::Name;
use domain::principal::Permission;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(tokens, create)).routes(routes!(revoke))
}

/// Live tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses((status = 200, body = Vec<TokenItem>)))]
async fn tokens(State(api): Shared, caller: Caller) -> Answer<Vec<TokenItem>> {
    caller.needs(Permission::Administer)?;
    let now = api.store.clock().await?;
    let live = api.store.tokens().await?.into_iter().filter(|token| token.is_live(now));
    let items = live.filter_map(|token| {
        let name = Name::new(token.name).ok()?;
        Some(TokenItem { name, role: token.role, created_at: token.created_at, expires_at: token.expires_at })
    });
    Ok(Json(items.collect()))
}

/// Makes a token and shows it, this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = NewToken), (status = 409, description = "A live token has this name.")))]
async fn create(
    State(api): Shared,
    caller: Caller,
    body: Result<Json<TokenRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<NewToken>), Refusal> {
    caller.needs(Permission::Administer)?;
    let Json(TokenRequest { name, role, expires_in_seconds }) = body?;
    let life = expires_in_seconds.map(Duration::from_secs);
    let token = api.store.create_token(name.as_str(), role, life, caller.name()).await?;
    Ok((StatusCode::CREATED, Json(NewToken { name, token: Secret(token.to_string()) })))
}

/// Revokes a token at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(("name" = String, Path)), responses((status = 204)))]
async fn revoke(
    State(api): Shared,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    caller.needs(Permission::Administer)?;
    api.store.revoke_token(&name?.0, caller.name()).await?;
    Ok(StatusCode::NO_CONTENT)
}
