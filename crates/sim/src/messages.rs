//! Error bodies as services send them (DSP0266, "Error responses"), with the message identifiers that clients look for.

use serde_json::{Value, json};

/// A Redfish error body with this message.
pub fn error(message_id: &str, message: &str) -> Value {
    json!({"error": {
        "code": message_id,
        "message": message,
        "@Message.ExtendedInfo": [{
            "@odata.type": "#Message.v1_1_2.Message",
            "MessageId": message_id,
            "Message": message,
            "MessageArgs": [],
            "Severity": "Critical",
            "Resolution": "None."
        }]
    }})
}

/// No credentials, or none that are known.
pub fn no_valid_session() -> Value {
    error("Base.1.18.NoValidSession", "There is no valid session established with the implementation.")
}

/// Credentials that are known and must be changed first (quirk 4).
pub fn password_change_required(account: &str) -> Value {
    error("Base.1.18.PasswordChangeRequired", &format!("The password of {account} must be changed first."))
}

/// The session pool is full, as iDRAC says it (quirk 2).
pub fn too_many_sessions() -> Value {
    error("IDRAC.2.8.RAC0218", "The maximum number of user sessions is reached.")
}

/// Nothing at this path.
pub fn not_found(path: &str) -> Value {
    error("Base.1.18.ResourceMissingAtURI", &format!("There is no resource at {path}."))
}

/// This method is not for this resource.
pub fn operation_not_allowed() -> Value {
    error("Base.1.18.OperationNotAllowed", "The HTTP method is not allowed on this resource.")
}

/// A query parameter that this service does not have.
pub fn query_not_supported(parameter: &str) -> Value {
    error(
        "Base.1.18.QueryParameterUnsupported",
        &format!("The query parameter {parameter} is not supported."),
    )
}

/// The system is not in a state for this (quirks 14, 15).
pub fn invalid_for_state() -> Value {
    error("Base.1.18.ResourceInUse", "The change cannot be made in the present state of the resource.")
}

/// An action's parameter has a value that it cannot have.
pub fn parameter_not_supported(value: &str, parameter: &str) -> Value {
    let text = format!("The value {value} of the parameter {parameter} is not supported.");
    error("Base.1.18.ActionParameterNotSupported", &text)
}

/// A request body that is not what it should be.
pub fn malformed() -> Value {
    error("Base.1.18.MalformedJSON", "The request body is not the JSON object that this resource takes.")
}

/// The resource is no longer what the client thinks.
pub fn precondition_failed() -> Value {
    error("Base.1.18.PreconditionFailed", "The ETag supplied does not match the resource's.")
}

/// The service wants to know what the client thinks the resource is.
pub fn precondition_required() -> Value {
    error("Base.1.18.PreconditionRequired", "The request needs an If-Match header.")
}
