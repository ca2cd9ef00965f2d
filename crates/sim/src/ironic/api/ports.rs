//! Ports.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::nodes::Page;
use super::{Answer, Refusal, Reply, Request, fields, lock, node};
use crate::ironic::fleet::Fleet;
use crate::ironic::patch;
use crate::ironic::port::{Port, blank_record, is_selectable, mac};

/// What the list view shows where nothing is named.
const BRIEF: &[&str] = &["uuid", "address"];

pub(super) fn route(fleet: &mut Fleet, request: &Request<'_>, rest: &[&str]) -> Answer {
    match (request.method, rest) {
        (&Method::GET, []) => list(fleet, request, None, false),
        (&Method::GET, ["detail"]) => list(fleet, request, None, true),
        (&Method::POST, []) => create(fleet, request),
        (&Method::PATCH | &Method::DELETE, []) => {
            Err(Refusal::invalid("Missing mandatory parameter: port_uuid"))
        }
        (&Method::GET, [ident]) => show(fleet, request, ident),
        (&Method::PATCH, [ident]) => update(fleet, request, ident),
        (&Method::DELETE, [ident]) => delete(fleet, request, ident),
        (_, [] | [_]) => Err(Refusal::MethodNotAllowed { allow: "DELETE, GET, PATCH, POST" }),
        _ => Err(Refusal::NoSuchPath),
    }
}

pub(super) fn of_node(fleet: &Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::GET])?;
    list(fleet, request, Some(id), false)
}

/// The owner's UUID.
fn owner<'a>(fleet: &'a Fleet, port: &Port) -> &'a str {
    fleet.node(port.node).map_or("", |node| node.uuid.as_str())
}

fn selected(request: &Request<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(fields) = request.fields() else { return Ok(None) };
    request.since(8)?;
    let unknown: Vec<_> = fields.iter().filter(|field| !is_selectable(field)).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(Some(fields));
    }
    Err(Refusal::invalid(format!("Field(s) \"{}\" are not valid", unknown.join(", "))))
}

fn list(fleet: &Fleet, request: &Request<'_>, of: Option<u64>, whole: bool) -> Answer {
    request.only(&[
        "node",
        "node_uuid",
        "address",
        "marker",
        "limit",
        "sort_key",
        "sort_dir",
        "fields",
        "detail",
        "portgroup",
        "shard",
        "conductor_group",
    ])?;
    let chosen = selected(request)?;
    let whole = whole || request.flag("detail")?.unwrap_or(false);
    let of = match request.parameter("node").or(request.parameter("node_uuid")) {
        Some(ident) => Some(request.find(fleet, ident)?),
        None => of,
    };
    let address = request.parameter("address").map(address).transpose()?;
    let page = Page::read(request)?;
    let marker = page.marker.map(|marker| {
        fleet
            .ports
            .by_uuid(marker)
            .map(|port| port.id)
            .ok_or_else(|| Refusal::PortNotFound(marker.to_owned()))
    });
    let marker = marker.transpose()?.unwrap_or(0);
    // An address is asked for once for every machine that is looked up: it is not searched for.
    let candidates: Box<dyn Iterator<Item = &Port>> = match &address {
        Some(address) => Box::new(fleet.ports.by_mac(address).into_iter()),
        None => match of.and_then(|id| fleet.node(id)) {
            Some(node) => Box::new(node.ports.iter().filter_map(|id| fleet.ports.get(*id))),
            None => Box::new(fleet.ports.iter()),
        },
    };
    let ports: Vec<&Port> = candidates
        .filter(|port| port.id > marker && of.is_none_or(|id| port.node == id))
        .take(page.limit)
        .collect();
    let view = request.view(fleet);
    let brief: Vec<String> = BRIEF.iter().map(|field| (*field).to_owned()).collect();
    let fields = if whole { None } else { Some(chosen.clone().unwrap_or(brief)) };
    let shown: Vec<_> =
        ports.iter().map(|port| port.show(&view, owner(fleet, port), fields.as_deref())).collect();
    let mut body = json!({"ports": shown});
    if let Some(last) = ports.last().filter(|_| ports.len() == page.limit) {
        body["next"] = Value::from(page.next(request, whole, fields.as_deref(), &last.uuid));
    }
    Ok(Reply::ok(body))
}

fn show(fleet: &Fleet, request: &Request<'_>, ident: &str) -> Answer {
    request.only(&["fields"])?;
    let chosen = selected(request)?;
    let port = find(fleet, request, ident)?;
    Ok(Reply::ok(port.show(&request.view(fleet), owner(fleet, port), chosen.as_deref())))
}

fn find<'a>(fleet: &'a Fleet, request: &Request<'_>, ident: &str) -> Result<&'a Port, Refusal> {
    if mac(ident).is_some() {
        return Err(Refusal::invalid(format!("Expected UUID or name for port_ident: {ident}")));
    }
    let found = if request.version.0 < 88 { fleet.ports.by_uuid(ident) } else { fleet.ports.find(ident) };
    found.ok_or_else(|| Refusal::PortNotFound(ident.to_owned()))
}

fn address(text: &str) -> Result<String, Refusal> {
    mac(text).ok_or_else(|| Refusal::invalid(format!("Expected valid MAC address for address: {text}")))
}

fn create(fleet: &mut Fleet, request: &Request<'_>) -> Answer {
    let body = request.json()?;
    let given = body.as_object().cloned().unwrap_or_default();
    let blank = blank_record();
    let known = |key: &&str| !blank.contains_key(*key) && !matches!(*key, "uuid" | "node_uuid");
    fields::unexpected("port", given.keys().map(String::as_str).filter(known))?;
    let required = |name: &str| {
        given.get(name).and_then(Value::as_str).ok_or_else(|| {
            Refusal::invalid(format!("Schema error for port: '{name}' is a required property"))
        })
    };
    let address = address(required("address")?)?;
    let owner = required("node_uuid")?;
    let mut record = blank;
    let mut uuid = Uuid::new_v4().to_string();
    for (key, value) in &given {
        let value = fields::conform("port", key, value.clone())?;
        match (key.as_str(), value) {
            ("uuid", Value::String(given)) => uuid = given,
            ("uuid" | "node_uuid", _) | (_, Value::Null) => {}
            (_, value) => {
                record.insert(key.clone(), value);
            }
        }
    }
    record.insert("address".to_owned(), Value::from(address.as_str()));
    // As in the real answers, an unknown node is the body's fault: 400, not 404.
    let id = fleet
        .by_uuid(owner)
        .ok_or_else(|| Refusal::Invalid(Refusal::NodeNotFound(owner.to_owned()).to_string()))?;
    if fleet.ports.by_uuid(&uuid).is_some() {
        return Err(Refusal::PortUuidTaken(uuid));
    }
    if fleet.ports.by_mac(&address).is_some() {
        return Err(Refusal::MacTaken(address));
    }
    lock(fleet, id)?;
    let now = fleet.now();
    let port = fleet.ports.add(uuid.clone(), id, record, now);
    if let Some(node) = fleet.node_mut(id) {
        node.ports.push(port);
    }
    let shown = fleet.ports.get(port).map(|port| port.show(&request.view(fleet), owner, None));
    Ok(Reply::new(StatusCode::CREATED, shown).at(format!("{}/v1/ports/{uuid}", request.base)))
}

fn update(fleet: &mut Fleet, request: &Request<'_>, ident: &str) -> Answer {
    let body = request.json()?;
    let changes = patch::parse(&body)?;
    let blank = blank_record();
    if let Some(change) = changes.iter().find(|change| !blank.contains_key(change.field())) {
        let known: Vec<_> = blank.keys().map(String::as_str).collect();
        return Err(Refusal::invalid(format!(
            "Cannot patch /{}. Only the following can be updated: {}",
            change.field(),
            known.join(", ")
        )));
    }
    let port = find(fleet, request, ident)?;
    let (id, owner) = (port.id, port.node);
    let patched =
        patch::apply(&port.record, &changes, |field| blank.get(field).cloned().unwrap_or_default())?;
    let mut record = Map::new();
    for (key, value) in patched {
        let value = fields::conform("patch", &key, value)?;
        record.insert(key, value);
    }
    let address = address(record.get("address").and_then(Value::as_str).unwrap_or_default())?;
    if fleet.ports.by_mac(&address).is_some_and(|other| other.id != id) {
        return Err(Refusal::MacTaken(address));
    }
    record.insert("address".to_owned(), Value::from(address));
    lock(fleet, owner)?;
    let now = fleet.now();
    fleet.ports.replace(id, record, now);
    let uuid = node(fleet, owner)?.uuid.as_str();
    let shown = fleet.ports.get(id).map(|port| port.show(&request.view(fleet), uuid, None));
    Ok(Reply::ok(shown.unwrap_or_default()))
}

fn delete(fleet: &mut Fleet, request: &Request<'_>, ident: &str) -> Answer {
    let port = find(fleet, request, ident)?;
    let (id, owner) = (port.id, port.node);
    lock(fleet, owner)?;
    fleet.ports.remove(id);
    if let Some(node) = fleet.node_mut(owner) {
        node.ports.retain(|port| *port != id);
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
