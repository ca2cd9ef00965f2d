//! Refusals as problem details (RFC 9457) with our codes.

use crate::error::coded;
use crate::listen::TooSlow;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use domain::{Diagnose, Problem};
use http::{StatusCode, Uri, header};
use serde_json::{Value, json};
use std::time::Duration;
use store::{AgentError, StoreError};

/// Why a call was refused: one problem or several at once.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problems: Vec<Problem>,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problems: vec![problem], retry_after: None }
    }

    /// What was asked for cannot be: every reason at once.
    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, problems, retry_after: None }
    }

    /// Says when to call again.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, coded("api.not-found", format!("there is no {what}")))
    }

    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, coded("api.bad-request", why))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NotFound { .. } | StoreError::PlanUnknown(_) | StoreError::TokenUnknown(_) => {
                StatusCode::NOT_FOUND
            }
            StoreError::PlanStale(_)
            | StoreError::TokenExists(_)
            | StoreError::Superseded { .. }
            | StoreError::InUse { .. }
            | StoreError::OwnPassword(_) => StatusCode::CONFLICT,
            StoreError::Agent(error) => match error {
                AgentError::TokenUnknown | AgentError::TokenUsed(_) | AgentError::TokenLate(_) => {
                    StatusCode::UNAUTHORIZED
                }
                AgentError::NotAllowed { .. } => StatusCode::CONFLICT,
                AgentError::OtherMachine { .. } | AgentError::Ended(_) => StatusCode::FORBIDDEN,
            },
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => {
                tracing::error!(code = error.code(), "{error}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.problem())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        if let Some(slow) = TooSlow::behind(&rejection) {
            return Self::new(StatusCode::REQUEST_TIMEOUT, coded("api.too-slow", slow.to_string()));
        }
        Self::new(rejection.status(), coded("api.bad-request", rejection.body_text()))
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let first = self.problems.first().cloned().unwrap_or_else(|| coded("api.internal", "refused"));
        let mut body = json!({
            "type": format!("urn:bailiwick:problem:{}", first.code),
            "title": first.message,
            "status": self.status.as_u16(),
            "detail": first.to_string(),
        });
        if let (Value::Object(body), Ok(Value::Object(fields))) = (&mut body, serde_json::to_value(&first)) {
            body.extend(fields);
        }
        if self.problems.len() > 1 {
            body["problems"] = serde_json::to_value(&self.problems).unwrap_or_default();
        }
        let mut response = (self.status, Json(body)).into_response();
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(wait) = self.retry_after {
            // Whole seconds, at least one (RFC 9110 §10.2.3).
            let seconds = wait.as_secs() + 1;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(crate) async fn no_route(uri: Uri) -> Refusal {
    Refusal::not_found(&format!("route {}", uri.path()))
}

pub(crate) async fn no_method(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        coded("api.bad-request", format!("{} does not take this method", uri.path())),
    )
}
