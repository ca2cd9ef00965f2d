//! From a request to an answer, without sockets.

mod discovery;
mod fields;
mod history;
mod nodes;
mod ports;
mod power;
mod provision;

use std::str::FromStr;

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::clock::Clock;
use super::fault::Effect;
use super::fleet::Fleet;
use super::node::{Node, View};
use super::refusal::{Refusal, python};
use super::version::Microversion;

/// A request, read.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    /// The path's segments, decoded, without empty ones.
    pub(crate) path: &'a [String],
    pub(crate) query: &'a [(String, String)],
    pub(crate) body: &'a [u8],
    pub(crate) version: Microversion,
    /// Where the endpoint is.
    pub(crate) base: &'a str,
    pub(crate) clock: &'a Clock,
    /// The newest version that the endpoint speaks.
    pub(crate) newest: Microversion,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Option<Value>,
    pub(crate) location: Option<String>,
    /// Whether no controller has seen the request.
    pub(crate) refused_by_router: bool,
}

impl Reply {
    fn new(status: StatusCode, body: Option<Value>) -> Self {
        Self { status, body, location: None, refused_by_router: false }
    }

    fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, Some(body))
    }

    fn empty(status: StatusCode) -> Self {
        Self::new(status, None)
    }

    fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }
}

/// What a handler answers.
pub(crate) type Answer = Result<Reply, Refusal>;

/// Answers a request. The fleet is settled before and after.
pub(crate) fn answer(fleet: &mut Fleet, request: &Request<'_>) -> Answer {
    fleet.settle();
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let reply = match path.as_slice() {
        [] => discovery::root(request),
        ["v1"] => discovery::v1(request),
        ["v1", "drivers", rest @ ..] => discovery::drivers(fleet, request, rest),
        ["v1", "conductors", rest @ ..] => discovery::conductors(fleet, request, rest),
        ["v1", "nodes"] => nodes::collection(fleet, request),
        ["v1", "nodes", "detail"] => nodes::detail(fleet, request),
        ["v1", "nodes", ident] => nodes::one(fleet, request, ident),
        ["v1", "nodes", ident, rest @ ..] => within(fleet, request, ident, rest),
        ["v1", "ports", rest @ ..] => ports::route(fleet, request, rest),
        ["v1", collection] => discovery::empty_collection(request, collection),
        _ => Err(Refusal::NoSuchPath),
    };
    fleet.settle();
    reply
}

/// What lies under a node.
fn within(fleet: &mut Fleet, request: &Request<'_>, ident: &str, rest: &[&str]) -> Answer {
    let since = match rest[0] {
        "bios" => 40,
        "history" => 78,
        "inventory" => 81,
        "firmware" => 86,
        "vmedia" => 89,
        _ => 1,
    };
    if request.version.0 < since {
        return Err(Refusal::NoSuchPath);
    }
    let id = request.find(fleet, ident)?;
    match rest {
        ["states"] => nodes::states(fleet, request, id),
        ["states", "provision"] => provision::put(fleet, request, id, ident),
        ["states", "power"] => power::put(fleet, request, id, ident),
        ["maintenance"] => nodes::maintenance(fleet, request, id),
        ["validate"] => nodes::validate(fleet, request, id),
        ["inventory"] => nodes::inventory(fleet, request, id),
        ["management", "boot_device", rest @ ..] => nodes::boot_device(fleet, request, id, rest),
        ["vmedia"] => nodes::virtual_media(fleet, request, id),
        ["traits", rest @ ..] => nodes::traits(fleet, request, id, ident, rest),
        ["history", rest @ ..] => history::get(fleet, request, id, rest),
        ["ports"] => ports::of_node(fleet, request, id),
        [kind @ ("bios" | "firmware" | "vifs" | "portgroups")] => {
            request.allow(&[Method::GET])?;
            Ok(Reply::ok(Map::from_iter([((*kind).to_owned(), Value::Array(Vec::new()))]).into()))
        }
        ["management"] => Err(Refusal::MethodNotAllowed { allow: "" }),
        [field] => Err(Refusal::invalid(format!("Field {field} is not a valid field."))),
        _ => Err(Refusal::NoSuchPath),
    }
}

impl Request<'_> {
    /// How nodes and ports are shown to this request.
    fn view<'a>(&'a self, fleet: &'a Fleet) -> View<'a> {
        View {
            clock: self.clock,
            conductor: &fleet.settings.conductor,
            base: self.base,
            version: self.version,
        }
    }

    /// The node of this UUID or, since 1.5, name.
    fn find(&self, fleet: &Fleet, ident: &str) -> Result<u64, Refusal> {
        let named = || fleet.by_name(ident).filter(|_| self.version.0 >= 5);
        fleet.by_uuid(ident).or_else(named).ok_or_else(|| Refusal::NodeNotFound(ident.to_owned()))
    }

    /// Refuses other methods.
    fn allow(&self, methods: &[Method]) -> Result<(), Refusal> {
        if methods.contains(self.method) {
            return Ok(());
        }
        Err(Refusal::MethodNotAllowed { allow: allow_header(methods) })
    }

    /// Refuses versions before this one.
    fn since(&self, minor: u16) -> Result<(), Refusal> {
        if self.version.0 >= minor { Ok(()) } else { Err(Refusal::NotInVersion) }
    }

    /// Refuses other query parameters.
    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let unknown = self.query.iter().map(|(key, _)| key.as_str()).filter(|key| !known.contains(key));
        refuse_unknown(unknown)
    }

    /// A query parameter.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is a boolean.
    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.parameter(name).map(|text| boolean(name, text)).transpose()
    }

    /// A query parameter that is a number.
    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refusal::invalid(format!("Expected an integer for {name}: {text}")))
        };
        self.parameter(name).map(parse).transpose()
    }

    /// The names of `fields`, from every parameter of that name.
    fn fields(&self) -> Option<Vec<String>> {
        let given = || self.query.iter().filter(|(key, _)| key == "fields");
        given().next()?;
        let names = given().flat_map(|(_, value)| value.split(','));
        Some(names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The body as JSON; an empty one is null.
    fn json(&self) -> Result<Value, Refusal> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        // Ironic answers 500 here, with the words of Python's parser.
        serde_json::from_slice(self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Refusal::Crash(format!("Expecting value: line {line} column {column}"))
        })
    }

    /// The body as named arguments, of which no others may be there.
    fn arguments(&self, known: &[&str]) -> Result<Map<String, Value>, Refusal> {
        let map = match self.json()? {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        refuse_unknown(map.keys().map(String::as_str).filter(|key| !known.contains(key)))?;
        Ok(map)
    }
}

fn refuse_unknown<'a>(unknown: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let unknown: Vec<_> = unknown.collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(format!("Unexpected arguments: {}", unknown.join(", "))))
}

fn allow_header(methods: &[Method]) -> &'static str {
    match methods {
        [Method::GET, Method::PUT, Method::DELETE] => "DELETE, GET, PUT",
        [Method::GET, Method::PUT] => "GET, PUT",
        [Method::GET, Method::POST, Method::DELETE] => "DELETE, GET, POST",
        [Method::PUT, Method::DELETE] => "DELETE, PUT",
        [Method::PUT] => "PUT",
        [Method::GET] => "GET",
        _ => "DELETE, GET, PATCH, POST",
    }
}

/// A text argument: absent, null or a text.
fn text_argument(arguments: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            Err(Refusal::invalid(format!("Expected string for {name}: {}", python(other).trim_matches('\''))))
        }
    }
}

/// A text as a boolean, as `oslo_utils.strutils` reads it.
fn boolean(name: &str, text: &str) -> Result<bool, Refusal> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
        _ => Err(Refusal::invalid(format!(
            "Invalid {name}: Unrecognized value '{text}', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', \
             'off', 'on', 't', 'true', 'y', 'yes'"
        ))),
    }
}

/// Takes the node's lock for the time of a request: refused while a conductor works on it, and by rule.
fn lock(fleet: &mut Fleet, id: u64) -> Result<(), Refusal> {
    let Some(node) = fleet.node(id) else { return Ok(()) };
    let (uuid, name) = (node.uuid.clone(), node.name().map(str::to_owned));
    let locked = |host: &str| Refusal::NodeLocked { node: uuid.clone(), host: host.to_owned() };
    if let Some(host) = node.reservation(&fleet.settings.conductor) {
        return Err(locked(host));
    }
    let by_rule =
        fleet.faults.take(&uuid, name.as_deref(), |effect| (*effect == Effect::Locked).then_some(()));
    match by_rule {
        Some(()) => Err(locked(&fleet.settings.conductor)),
        None => Ok(()),
    }
}

/// The node, which `find` has found.
fn node(fleet: &Fleet, id: u64) -> Result<&Node, Refusal> {
    fleet.node(id).ok_or_else(|| Refusal::NodeNotFound(id.to_string()))
}
