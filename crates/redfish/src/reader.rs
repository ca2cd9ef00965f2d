//! Reading resources of one BMC: the line between the transport below and the walk above.

use std::future::Future;
use std::time::Duration;

use domain::inventory::{Diagnostic, Requests};
use domain::{Diagnose, Problem};
use serde_json::Value;

use crate::error::{self, Error};

/// Reads resources of one BMC.
pub trait Reader: Send + Sync {
    /// Reads one resource. `uri` is a path as the BMC gave it (`/redfish/v1/Systems/1`, with a query if it has one).
    fn get(&self, uri: &str) -> impl Future<Output = Result<Resource, ReadError>> + Send;

    /// What reading cost until now.
    fn usage(&self) -> Requests;

    /// What the transport found odd until now: a pinned but expired certificate, no session left.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        Vec::new()
    }
}

/// One resource as the BMC gave it. The body is always a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The path it was asked for.
    pub uri: String,
    /// Its body.
    pub body: Value,
    /// Its ETag as given, from the header or else `@odata.etag`; never empty (quirk 6).
    pub etag: Option<String>,
}

/// Why one resource cannot be read; with [`ReadError::Bmc`], why no other can either.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// 404 or 410.
    #[error("{uri} does not exist")]
    NotFound {
        /// The path.
        uri: String,
    },
    /// 403: the account may not read it.
    #[error("the account may not read {uri}")]
    Forbidden {
        /// The path.
        uri: String,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// 401 for this resource, though the credentials are taken elsewhere (quirk 3).
    #[error("the BMC refuses the credentials for {uri}")]
    Unauthorized {
        /// The path.
        uri: String,
    },
    /// 429 or 503, or a message saying "not now", after all attempts.
    #[error("the BMC is too busy to give {uri}")]
    Busy {
        /// The path.
        uri: String,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// Any other status than success.
    #[error("{uri} is answered with status {status}")]
    Status {
        /// The path.
        uri: String,
        /// The HTTP status.
        status: u16,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// Success by status, but the body is an error object.
    #[error("{uri} is answered with an error object under a status of success")]
    ErrorBody {
        /// The path.
        uri: String,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// No answer within the time-out of this class of resource (quirk 30).
    #[error("{uri} did not come within {after:?}")]
    Timeout {
        /// The path.
        uri: String,
        /// How long we waited.
        after: Duration,
    },
    /// The connection is lost whenever this resource is read, also on a fresh one (quirk 1).
    #[error("the connection was lost while reading {uri}: {reason}")]
    ConnectionLost {
        /// The path.
        uri: String,
        /// What the network says.
        reason: String,
    },
    /// The body is no JSON object: an HTML page, for one.
    #[error("{uri} is not a JSON object (content type {})", content_type.as_deref().unwrap_or("not given"))]
    NotJson {
        /// The path.
        uri: String,
        /// The content type as given.
        content_type: Option<String>,
    },
    /// No body at all.
    #[error("{uri} is answered without a body")]
    Empty {
        /// The path.
        uri: String,
    },
    /// The body is larger than one body may be.
    #[error("{uri} is larger than {limit} bytes")]
    TooLarge {
        /// The path.
        uri: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The body is nested too deep.
    #[error("{uri} is nested deeper than {limit} levels")]
    TooDeep {
        /// The path.
        uri: String,
        /// The limit.
        limit: usize,
    },
    /// The body ends early, twice.
    #[error("{uri} ends early, after {received} bytes")]
    Truncated {
        /// The path.
        uri: String,
        /// Bytes received.
        received: u64,
    },
    /// The path leads to another host, or is none at all (quirk 40). Nothing was sent.
    #[error("`{uri}` does not belong to this BMC")]
    CrossOrigin {
        /// The path as given.
        uri: String,
    },
    /// Redirected too often.
    #[error("{uri} is redirected more than {limit} times")]
    Redirects {
        /// The path.
        uri: String,
        /// The limit.
        limit: usize,
    },
    /// The BMC as a whole cannot be read.
    #[error(transparent)]
    Bmc(#[from] Error),
}

impl ReadError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "redfish.resource.not-found",
            Self::Forbidden { .. } => "redfish.resource.forbidden",
            Self::Unauthorized { .. } => "redfish.resource.unauthorized",
            Self::Busy { .. } => "bmc.busy",
            Self::Status { .. } => "redfish.resource.refused",
            Self::ErrorBody { .. } => "redfish.body.error",
            Self::Timeout { .. } => "redfish.resource.timeout",
            Self::ConnectionLost { .. } => "redfish.resource.connection-lost",
            Self::NotJson { .. } => "redfish.body.not-json",
            Self::Empty { .. } => "redfish.body.empty",
            Self::TooLarge { .. } => "redfish.body.too-large",
            Self::TooDeep { .. } => "redfish.body.too-deep",
            Self::Truncated { .. } => "redfish.body.truncated",
            Self::CrossOrigin { .. } => "redfish.uri.cross-origin",
            Self::Redirects { .. } => "redfish.redirects",
            Self::Bmc(error) => error.code(),
        }
    }

    /// Whether the whole BMC cannot be read. Otherwise other resources may still be.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Bmc(_))
    }

    /// The path it is about, where it is about one.
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::NotFound { uri }
            | Self::Forbidden { uri, .. }
            | Self::Unauthorized { uri }
            | Self::Busy { uri, .. }
            | Self::Status { uri, .. }
            | Self::ErrorBody { uri, .. }
            | Self::Timeout { uri, .. }
            | Self::ConnectionLost { uri, .. }
            | Self::NotJson { uri, .. }
            | Self::Empty { uri }
            | Self::TooLarge { uri, .. }
            | Self::TooDeep { uri, .. }
            | Self::Truncated { uri, .. }
            | Self::CrossOrigin { uri }
            | Self::Redirects { uri, .. } => Some(uri),
            Self::Bmc(_) => None,
        }
    }

    /// Whether the same request may work a little later: the BMC is busy, restarts, or changes its state.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::NotFound { .. }
            | Self::ErrorBody { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost { .. }
            | Self::NotJson { .. }
            | Self::Empty { .. }
            | Self::Truncated { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Bmc(error) => error.is_passing(),
            Self::Forbidden { .. }
            | Self::Unauthorized { .. }
            | Self::TooLarge { .. }
            | Self::TooDeep { .. }
            | Self::CrossOrigin { .. }
            | Self::Redirects { .. } => false,
        }
    }

    /// Whether it is about being taken for whom we are.
    pub fn is_about_login(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::Bmc(Error::Unauthorized | Error::LoginWithheld { .. })
        )
    }

    /// The first MessageId of the answer, where it had one.
    pub fn message_id(&self) -> Option<&str> {
        match self {
            Self::Forbidden { message_id, .. }
            | Self::Busy { message_id, .. }
            | Self::Status { message_id, .. }
            | Self::ErrorBody { message_id, .. } => message_id.as_deref(),
            _ => None,
        }
    }
}

impl Diagnose for ReadError {
    fn problem(&self) -> Problem {
        if let Self::Bmc(error) = self {
            return error.problem();
        }
        let mut problem = error::problem(self.code(), self.to_string());
        problem.at = self.uri().map(ToOwned::to_owned);
        problem.found = self.message_id().map(ToOwned::to_owned);
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_of_the_list_and_tells_where() {
        let uri = || "/redfish/v1/x".to_owned();
        let message_id = None;
        for error in [
            ReadError::NotFound { uri: uri() },
            ReadError::Forbidden { uri: uri(), message_id: message_id.clone() },
            ReadError::Unauthorized { uri: uri() },
            ReadError::Busy { uri: uri(), message_id: message_id.clone() },
            ReadError::Status { uri: uri(), status: 500, message_id: message_id.clone() },
            ReadError::ErrorBody { uri: uri(), message_id },
            ReadError::Timeout { uri: uri(), after: Duration::ZERO },
            ReadError::ConnectionLost { uri: uri(), reason: String::new() },
            ReadError::NotJson { uri: uri(), content_type: None },
            ReadError::Empty { uri: uri() },
            ReadError::TooLarge { uri: uri(), limit: 0 },
            ReadError::TooDeep { uri: uri(), limit: 0 },
            ReadError::Truncated { uri: uri(), received: 0 },
            ReadError::CrossOrigin { uri: uri() },
            ReadError::Redirects { uri: uri(), limit: 0 },
        ] {
            let problem = error.problem();
            assert!(problem.hint.is_some() && problem.at == Some(uri()) && !error.is_fatal(), "{error:?}");
        }
    }
}
