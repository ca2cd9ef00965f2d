//! Who calls, from where: bearer tokens, roles, and the Host header.

use super::Api;
use super::problem::Refusal;
use crate::error::coded;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use domain::principal::{Permission, Principal};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;

/// The principal whose token a request carries. A handler that takes one cannot be called without.
pub(super) struct Caller(Principal);

impl Caller {
    /// Refuses a principal whose role may not.
    pub(super) fn needs(&self, permission: Permission) -> Result<(), Refusal> {
        if self.0.role.may(permission) {
            return Ok(());
        }
        let message = format!("{} has the role {}, which may not do this", self.0.name, self.0.role);
        Err(Refusal::new(StatusCode::FORBIDDEN, coded("api.forbidden", message)))
    }

    /// What events call it.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        let unauthorized = |why| Refusal::new(StatusCode::UNAUTHORIZED, coded("api.unauthorized", why));
        let token = bearer(&parts.headers).ok_or_else(|| unauthorized("the call carries no bearer token"))?;
        let principal = api.store.authenticate(token).await?;
        principal.map(Self).ok_or_else(|| unauthorized("the token is unknown, expired or revoked"))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses calls under a host name that is not ours (DNS rebinding).
pub(super) async fn check_host(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let name = host.map(without_port).unwrap_or_default();
    if api.hosts.iter().any(|known| without_port(known).eq_ignore_ascii_case(name)) {
        return Ok(next.run(request).await);
    }
    let problem = coded("api.host-not-allowed", "this cell does not serve that host");
    Err(Refusal::new(
        StatusCode::MISDIRECTED_REQUEST,
        problem.difference(host.unwrap_or("no Host header"), api.hosts.join(", ")),
    ))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && (name.starts_with('[') || !name.contains(':')) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::without_port;

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (given, name) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]:8460", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(without_port(given), name);
        }
    }
}
