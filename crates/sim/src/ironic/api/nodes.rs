//! Nodes: the collection, one of them, and the small things under one.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Answer, Refusal, Reply, Request, fields, lock, node, provision, text_argument};
use crate::ironic::drivers::hardware_type;
use crate::ironic::fleet::{Fleet, missing_power_info};
use crate::ironic::node::{BRIEF, Node, first_version, is_selectable};
use crate::ironic::patch;
use crate::ironic::states::ProvisionState;

/// `max_limit` of the API.
const PAGE_LIMIT: usize = 1000;

pub(super) fn collection(fleet: &mut Fleet, request: &Request<'_>) -> Answer {
    match *request.method {
        Method::GET => list(fleet, request, false),
        Method::POST => create(fleet, request),
        Method::PATCH | Method::DELETE => Err(Refusal::invalid("Missing mandatory parameter: node_ident")),
        _ => Err(Refusal::MethodNotAllowed { allow: "DELETE, GET, PATCH, POST" }),
    }
}

pub(super) fn detail(fleet: &Fleet, request: &Request<'_>) -> Answer {
    request.allow(&[Method::GET])?;
    if request.parameter("fields").is_some() {
        return Err(Refusal::invalid("Unexpected arguments: fields"));
    }
    list(fleet, request, true)
}

pub(super) fn one(fleet: &mut Fleet, request: &Request<'_>, ident: &str) -> Answer {
    match *request.method {
        Method::GET => {
            let id = request.find(fleet, ident)?;
            request.only(&["fields"])?;
            let chosen = selected(request)?;
            let (view, node) = (request.view(fleet), node(fleet, id)?);
            Ok(Reply::ok(chosen.map_or_else(|| view.whole(node), |fields| view.some(node, &fields))))
        }
        Method::PATCH => update(fleet, request, ident),
        Method::DELETE => delete(fleet, request, ident),
        _ => Err(Refusal::MethodNotAllowed { allow: "DELETE, GET, PATCH, POST" }),
    }
}

/// The fields that `?fields=` names.
fn selected(request: &Request<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(fields) = request.fields() else { return Ok(None) };
    request.since(8)?;
    for field in &fields {
        if !is_selectable(field) {
            return Err(Refusal::invalid(format!("Field {field} is not a valid field.")));
        }
        fields::in_version(request, field)?;
    }
    Ok(Some(fields))
}

// Lists

/// Filters of a list, with the version that each came with.
struct Filter<'a> {
    state: Option<ProvisionState>,
    maintenance: Option<bool>,
    associated: Option<bool>,
    retired: Option<bool>,
    texts: Vec<(&'static str, &'a str)>,
}

impl<'a> Filter<'a> {
    const TEXTS: &'static [(&'static str, u16)] = &[
        ("instance_uuid", 1),
        ("chassis_uuid", 1),
        ("driver", 16),
        ("resource_class", 21),
        ("fault", 42),
        ("conductor_group", 46),
        ("conductor", 49),
        ("owner", 50),
        ("lessee", 65),
        ("shard", 82),
        ("parent_node", 83),
        ("instance_name", 104),
    ];

    fn read(request: &'a Request<'_>) -> Result<Self, Refusal> {
        let state = request.parameter("provision_state").map(|word| {
            request.since(9)?;
            ProvisionState::parse(word)
                .ok_or_else(|| Refusal::invalid(format!("Provision state \"{word}\" is not valid")))
        });
        let mut texts = Vec::new();
        for (name, since) in Self::TEXTS {
            if let Some(value) = request.parameter(name) {
                request.since(*since)?;
                texts.push((*name, value));
            }
        }
        Ok(Self {
            state: state.transpose()?,
            maintenance: request.flag("maintenance")?,
            associated: request.flag("associated")?,
            retired: request.flag("retired")?,
            texts,
        })
    }

    fn admits(&self, fleet: &Fleet, node: &Node) -> bool {
        let text = |name: &str| match name {
            "fault" => node.fault.as_deref(),
            "conductor" => Some(fleet.settings.conductor.as_str()),
            field => node.text(field),
        };
        self.state.is_none_or(|state| state == node.state)
            && self.maintenance.is_none_or(|on| on == node.flag("maintenance"))
            && self.retired.is_none_or(|on| on == node.flag("retired"))
            && self.associated.is_none_or(|on| on == node.text("instance_uuid").is_some())
            && self.texts.iter().all(|(name, wanted)| text(name) == Some(wanted))
    }
}

fn list(fleet: &Fleet, request: &Request<'_>, whole: bool) -> Answer {
    const KNOWN: &[&str] = &[
        "associated",
        "chassis_uuid",
        "conductor",
        "conductor_group",
        "description_contains",
        "detail",
        "driver",
        "fault",
        "fields",
        "include_children",
        "instance_name",
        "instance_uuid",
        "lessee",
        "limit",
        "maintenance",
        "marker",
        "owner",
        "parent_node",
        "project",
        "provision_state",
        "resource_class",
        "retired",
        "shard",
        "sharded",
        "sort_dir",
        "sort_key",
    ];
    request.only(KNOWN)?;
    let filter = Filter::read(request)?;
    let detailed = request.flag("detail")?;
    if detailed.is_some() && request.version.0 < 43 {
        return Err(Refusal::invalid("Invalid query parameter ?detail=True received."));
    }
    let chosen = selected(request)?;
    if detailed == Some(true) && chosen.is_some() {
        return Err(Refusal::invalid("Can not specify ?detail=True and fields in the same request."));
    }
    let whole = whole || detailed == Some(true);
    let page = Page::read(request)?;
    let mut nodes: Vec<&Node> = fleet.nodes().filter(|node| filter.admits(fleet, node)).collect();
    page.sort(request, fleet, &mut nodes)?;
    let after = page.after(fleet, &nodes)?;
    let view = request.view(fleet);
    let shown: Vec<&Node> = nodes.into_iter().skip(after).take(page.limit).collect();
    let only_one = request.parameter("instance_uuid").is_some();
    let next = shown.last().filter(|_| shown.len() == page.limit && !only_one);
    let next = next.map(|last| page.next(request, whole, chosen.as_deref(), &last.uuid));
    let show = |node: &&Node| match &chosen {
        _ if whole => view.whole(node),
        Some(fields) => view.some(node, fields),
        None => view.some(node, BRIEF),
    };
    let mut body = json!({"nodes": shown.iter().map(show).collect::<Vec<_>>()});
    if let Some(next) = next {
        body["next"] = Value::from(next);
    }
    Ok(Reply::ok(body))
}

/// Which part of a list is asked for.
pub(super) struct Page<'a> {
    pub(super) limit: usize,
    pub(super) marker: Option<&'a str>,
    sort_key: &'a str,
    descending: bool,
}

impl<'a> Page<'a> {
    pub(super) fn read(request: &'a Request<'_>) -> Result<Self, Refusal> {
        let limit = request.number::<i64>("limit")?;
        if limit.is_some_and(|limit| limit < 1) {
            return Err(Refusal::invalid("Limit must be positive"));
        }
        let marker = request.parameter("marker");
        if let Some(marker) = marker.filter(|marker| Uuid::try_parse(marker).is_err()) {
            return Err(Refusal::invalid(format!("Expected UUID for marker: {marker}")));
        }
        let descending = match request.parameter("sort_dir") {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => {
                return Err(Refusal::invalid(format!(
                    "Invalid sort direction: {other}. Acceptable values are 'asc' or 'desc'"
                )));
            }
        };
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_LIMIT).min(PAGE_LIMIT);
        Ok(Self { limit, marker, sort_key: request.parameter("sort_key").unwrap_or("id"), descending })
    }

    fn sort(&self, request: &Request<'_>, fleet: &Fleet, nodes: &mut [&Node]) -> Result<(), Refusal> {
        if self.sort_key != "id" {
            if first_version(self.sort_key).is_none() {
                return Err(Refusal::invalid(format!(
                    "The sort_key value \"{}\" is an invalid field for sorting",
                    self.sort_key
                )));
            }
            let view = request.view(fleet);
            nodes.sort_by_cached_key(|node| (view.field(node, self.sort_key).to_string(), node.id));
        }
        if self.descending {
            nodes.reverse();
        }
        Ok(())
    }

    fn after(&self, fleet: &Fleet, nodes: &[&Node]) -> Result<usize, Refusal> {
        let Some(marker) = self.marker else { return Ok(0) };
        let marked = fleet.by_uuid(marker).ok_or_else(|| Refusal::NodeNotFound(marker.to_owned()))?;
        let at = nodes.iter().position(|node| node.id == marked);
        if let Some(at) = at {
            return Ok(at + 1);
        }
        // The marked node has left the filter meanwhile; what comes after it in time comes after it here.
        Ok(nodes.iter().take_while(|node| (node.id < marked) != self.descending).count())
    }

    /// Where the next page is. Ironic's link keeps few of the filters: who follows it sees nodes that were filtered out.
    pub(super) fn next(
        &self,
        request: &Request<'_>,
        whole: bool,
        fields: Option<&[String]>,
        last: &str,
    ) -> String {
        const KEPT: &[&str] = &["associated", "maintenance", "retired", "detail"];
        let direction = if self.descending { "desc" } else { "asc" };
        let mut parts = vec![format!("sort_key={}", self.sort_key), format!("sort_dir={direction}")];
        let set = |name: &&&str| matches!(request.flag(name), Ok(Some(true)));
        parts.extend(KEPT.iter().filter(set).map(|name| format!("{name}=True")));
        match fields {
            Some(fields) => parts.push(format!("fields={}", fields.join(","))),
            None if whole => {}
            None => parts.push(format!("fields={}", BRIEF.join(","))),
        }
        parts.extend([format!("limit={}", self.limit), format!("marker={last}")]);
        format!("{}/{}?{}", request.base, request.path.join("/"), parts.join("&"))
    }
}

// Writing

fn create(fleet: &mut Fleet, request: &Request<'_>) -> Answer {
    let mut given = fields::new_node(request, request.json()?)?;
    let text =
        |given: &Map<String, Value>, key: &str| given.get(key).and_then(Value::as_str).map(str::to_owned);
    let name = text(&given, "name");
    if let Some(name) = &name {
        fields::name(name, || format!("Cannot create node with invalid name '{name}'"))?;
    }
    let uuid = text(&given, "uuid").unwrap_or_else(|| Uuid::new_v4().to_string());
    given.shift_remove("uuid");
    given.shift_remove("console_enabled");
    fields::driver(&mut given)?;
    if fleet.by_uuid(&uuid).is_some() {
        return Err(Refusal::NodeUuidTaken(uuid));
    }
    if let Some(name) = name.filter(|name| fleet.by_name(name).is_some()) {
        return Err(Refusal::NodeNameTaken(name));
    }
    if let Some(instance) =
        text(&given, "instance_uuid").filter(|instance| fleet.by_instance(instance).is_some())
    {
        return Err(Refusal::InstanceTaken { instance, node: uuid });
    }
    let id = fleet.add(uuid.clone(), given);
    if request.version.0 < 11 {
        // Before there was `enroll`, nodes were made available.
        fleet.move_to(id, ProvisionState::Available);
    }
    let shown = request.view(fleet).whole(node(fleet, id)?);
    Ok(Reply::new(StatusCode::CREATED, Some(shown)).at(format!("{}/v1/nodes/{uuid}", request.base)))
}

/// What `PATCH` takes.
fn is_patchable(field: &str) -> bool {
    crate::ironic::node::blank(field).is_some() && !matches!(field, "boot_mode" | "secure_boot")
}

fn update(fleet: &mut Fleet, request: &Request<'_>, ident: &str) -> Answer {
    let body = request.json()?;
    let changes = patch::parse(&body)?;
    for change in &changes {
        let field = change.field();
        if !is_patchable(field) {
            // Two that came later stand last, as in Ironic's own list.
            let late = ["parent_node", "firmware_interface"];
            let mut known: Vec<_> = crate::ironic::node::settable()
                .filter(|field| is_patchable(field) && !late.contains(field))
                .collect();
            known.sort_unstable();
            known.extend(late);
            return Err(Refusal::invalid(format!(
                "Cannot patch /{field}. Only the following can be updated: {}",
                known.join(", ")
            )));
        }
        fields::in_version(request, field)?;
    }
    let id = request.find(fleet, ident)?;
    let present = node(fleet, id)?;
    let leaves_instance = matches!(changes.as_slice(), [change] if change.removes("instance_uuid"));
    if !(present.flag("maintenance") && leaves_instance) {
        may_be_updated(request, present, ident)?;
    }
    if changes.iter().any(|change| change.removes("driver")) {
        return Err(Refusal::invalid("Schema error for patch: 'driver' is a required property"));
    }
    let blank = |field: &str| crate::ironic::node::blank(field).unwrap_or_default();
    let mut record = patch::apply(&present.record, &changes, blank)?;
    for change in &changes {
        let field = change.field();
        let value = record.get(field).cloned().unwrap_or_default();
        record.insert(field.to_owned(), fields::conform("patch", field, value)?);
    }
    fields::driver(&mut record)?;
    no_conflict(fleet, present, &record, ident)?;
    let was_in_maintenance = present.flag("maintenance");
    lock(fleet, id)?;
    fleet.replace_record(id, record);
    if let Some(node) = fleet.node_mut(id)
        && was_in_maintenance
        && !node.flag("maintenance")
    {
        node.set_maintenance(false, None);
    }
    Ok(Reply::ok(request.view(fleet).whole(node(fleet, id)?)))
}

fn may_be_updated(request: &Request<'_>, node: &Node, ident: &str) -> Result<(), Refusal> {
    if node.target.is_some() && !node.state.may_be_updated() {
        return Err(Refusal::InTransition(ident.to_owned()));
    }
    if node.state == ProvisionState::Inspecting && request.version.0 >= 39 {
        return Err(Refusal::NotUpdatable { node: node.uuid.clone(), state: node.state });
    }
    Ok(())
}

/// Names and instances are unique, an instance is not written over, and interfaces of a node in use stay.
fn no_conflict(
    fleet: &Fleet,
    present: &Node,
    record: &Map<String, Value>,
    ident: &str,
) -> Result<(), Refusal> {
    let new = |field: &str| record.get(field).and_then(Value::as_str);
    let changed = |field: &str| new(field).filter(|value| present.text(field) != Some(value));
    if let Some(name) = changed("name") {
        fields::name(name, || format!("Node {ident}: Cannot change name to invalid name '{name}'"))?;
        if fleet.by_name(name).is_some() {
            return Err(Refusal::NodeNameTaken(name.to_owned()));
        }
    }
    if let Some(instance) = changed("instance_uuid") {
        let node = present.uuid.clone();
        if let Some(associated) = present.text("instance_uuid") {
            return Err(Refusal::NodeAssociated { node, instance: associated.to_owned() });
        }
        if fleet.by_instance(instance).is_some() {
            return Err(Refusal::InstanceTaken { instance: instance.to_owned(), node });
        }
    }
    let fixed = !present.state.may_change_interfaces() && !present.flag("maintenance");
    match record.keys().find(|field| field.ends_with("_interface") && changed(field).is_some()) {
        Some(field) if fixed => Err(Refusal::InterfaceFixed {
            node: present.uuid.clone(),
            field: field.clone(),
            state: present.state,
        }),
        _ => Ok(()),
    }
}

fn delete(fleet: &mut Fleet, request: &Request<'_>, ident: &str) -> Answer {
    request.only(&[])?;
    let id = request.find(fleet, ident)?;
    lock(fleet, id)?;
    let node = node(fleet, id)?;
    let uuid = node.uuid.clone();
    if node.flag("protected") {
        return Err(Refusal::Protected(uuid));
    }
    if !node.flag("maintenance") {
        if let Some(instance) = node.text("instance_uuid") {
            return Err(Refusal::NodeAssociated { node: uuid, instance: instance.to_owned() });
        }
        if !node.state.may_be_deleted() {
            return Err(Refusal::NotDeletable { node: uuid, state: node.state });
        }
    }
    fleet.remove(id);
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

// Under a node

pub(super) fn states(fleet: &Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::GET])?;
    request.only(&[])?;
    Ok(Reply::ok(request.view(fleet).states(node(fleet, id)?)))
}

pub(super) fn maintenance(fleet: &mut Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::PUT, Method::DELETE])?;
    let on = *request.method == Method::PUT;
    let arguments = request.arguments(if on { &["reason"] } else { &[] })?;
    let reason = text_argument(&arguments, "reason")?;
    lock(fleet, id)?;
    if let Some(node) = fleet.node_mut(id) {
        node.set_maintenance(on, reason);
    }
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

pub(super) fn validate(fleet: &Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::GET])?;
    let node = node(fleet, id)?;
    let choices = hardware_type(node.text("driver").unwrap_or_default()).map(|driver| driver.choices);
    let result = |kind: &str| {
        let reason = match kind {
            "deploy" => provision::missing_to_deploy(node),
            "power" => missing_power_info(node),
            _ => None,
        };
        if node.interface(kind).starts_with("no-") {
            let driver = node.text("driver").unwrap_or_default();
            let reason = format!("Driver {driver} does not support {kind} (disabled or not implemented).");
            return json!({"result": null, "reason": reason});
        }
        reason.map_or_else(|| json!({"result": true}), |reason| json!({"result": false, "reason": reason}))
    };
    let kinds = choices.unwrap_or_default().iter().map(|choice| choice.kind).filter(|kind| *kind != "vendor");
    Ok(Reply::ok(kinds.map(|kind| (kind.to_owned(), result(kind))).collect::<Map<_, _>>().into()))
}

pub(super) fn inventory(fleet: &Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::GET])?;
    node(fleet, id)?.inventory.clone().map(Reply::ok).ok_or(Refusal::InventoryNotFound(id))
}

pub(super) fn boot_device(fleet: &mut Fleet, request: &Request<'_>, id: u64, rest: &[&str]) -> Answer {
    const FAKE: &[&str] = &["pxe"];
    const ALL: &[&str] = &["pxe", "disk", "cdrom", "bios", "uefihttp", "safe"];
    let node = node(fleet, id)?;
    let supported = if node.is_fake("management") { FAKE } else { ALL };
    if rest == ["supported"] {
        request.allow(&[Method::GET])?;
        return Ok(Reply::ok(json!({"supported_boot_devices": supported})));
    }
    request.allow(&[Method::GET, Method::PUT])?;
    if *request.method == Method::GET {
        let (device, persistent) = &node.boot_device;
        return Ok(Reply::ok(json!({"boot_device": device, "persistent": persistent})));
    }
    let arguments = request.arguments(&["boot_device", "persistent"])?;
    let device = text_argument(&arguments, "boot_device")?
        .ok_or_else(|| Refusal::invalid("Missing mandatory parameter: boot_device"))?;
    if !supported.contains(&device.as_str()) {
        return Err(Refusal::invalid(format!("Invalid boot device {device} specified.")));
    }
    lock(fleet, id)?;
    let persistent = arguments.get("persistent").and_then(Value::as_bool).unwrap_or(false);
    if let Some(node) = fleet.node_mut(id) {
        node.boot_device = (device, persistent);
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) fn virtual_media(fleet: &mut Fleet, request: &Request<'_>, id: u64) -> Answer {
    request.allow(&[Method::GET, Method::POST, Method::DELETE])?;
    let driver = node(fleet, id)?.text("driver").unwrap_or_default();
    let image = match *request.method {
        Method::GET => {
            return Err(Refusal::invalid(format!(
                "Driver {driver} does not support get_virtual_media (disabled or not implemented)."
            )));
        }
        Method::POST => {
            let arguments = request.arguments(&["device_type", "image_url", "image_download_source"])?;
            for mandatory in ["device_type", "image_url"] {
                if text_argument(&arguments, mandatory)?.is_none() {
                    return Err(Refusal::invalid(format!("Missing mandatory parameter: {mandatory}")));
                }
            }
            text_argument(&arguments, "image_url")?
        }
        _ => None,
    };
    lock(fleet, id)?;
    if let Some(node) = fleet.node_mut(id) {
        node.attached_image = image;
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) fn traits(
    fleet: &mut Fleet,
    request: &Request<'_>,
    id: u64,
    ident: &str,
    rest: &[&str],
) -> Answer {
    request.since(37)?;
    request.allow(&[Method::GET, Method::PUT, Method::DELETE])?;
    let given = match (request.method, rest) {
        (&Method::GET, []) => {
            let traits: Vec<_> = node(fleet, id)?.traits.iter().cloned().collect();
            return Ok(Reply::ok(json!({"traits": traits})));
        }
        (&Method::GET, _) => return Err(Refusal::MethodNotAllowed { allow: "DELETE, GET, PUT" }),
        (&Method::PUT, []) => replaced_traits(request)?,
        (&Method::PUT, [name]) => {
            check_trait("trait", name)?;
            let present = node(fleet, id)?.traits.iter().cloned();
            present.chain([(*name).to_owned()]).collect()
        }
        (&Method::DELETE, []) => Vec::new(),
        (&Method::DELETE, [name]) => {
            let node = node(fleet, id)?;
            if !node.traits.contains(*name) {
                return Err(Refusal::TraitNotFound { node: node.uuid.clone(), name: (*name).to_owned() });
            }
            node.traits.iter().filter(|other| other != name).cloned().collect()
        }
        _ => return Err(Refusal::NoSuchPath),
    };
    lock(fleet, id)?;
    if let Some(node) = fleet.node_mut(id) {
        node.traits = given.into_iter().collect();
    }
    let reply = Reply::empty(StatusCode::NO_CONTENT);
    match (request.method, rest) {
        (&Method::PUT, [name]) => Ok(reply.at(format!("{}/v1/nodes/{ident}/traits/{name}", request.base))),
        _ => Ok(reply),
    }
}

fn replaced_traits(request: &Request<'_>) -> Result<Vec<String>, Refusal> {
    let arguments = request.arguments(&["traits"])?;
    let Some(traits) = arguments.get("traits").and_then(Value::as_array) else {
        return Err(Refusal::invalid(
            "A single node trait may be added via PUT /v1/nodes/<node identifier>/traits/<trait> with no body, or all node \
             traits may be replaced via PUT /v1/nodes/<node identifier>/traits with the list of traits specified in the \
             request body.",
        ));
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    traits.iter().map(text).map(|name| check_trait("body", &name).map(|()| name)).collect()
}

/// A trait of one's own, or one of the standard ones, which are told by their first word.
fn check_trait(subject: &str, name: &str) -> Result<(), Refusal> {
    const STANDARD: &[&str] = &["COMPUTE_", "HW_", "MISC_", "OWNER_", "STORAGE_"];
    let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let custom = name.strip_prefix("CUSTOM_").is_some_and(|rest| !rest.is_empty());
    if name.chars().all(word) && (custom || STANDARD.iter().any(|prefix| name.starts_with(prefix))) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "Schema error for {subject}: '{name}' is not valid under any of the given schemas. \
         Possible root cause: '{name}' does not match '^CUSTOM_[A-Z0-9_]+$'"
    )))
}
