//! Which machines' devices may go to a cluster.

use super::cluster::failed;
use crate::error::coded;
use crate::world::World;
use domain::base_cluster::GpuDriver;
use domain::{MachineState, Name, Problem};
use dra::PublishedMachine;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// The system UUID that each Node says.
pub(super) async fn system_uuids(client: &Client) -> Result<BTreeMap<String, String>, Problem> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| failed("list", "Node", "", &error))?;
    let uuid = |node: Node| Some((node.metadata.name?, node.status?.node_info?.system_uuid));
    Ok(nodes.items.into_iter().filter_map(uuid).collect())
}

/// Whether the devices of a machine may go to the cluster: its Node is the machine, it serves, and somebody there can prepare them.
pub(super) fn may_have_slices(
    machine: &PublishedMachine,
    world: &World,
    nodes: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    node_of(&machine.name, world, nodes)?;
    serving(&machine.name, machine.gpu_driver, world)?;
    match machine.gpu_driver {
        GpuDriver::Bailiwick => plugin_of(&machine.name, world),
        GpuDriver::Nvidia => Ok(()),
    }
}

/// Whether the machine has a Node of its name which says the UUID that its BMC says.
pub(super) fn node_of(
    machine: &Name,
    world: &World,
    nodes: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    let known = world.machines.get(machine).and_then(|known| known.record.uuid.as_ref());
    let at = format!("Machine/{machine}");
    match (nodes.get(machine.as_str()), known) {
        (Some(claimed), Some(known)) if known.eq_ignore_ascii_case(claimed) => Ok(()),
        (Some(claimed), known) => {
            let message = format!(
                "Node/{machine} is another machine than Machine/{machine}: their system UUIDs differ"
            );
            let expected = known.map_or("nothing, since the BMC tells no UUID", String::as_str);
            Err(coded("publish.node-mismatch", message).difference(claimed, expected).at(at))
        }
        (None, _) => Err(coded("publish.node-missing", format!("there is no Node/{machine} yet")).at(at)),
    }
}

/// Whether a machine is where its GPUs may be given out. NVIDIA's driver asks no permit of us, so the class alone keeps its GPUs back
/// until the machine is in service; our own agent has none until then.
fn serving(machine: &Name, driver: GpuDriver, world: &World) -> Result<(), Problem> {
    let state = world.machines.get(machine).map(|known| known.record.state);
    let serves = state.is_some_and(|state| match (driver, state) {
        (_, MachineState::InService) => true,
        (GpuDriver::Nvidia, _) => false,
        (GpuDriver::Bailiwick, state) => !matches!(
            state,
            MachineState::Draining | MachineState::Wiping | MachineState::Retired | MachineState::Quarantined
        ),
    });
    if serves {
        return Ok(());
    }
    let message = format!("Machine/{machine} is not in service");
    Err(coded("publish.not-in-service", message).at(format!("Machine/{machine}")))
}

/// Whether the plugin of the machine's agent is registered with its kubelet: nobody could prepare devices of slices without, and
/// the kubelet deletes those of a plugin that is gone.
fn plugin_of(machine: &Name, world: &World) -> Result<(), Problem> {
    let at = format!("Machine/{machine}");
    let agent = world.machines.get(machine).and_then(|known| known.agent.as_ref());
    let missing = |code, why: &str| Err(coded(code, format!("Machine/{machine} {why}")).at(&at));
    match agent {
        None => missing("publish.agent-missing", "has no agent yet"),
        Some(agent) if !agent.alive => missing("publish.agent-silent", "has an agent that does not report"),
        Some(agent) if agent.registered.is_none() => {
            missing("publish.plugin-missing", "has an agent that the kubelet has not registered")
        }
        Some(_) => Ok(()),
    }
}
