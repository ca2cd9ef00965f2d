//! What the endpoint is and offers.

use http::Method;
use serde_json::{Map, Value, json};

use super::{Answer, Refusal, Reply, Request};
use crate::ironic::drivers::{HARDWARE_TYPES, HardwareType, hardware_type};
use crate::ironic::fleet::Fleet;

fn version(request: &Request<'_>) -> Value {
    let (base, newest) = (request.base, request.newest.to_string());
    json!({
        "id": "v1", "links": [{"href": format!("{base}/v1/"), "rel": "self"}], "status": "CURRENT",
        "min_version": "1.1", "version": newest,
    })
}

pub(super) fn root(request: &Request<'_>) -> Answer {
    request.allow(&[Method::GET])?;
    Ok(Reply::ok(json!({
        "name": "OpenStack Ironic API",
        "description": "Ironic is an OpenStack project which enables the provision and management of baremetal machines.",
        "default_version": version(request),
        "versions": [version(request)],
    })))
}

/// Collections with the microversion that shows them.
const COLLECTIONS: &[(&str, u16)] = &[
    ("chassis", 1),
    ("nodes", 1),
    ("ports", 1),
    ("drivers", 1),
    ("portgroups", 23),
    ("volume", 32),
    ("lookup", 22),
    ("heartbeat", 22),
    ("conductors", 49),
    ("allocations", 52),
    ("deploy_templates", 55),
    ("shards", 82),
    ("runbooks", 92),
];

pub(super) fn v1(request: &Request<'_>) -> Answer {
    request.allow(&[Method::GET])?;
    let base = request.base;
    let mut shown = Map::new();
    shown.insert("id".to_owned(), Value::from("v1"));
    shown.insert("links".to_owned(), json!([{"href": format!("{base}/v1/"), "rel": "self"}]));
    shown.insert(
        "media_types".to_owned(),
        json!({"base": "application/json", "type": "application/vnd.openstack.ironic.v1+json"}),
    );
    shown.insert("version".to_owned(), version(request));
    for (name, _) in COLLECTIONS.iter().filter(|(_, since)| request.version.0 >= *since) {
        let links = json!([
            {"href": format!("{base}/v1/{name}/"), "rel": "self"},
            {"href": format!("{base}/{name}/"), "rel": "bookmark"},
        ]);
        shown.insert((*name).to_owned(), links);
    }
    Ok(Reply::ok(shown.into()))
}

/// Collections that are served and have nothing in them.
pub(super) fn empty_collection(request: &Request<'_>, name: &str) -> Answer {
    let known = COLLECTIONS.iter().any(|(other, since)| *other == name && request.version.0 >= *since);
    if !known || matches!(name, "lookup" | "heartbeat" | "volume") {
        return Err(Refusal::NoSuchPath);
    }
    request.allow(&[Method::GET])?;
    Ok(Reply::ok(Map::from_iter([(name.to_owned(), Value::Array(Vec::new()))]).into()))
}

pub(super) fn drivers(fleet: &Fleet, request: &Request<'_>, rest: &[&str]) -> Answer {
    request.allow(&[Method::GET])?;
    let named = |name: &str| hardware_type(name).ok_or_else(|| Refusal::DriverNotFound(name.to_owned()));
    match rest {
        [] => {
            let all: Vec<_> = HARDWARE_TYPES.iter().map(|driver| brief(fleet, request, driver)).collect();
            Ok(Reply::ok(json!({"drivers": all})))
        }
        [name] => Ok(Reply::ok(whole(fleet, request, named(name)?))),
        [name, "properties"] => {
            named(name)?;
            Ok(Reply::ok(json!({})))
        }
        _ => Err(Refusal::NoSuchPath),
    }
}

fn brief(fleet: &Fleet, request: &Request<'_>, driver: &HardwareType) -> Value {
    let view = request.view(fleet);
    let mut shown = Map::new();
    shown.insert("name".to_owned(), Value::from(driver.name));
    shown.insert("hosts".to_owned(), json!([fleet.settings.conductor]));
    shown.insert("links".to_owned(), view.links("drivers", driver.name));
    if request.version.0 >= 14 {
        let properties = view.links("drivers", &format!("{}/properties", driver.name));
        shown.insert("properties".to_owned(), properties);
    }
    if request.version.0 >= 30 {
        shown.insert("type".to_owned(), Value::from("dynamic"));
    }
    shown.into()
}

fn whole(fleet: &Fleet, request: &Request<'_>, driver: &HardwareType) -> Value {
    let mut shown = brief(fleet, request, driver);
    if request.version.0 >= 30 {
        for choice in driver.choices {
            let kind = choice.kind;
            shown[format!("default_{kind}_interface")] = Value::from(choice.enabled.first().copied());
            shown[format!("enabled_{kind}_interfaces")] = Value::from(choice.enabled);
        }
    }
    shown
}

pub(super) fn conductors(fleet: &Fleet, request: &Request<'_>, rest: &[&str]) -> Answer {
    if request.version.0 < 49 {
        return Err(Refusal::ApiNotInVersion);
    }
    request.allow(&[Method::GET])?;
    let conductor = fleet.settings.conductor.as_str();
    let mut shown = json!({
        "hostname": conductor, "conductor_group": "", "alive": true,
        "links": request.view(fleet).links("conductors", conductor),
    });
    match rest {
        [] => Ok(Reply::ok(json!({"conductors": [shown]}))),
        [name] if *name == conductor => {
            let names: Vec<_> = HARDWARE_TYPES.iter().map(|driver| driver.name).collect();
            shown["drivers"] = Value::from(names);
            Ok(Reply::ok(shown))
        }
        [name] => Err(Refusal::ConductorNotFound((*name).to_owned())),
        _ => Err(Refusal::NoSuchPath),
    }
}
