//! Provision verbs.

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{Answer, Refusal, Reply, Request, lock, node, text_argument};
use crate::ironic::fleet::Fleet;
use crate::ironic::hook::ConfigDrive;
use crate::ironic::job::Step;
use crate::ironic::node::Node;
use crate::ironic::states::{Operation, ProvisionState, Verb};

const ARGUMENTS: &[&str] = &[
    "target",
    "configdrive",
    "clean_steps",
    "deploy_steps",
    "service_steps",
    "rescue_password",
    "disable_ramdisk",
    "runbook",
];

/// Steps that a request brings, by argument.
struct Steps {
    clean: Vec<Step>,
    deploy: Vec<Step>,
    service: Vec<Step>,
}

pub(super) fn put(fleet: &mut Fleet, request: &Request<'_>, id: u64, ident: &str) -> Answer {
    request.allow(&[Method::PUT])?;
    let arguments = request.arguments(ARGUMENTS)?;
    if !arguments.contains_key("target") {
        return Err(Refusal::invalid("Missing mandatory parameter: target"));
    }
    let target = text_argument(&arguments, "target")?.unwrap_or_else(|| "None".to_owned());
    let uuid = node(fleet, id)?.uuid.clone();
    let verb = Verb::from_target(&target);
    let outcome = carry_out(fleet, request, id, &target, &arguments);
    if let Some(verb) = verb {
        fleet.records.count(&uuid, verb, outcome.is_ok());
    }
    outcome?;
    let location = format!("{}/v1/nodes/{ident}/states", request.base);
    Ok(Reply::empty(StatusCode::ACCEPTED).at(location))
}

/// In the order in which Ironic's API and conductor check.
fn carry_out(
    fleet: &mut Fleet,
    request: &Request<'_>,
    id: u64,
    target: &str,
    arguments: &Map<String, Value>,
) -> Result<(), Refusal> {
    in_version(request, target)?;
    let present = node(fleet, id)?;
    let in_maintenance = |operation| Refusal::InMaintenance { operation, node: present.uuid.clone() };
    let verb = Verb::from_target(target);
    if matches!(verb, Some(Verb::Active | Verb::Rebuild)) && present.flag("maintenance") {
        return Err(in_maintenance("provisioning"));
    }
    let Some(verb) = verb.filter(|verb| present.state.accepts(*verb)) else {
        if let Some(host) = present.reservation(&fleet.settings.conductor) {
            let (node, host) = (present.uuid.clone(), host.to_owned());
            return Err(Refusal::NodeLocked { node, host });
        }
        let (action, node) = (target.to_owned(), present.uuid.clone());
        return Err(Refusal::InvalidState { action, node, state: present.state.to_string() });
    };
    let drive = config_drive(request, verb, arguments)?;
    let steps = steps(request, verb, arguments)?;
    abort_in_version(request, verb, present.state)?;
    if matches!(verb, Verb::Clean | Verb::Service) && present.flag("maintenance") {
        return Err(in_maintenance(if verb == Verb::Clean { "cleaning" } else { "service" }));
    }
    let barred = present.flag("maintenance") && !fleet.settings.provisioning_in_maintenance;
    if verb == Verb::Provide && barred {
        return Err(in_maintenance("providing"));
    }
    allowed_by_node(present, verb)?;
    lock(fleet, id)?;
    start(fleet, id, verb, steps, drive);
    Ok(())
}

fn start(fleet: &mut Fleet, id: u64, verb: Verb, steps: Steps, drive: Option<ConfigDrive>) {
    let Some(node) = fleet.node(id) else { return };
    let operation = match verb {
        Verb::Manage if node.state == ProvisionState::Enroll => Operation::Verify,
        Verb::Manage => return fleet.move_to(id, ProvisionState::Manageable),
        Verb::Abort => return fleet.abort(id),
        Verb::Unhold => return fleet.unhold(id),
        Verb::Provide => {
            let steps = fleet.automated_steps(node);
            return fleet.begin(id, Operation::Clean, steps, false);
        }
        Verb::Clean => return fleet.begin(id, Operation::Clean, steps.clean, true),
        Verb::Active | Verb::Rebuild => {
            if drive.is_some() {
                fleet.give_config_drive(id, drive);
            }
            return fleet.begin(id, Operation::Deploy, steps.deploy, false);
        }
        Verb::Service => return fleet.begin(id, Operation::Service, steps.service, true),
        Verb::Inspect => Operation::Inspect,
        Verb::Deleted => Operation::Undeploy,
        Verb::Adopt => Operation::Adopt,
        Verb::Rescue => Operation::Rescue,
        Verb::Unrescue => Operation::Unrescue,
    };
    fleet.begin(id, operation, Vec::new(), false);
}

/// The microversion that a verb came with.
fn in_version(request: &Request<'_>, target: &str) -> Result<(), Refusal> {
    request.since(match target {
        "manage" | "provide" => 4,
        "inspect" => 6,
        "abort" => 13,
        "clean" => 15,
        "adopt" => 17,
        "rescue" | "unrescue" => 38,
        "deploy" => 73,
        _ => 1,
    })
}

/// Aborting came to the states one after the other.
fn abort_in_version(request: &Request<'_>, verb: Verb, state: ProvisionState) -> Result<(), Refusal> {
    match state {
        _ if verb != Verb::Abort => Ok(()),
        ProvisionState::InspectWait => request.since(41),
        ProvisionState::WaitCallBack => request.since(110),
        _ => Ok(()),
    }
}

/// Whether the argument is there and says something, as Python tells truth.
fn says_something(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

fn config_drive(
    request: &Request<'_>,
    verb: Verb,
    arguments: &Map<String, Value>,
) -> Result<Option<ConfigDrive>, Refusal> {
    let Some(given) = arguments.get("configdrive").filter(|given| says_something(Some(given))) else {
        return Ok(None);
    };
    if !matches!(verb, Verb::Active | Verb::Rebuild) {
        return Err(Refusal::invalid(
            "Adding a config drive is only supported when setting provision state to active, rebuild",
        ));
    }
    if given.is_object() && request.version.0 < 56 {
        return Err(Refusal::invalid(
            "Providing a JSON object for configdrive is only supported starting with API version 1.56",
        ));
    }
    ConfigDrive::parse(given).map_err(Refusal::Invalid)
}

fn steps(request: &Request<'_>, verb: Verb, arguments: &Map<String, Value>) -> Result<Steps, Refusal> {
    let steps = Steps {
        clean: read_steps(arguments.get("clean_steps"))?,
        deploy: read_steps(arguments.get("deploy_steps"))?,
        service: read_steps(arguments.get("service_steps"))?,
    };
    let required = |name: &str| {
        Refusal::invalid(format!(
            "\"{name}_steps\" is required when setting target provision state to {name}"
        ))
    };
    if !steps.clean.is_empty() && verb != Verb::Clean {
        return Err(Refusal::invalid(
            "\"clean_steps\" is only valid when setting target provision state to clean",
        ));
    }
    if !steps.deploy.is_empty() {
        request.since(69)?;
        if !matches!(verb, Verb::Active | Verb::Rebuild) {
            return Err(Refusal::invalid(
                "\"deploy_steps\" is only valid when setting target provision state to active or rebuild",
            ));
        }
    }
    match verb {
        Verb::Clean if steps.clean.is_empty() => Err(required("clean")),
        Verb::Service if steps.service.is_empty() => Err(required("service")),
        Verb::Rescue if !says_something(arguments.get("rescue_password")) => Err(Refusal::invalid(
            "A non-empty \"rescue_password\" is required when setting target provision state to rescue",
        )),
        _ => Ok(steps),
    }
}

fn read_steps(given: Option<&Value>) -> Result<Vec<Step>, Refusal> {
    let items = given.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // Ironic's policy check reads the keys before anything has looked whether they are there.
    items.iter().map(|item| Step::read(item).map_err(|key| Refusal::Crash(format!("'{key}'")))).collect()
}

/// What the node's interfaces and flags say to a verb.
fn allowed_by_node(node: &Node, verb: Verb) -> Result<(), Refusal> {
    match verb {
        Verb::Inspect if node.interface("inspect") == "no-inspect" => Err(Refusal::Invalid(format!(
            "Driver {} does not support inspect (disabled or not implemented).",
            node.text("driver").unwrap_or_default()
        ))),
        Verb::Deleted | Verb::Rebuild if node.flag("protected") => Err(Refusal::Protected(node.uuid.clone())),
        Verb::Active | Verb::Rebuild => match missing_to_deploy(node) {
            Some(sentence) => Err(Refusal::Invalid(format!(
                "Failed to validate deploy or power info for node {}: {sentence}",
                node.uuid
            ))),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What the deploy interface misses, in Ironic's sentence.
pub(super) fn missing_to_deploy(node: &Node) -> Option<String> {
    let info = node.object("instance_info");
    let has = |key: &str| says_something(info.and_then(|info| info.get(key)));
    let uuid = &node.uuid;
    match node.interface("deploy") {
        "direct" if !has("image_source") => Some(format!(
            "Node {uuid} failed to validate deploy image info. Some parameters were missing. \
             Missing are: ['instance_info.image_source']"
        )),
        "ramdisk" if node.is_fake("boot") => Some(
            "Invalid configuration: The boot interface must have the `ramdisk_boot` capability. \
             You are using an incompatible boot interface."
                .to_owned(),
        ),
        "ramdisk" if !(has("boot_iso") || has("image_source") || (has("kernel") && has("ramdisk"))) => {
            Some(format!(
                "Cannot validate image information for node {uuid} because one or more parameters are missing from its \
                 instance_info and insufficient information is present to boot from a remote volume. \
                 Missing are: ['kernel', 'ramdisk']"
            ))
        }
        _ => None,
    }
}
