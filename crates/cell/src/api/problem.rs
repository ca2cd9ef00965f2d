//! Refusals as problem details (RFC 9457) with our codes.

use crate::error::coded;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use domain::{Diagnose, Problem};
use http::{StatusCode, Uri, header};
use serde_json::{Value, json};
use store::StoreError;

/// Why a call was refused: one problem or several at once.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problems: Vec<Problem>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, problem: Problem) -> Self {
        Self { status, problems: vec![problem] }
    }

    /// What was asked for cannot be: every reason at once.
    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, problems }
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
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(super) async fn no_route(uri: Uri) -> Refusal {
    Refusal::not_found(&format!("route {}", uri.path()))
}

pub(super) async fn no_method(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        coded("api.bad-request", format!("{} does not take this method", uri.path())),
    )
}
