//! What Ironic answers when it refuses: the status, the sentence, and the three shapes that its errors have.

use http::StatusCode;
use serde_json::{Value, json};

use super::states::ProvisionState;
use super::version::Microversion;

/// A refusal with Ironic's own sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("")]
    NoSuchPath,
    #[error("")]
    MethodNotAllowed { allow: &'static str },
    #[error("Invalid value for X-OpenStack-Ironic-API-Version header")]
    VersionSyntax,
    #[error(
        "Version {asked} was requested but the minor version is not supported by this service. \
         The supported version range is: [1.1, {max}]."
    )]
    VersionUnsupported { asked: String, max: Microversion },
    #[error("Authorization required")]
    CredentialsMissing,
    #[error("Incorrect username or password")]
    CredentialsWrong,
    #[error("Unsupported authorization type \"{0}\"")]
    CredentialsKind(String),
    #[error("Request not acceptable.")]
    NotInVersion,
    #[error("The API is not supported for this version")]
    ApiNotInVersion,
    #[error("Node {0} could not be found.")]
    NodeNotFound(String),
    #[error("Port {0} could not be found.")]
    PortNotFound(String),
    #[error("Could not find the following driver(s) or hardware type(s): {0}.")]
    DriverNotFound(String),
    #[error("Conductor {0} could not be found.")]
    ConductorNotFound(String),
    #[error("Node inventory record for node {0} could not be found.")]
    InventoryNotFound(u64),
    #[error("Node history record {0} could not be found.")]
    HistoryNotFound(String),
    #[error("Node {node} doesn't have a trait '{name}'")]
    TraitNotFound { node: String, name: String },
    #[error("A node with UUID {0} already exists.")]
    NodeUuidTaken(String),
    #[error("A node with name {0} already exists.")]
    NodeNameTaken(String),
    #[error("A port with UUID {0} already exists.")]
    PortUuidTaken(String),
    #[error("A port with MAC address {0} already exists.")]
    MacTaken(String),
    #[error(
        "Instance {instance} is already associated with a node, it cannot be associated with this other node {node}"
    )]
    InstanceTaken { instance: String, node: String },
    #[error("Node {node} is associated with instance {instance}.")]
    NodeAssociated { node: String, instance: String },
    #[error("Node {node} is locked by host {host}, please retry after the current operation is completed.")]
    NodeLocked { node: String, host: String },
    #[error("Node {0} can not be updated while a state transition is in progress.")]
    InTransition(String),
    #[error("Cannot update node \"{node}\" while it is in state \"{state}\".")]
    NotUpdatable { node: String, state: ProvisionState },
    #[error(
        "The requested action \"{action}\" can not be performed on node \"{node}\" while it is in state \"{state}\"."
    )]
    InvalidState { action: String, node: String, state: String },
    #[error(
        "Can not delete node \"{node}\" while it is in provision state \"{state}\". Valid provision states to perform \
         deletion are: \"('manageable', 'enroll', 'adopt failed', 'available')\", or set the node into maintenance mode"
    )]
    NotDeletable { node: String, state: ProvisionState },
    #[error("Node {0} is protected and can not be undeployed, rebuilt or deleted.")]
    Protected(String),
    #[error("The {operation} operation can't be performed on node {node} because it's in maintenance mode.")]
    InMaintenance { operation: &'static str, node: String },
    #[error(
        "Node {node} can not have {field} updated unless it is in one of allowed (enroll, inspecting, inspect wait, \
         manageable, available) states or in maintenance mode. Current state is '{state}'."
    )]
    InterfaceFixed { node: String, field: String, state: ProvisionState },
    #[error("Failed to set node power state to {0}.")]
    PowerStateFailure(String),
    /// Any other refusal of what a client has sent.
    #[error("{0}")]
    Invalid(String),
    /// What Ironic answers with 500 although the client is at fault.
    #[error("{0}")]
    Crash(String),
}

impl Refusal {
    /// A 400 with this sentence.
    pub(crate) fn invalid(sentence: impl Into<String>) -> Self {
        Self::Invalid(sentence.into())
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath
            | Self::ApiNotInVersion
            | Self::NodeNotFound(_)
            | Self::PortNotFound(_)
            | Self::DriverNotFound(_)
            | Self::ConductorNotFound(_)
            | Self::InventoryNotFound(_)
            | Self::HistoryNotFound(_)
            | Self::TraitNotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::VersionSyntax | Self::VersionUnsupported { .. } | Self::NotInVersion => {
                StatusCode::NOT_ACCEPTABLE
            }
            Self::CredentialsMissing | Self::CredentialsWrong => StatusCode::UNAUTHORIZED,
            Self::NodeUuidTaken(_)
            | Self::NodeNameTaken(_)
            | Self::PortUuidTaken(_)
            | Self::MacTaken(_)
            | Self::InstanceTaken { .. }
            | Self::NodeAssociated { .. }
            | Self::NodeLocked { .. }
            | Self::InTransition(_)
            | Self::NotUpdatable { .. }
            | Self::NotDeletable { .. }
            | Self::InterfaceFixed { .. } => StatusCode::CONFLICT,
            Self::Protected(_) => StatusCode::FORBIDDEN,
            Self::CredentialsKind(_)
            | Self::InvalidState { .. }
            | Self::InMaintenance { .. }
            | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::PowerStateFailure(_) | Self::Crash(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body. Ironic has three shapes: what its authentication answers, what its router answers, and what its controllers answer; the
    /// latter two as JSON within a string.
    pub(crate) fn body(&self) -> Value {
        let (status, sentence) = (self.status(), self.to_string());
        let inner = match self {
            Self::CredentialsMissing | Self::CredentialsWrong | Self::CredentialsKind(_) => {
                return json!({"error": {"message": sentence, "code": status.as_u16()}});
            }
            Self::NoSuchPath
            | Self::MethodNotAllowed { .. }
            | Self::VersionSyntax
            | Self::VersionUnsupported { .. } => {
                let title = status.canonical_reason().unwrap_or_default();
                json!({"code": status.as_u16(), "title": title, "description": sentence})
            }
            _ => {
                let side = if status.is_server_error() { "Server" } else { "Client" };
                json!({"faultcode": side, "faultstring": sentence, "debuginfo": null})
            }
        };
        json!({"error_message": inner.to_string()})
    }
}

/// A JSON value as Python's `repr` writes it, which many of Ironic's sentences hold.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", python(&Value::from(key.as_str())), python(value))
            };
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_refusal_is_json_within_a_string() {
        let body = Refusal::NodeNotFound("n1".to_owned()).body();
        let inner: Value = serde_json::from_str(body["error_message"].as_str().unwrap()).unwrap();
        assert_eq!(
            inner,
            json!({"faultcode": "Client", "faultstring": "Node n1 could not be found.", "debuginfo": null})
        );
    }

    #[test]
    fn the_router_and_the_authentication_answer_in_shapes_of_their_own() {
        let inner: Value =
            serde_json::from_str(Refusal::NoSuchPath.body()["error_message"].as_str().unwrap()).unwrap();
        assert_eq!(inner, json!({"code": 404, "title": "Not Found", "description": ""}));
        assert_eq!(Refusal::CredentialsMissing.body()["error"]["code"], 401);
    }

    #[test]
    fn values_are_written_as_python_does() {
        let value = json!({"op": "add", "value": [1, true, null, "it's"]});
        assert_eq!(python(&value), r#"{'op': 'add', 'value': [1, True, None, "it's"]}"#);
    }
}
