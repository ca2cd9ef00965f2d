//! A node's history.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Refusal, Reply, Request, node};
use crate::ironic::fleet::Fleet;
use crate::ironic::node::{HistoryEntry, Node};

pub(super) fn get(fleet: &Fleet, request: &Request<'_>, id: u64, rest: &[&str]) -> Answer {
    request.allow(&[Method::GET])?;
    let node = node(fleet, id)?;
    let show = |entry: &HistoryEntry, whole: bool| shown(fleet, request, node, entry, whole);
    match rest {
        [] => {
            request.only(&["detail", "marker", "limit"])?;
            let whole = request.flag("detail")?.unwrap_or(false);
            let entries: Vec<_> = node.history.iter().map(|entry| show(entry, whole)).collect();
            Ok(Reply::ok(json!({"history": entries})))
        }
        [uuid] => node
            .history
            .iter()
            .find(|entry| entry_uuid(node, entry) == *uuid)
            .map(|entry| Reply::ok(show(entry, true)))
            .ok_or_else(|| Refusal::HistoryNotFound((*uuid).to_owned())),
        _ => Err(Refusal::NoSuchPath),
    }
}

fn entry_uuid(node: &Node, entry: &HistoryEntry) -> String {
    Uuid::from_u64_pair(node.id, entry.number).to_string()
}

fn shown(fleet: &Fleet, request: &Request<'_>, node: &Node, entry: &HistoryEntry, whole: bool) -> Value {
    let uuid = entry_uuid(node, entry);
    let view = request.view(fleet);
    let href = format!("{}/v1/nodes/{}/history/{uuid}", request.base, node.uuid);
    let mut shown = json!({
        "uuid": uuid, "created_at": view.time(Some(entry.at)), "severity": entry.severity, "event": entry.event,
        "links": [{"href": href, "rel": "self"}],
    });
    if whole {
        shown["conductor"] = Value::from(fleet.settings.conductor.as_str());
        shown["event_type"] = Value::from("provisioning");
        shown["user"] = Value::Null;
    }
    shown
}
