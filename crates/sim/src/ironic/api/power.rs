//! Power requests.

use http::{Method, StatusCode};

use super::{Answer, Refusal, Reply, Request, lock, node, text_argument};
use crate::ironic::fleet::{Fleet, missing_power_info};
use crate::ironic::states::{Power, ProvisionState};

pub(super) fn put(fleet: &mut Fleet, request: &Request<'_>, id: u64, ident: &str) -> Answer {
    request.allow(&[Method::PUT])?;
    let arguments = request.arguments(&["target", "timeout"])?;
    if !arguments.contains_key("target") {
        return Err(Refusal::invalid("Missing mandatory parameter: target"));
    }
    let target = text_argument(&arguments, "target")?.unwrap_or_else(|| "None".to_owned());
    let timeout = arguments.get("timeout").filter(|timeout| !timeout.is_null());
    if timeout.is_some() || target.starts_with("soft") {
        request.since(27)?;
    }
    if timeout.is_some_and(|timeout| timeout.as_u64().is_none_or(|timeout| timeout < 1)) {
        return Err(Refusal::invalid("timeout has to be positive integer"));
    }
    let node = node(fleet, id)?;
    let refused = |node: &str, state: &str| {
        let (action, node, state) = (target.clone(), node.to_owned(), state.to_owned());
        Refusal::InvalidState { action, node, state }
    };
    let power = match target.as_str() {
        "power on" | "rebooting" | "soft rebooting" => Power::On,
        "power off" | "soft power off" => Power::Off,
        _ => return Err(refused(ident, node.power.map_or("None", Power::as_str))),
    };
    if matches!(node.state, ProvisionState::Cleaning | ProvisionState::CleanWait) {
        return Err(refused(ident, node.state.as_str()));
    }
    if power == Power::Off && node.flag("disable_power_off") {
        return Err(Refusal::PowerStateFailure(target));
    }
    if let Some(sentence) = missing_power_info(node) {
        return Err(Refusal::Invalid(sentence));
    }
    lock(fleet, id)?;
    fleet.ask_power(id, power);
    let location = format!("{}/v1/nodes/{ident}/states", request.base);
    Ok(Reply::empty(StatusCode::ACCEPTED).at(location))
}
