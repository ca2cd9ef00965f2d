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

/// An error about one property or parameter, which clients find by the arguments and the related properties.
fn about(message_id: &str, message: &str, property: &str) -> Value {
    let mut body = error(message_id, message);
    let info = &mut body["error"]["@Message.ExtendedInfo"][0];
    info["MessageArgs"] = json!([property]);
    info["RelatedProperties"] = json!([format!("#/{property}")]);
    body
}

/// A property that must be there.
pub fn property_missing(property: &str) -> Value {
    let text = format!("The property {property} is required and must be included in the request.");
    about("Base.1.18.PropertyMissing", &text, property)
}

/// A property that cannot be changed here (quirk 10).
pub fn property_not_writable(property: &str) -> Value {
    let text = format!("The property {property} is a read only property and cannot be assigned a value.");
    about("Base.1.18.PropertyNotWritable", &text, property)
}

/// A property that this service does not have here.
pub fn property_unknown(property: &str) -> Value {
    let text = format!("The property {property} is not in the list of valid properties for the resource.");
    about("Base.1.18.PropertyUnknown", &text, property)
}

/// A property's value that it cannot have.
pub fn property_value(property: &str, value: &str) -> Value {
    let text = format!("The value {value} for the property {property} is not acceptable.");
    about("Base.1.18.PropertyValueNotInList", &text, property)
}

/// An action's parameter that must be there.
pub fn parameter_missing(parameter: &str) -> Value {
    let text = format!("The action requires the parameter {parameter} to be present in the request body.");
    about("Base.1.18.ActionParameterMissing", &text, parameter)
}

/// An action's parameter that this service does not have.
pub fn parameter_unknown(parameter: &str) -> Value {
    let text = format!("The action was submitted with the invalid parameter {parameter}.");
    about("Base.1.18.ActionParameterUnknown", &text, parameter)
}

/// No credentials, or none that are known.
pub fn no_valid_session() -> Value {
    error("Base.1.18.NoValidSession", "There is no valid session established with the implementation.")
}

/// Credentials that are known and not enough for this.
pub fn insufficient_privilege() -> Value {
    error("Base.1.18.InsufficientPrivilege", "The account does not have the privileges for this operation.")
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
