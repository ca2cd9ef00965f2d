//! The cluster sink: server-side apply as field manager `bailiwick`, prune by label.
//!
//! The admission policies go first; then a dry run with a kubelet's identity proves that they hold, each time anew, and while
//! it does not nothing else is written (DESIGN §3.2).

use super::refusals::Refusals;
use super::{Written, claims};
use crate::error::coded;
use crate::world::World;
use domain::base_cluster::GpuDriver;
use domain::{MachineState, Name, Problem};
use dra::{DryRun, Input, Object, Proof, Step, TaintRuleVersion};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Node;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A policy is active within a second of its creation (facts: dra, measured); it is given ten.
const PROOF_TRIES: u32 = 20;
const PROOF_PAUSE: Duration = Duration::from_millis(500);

/// One Kubernetes cluster.
pub(super) struct Cluster {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    cell: Name,
    clients: Option<Clients>,
    /// What the server made of what was applied, by kind and name: digest of what was sent, resourceVersion that came back.
    applied: BTreeMap<(String, String), (domain::Digest, Option<String>)>,
    refusals: Refusals,
}

/// What became of an object that was to be applied.
#[derive(Clone, Copy, PartialEq)]
enum Applied {
    /// It is there.
    Stands,
    /// Somebody else's has its name; that is told.
    Foreign,
    /// The cluster does not take it; that is told.
    Refused,
}

#[derive(Clone)]
struct Clients {
    own: Client,
    kubelet: Client,
}

/// A kind we write.
struct Ours {
    api: Api<DynamicObject>,
    there: BTreeMap<String, DynamicObject>,
}

impl Cluster {
    pub(super) fn new(kubeconfig: Option<PathBuf>, context: Option<String>, cell: Name) -> Self {
        Self {
            kubeconfig,
            context,
            cell,
            clients: None,
            applied: BTreeMap::new(),
            refusals: Refusals::default(),
        }
    }

    pub(super) fn name(&self) -> String {
        let file = self
            .kubeconfig
            .as_ref()
            .map_or("in-cluster or default kubeconfig".to_owned(), |path| path.display().to_string());
        self.context.as_ref().map_or(file.clone(), |context| format!("{file}#{context}"))
    }

    /// Brings the cluster in line.
    pub(super) async fn write(&mut self, input: &Input, world: &World) -> Result<Written, Problem> {
        let clients = self.clients().await?;
        let mut input = input.clone();
        input.server.taint_rules = taint_rules(&clients.own).await?;
        let mut left_out = Vec::new();
        if input.machines.iter().any(|machine| !machine.partitions.is_empty()) {
            input.server.counters = keeps_counters(&clients.own, &input, &mut left_out).await?;
        }
        who_we_are(&clients.own, &input.cell_user).await?;
        let nodes = system_uuids(&clients.own).await?;
        let mut verified = BTreeSet::new();
        for machine in &input.machines {
            let node = node_of(&machine.name, world, &nodes)
                .and_then(|()| serving(&machine.name, machine.gpu_driver, world))
                .and_then(|()| match machine.gpu_driver {
                    GpuDriver::Bailiwick => plugin_of(&machine.name, world),
                    GpuDriver::Nvidia => Ok(()),
                });
            match node {
                Ok(()) => drop(verified.insert(machine.name.clone())),
                Err(_) if machine.gpus.is_empty() => {}
                Err(problem) => left_out.push(problem),
            }
        }
        input.verified = Some(verified);
        let output = dra::publish(&input);
        left_out.extend(output.diagnostics.clone());
        let mut written = Written { left_out, ..Written::default() };
        let (policies, classes): (Vec<_>, Vec<_>) =
            output.declared.iter().partition(|o| o.api_version.starts_with("admissionregistration"));
        let unguarded = self.bring_in_line(&clients.own, &policies, &mut written).await?;
        if unguarded.iter().any(|(_, applied)| *applied == Applied::Refused) {
            // Under another policy than ours nothing is written: the proof looks at one of them alone.
            let why = written.left_out.into_iter().rev().find(|problem| problem.code == "publish.refused");
            return Err(why.unwrap_or_else(|| coded("publish.refused", "the cluster does not take a policy")));
        }
        prove(&clients.kubelet, &input).await?;
        self.bring_in_line(&clients.own, &classes, &mut written).await?;
        let (slices, rules): (Vec<_>, Vec<_>) =
            output.observed.iter().partition(|object| object.kind == "ResourceSlice");
        // The devices of a machine whose taint the cluster does not take are not offered.
        let untainted = self.bring_in_line(&clients.own, &rules, &mut written).await?;
        let tainted = |slice: &&Object| untainted.iter().all(|(rule, _)| rule.machine != slice.machine);
        let slices: Vec<_> = slices.into_iter().filter(tainted).collect();
        self.write_slices(&clients.own, &slices, &mut written).await?;
        let mut kinds = vec![
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
            ("resource.k8s.io/v1", "DeviceClass"),
        ];
        let rule_version =
            input.server.taint_rules.map(|version| format!("resource.k8s.io/{}", version.as_str()));
        if let Some(version) = &rule_version {
            kinds.push((version, "DeviceTaintRule"));
        }
        let wanted: BTreeSet<_> = output
            .declared
            .iter()
            .chain(&output.observed)
            .map(|o| (o.kind.as_str(), o.name.as_str()))
            .collect();
        for (version, kind) in kinds {
            self.prune(&clients.own, version, kind, &wanted, &mut written).await?;
        }
        self.refusals.retain(&wanted);
        written.again = self.refusals.next(Instant::now());
        match claims::read(&clients.own).await {
            Ok(allocations) => written.allocations = allocations,
            Err(problem) => written.left_out.push(problem),
        }
        Ok(written)
    }

    async fn clients(&mut self) -> Result<Clients, Problem> {
        if let Some(clients) = &self.clients {
            return Ok(clients.clone());
        }
        let refuse =
            |error: String| coded("publish.cluster", format!("cannot reach {}: {error}", self.name()));
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| refuse(error.to_string()))?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|error| refuse(error.to_string()))?
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| refuse(error.to_string()))?
            }
            None => Config::infer().await.map_err(|error| refuse(error.to_string()))?,
        };
        let mut kubelet = config.clone();
        kubelet.auth_info.impersonate = Some(dra::PROOF_USER.to_owned());
        kubelet.auth_info.impersonate_groups = Some(vec![dra::PROOF_GROUP.to_owned()]);
        let client =
            |config| Client::try_from(config).map_err(|error: kube::Error| refuse(error.to_string()));
        let clients = Clients { own: client(config)?, kubelet: client(kubelet)? };
        self.clients = Some(clients.clone());
        Ok(clients)
    }

    async fn ours(&self, client: &Client, api_version: &str, kind: &str) -> Result<Ours, Problem> {
        let selector = ListParams::default().labels(&format!("{}={}", dra::LABEL_OWNER, self.cell));
        list(api(client, api_version, kind), &selector, kind).await
    }

    /// Applies these objects, and gives those that were left out.
    async fn bring_in_line<'o>(
        &mut self,
        client: &Client,
        objects: &[&'o Object],
        written: &mut Written,
    ) -> Result<Vec<(&'o Object, Applied)>, Problem> {
        let mut kinds: BTreeMap<(&str, &str), Ours> = BTreeMap::new();
        for object in objects {
            let key = (object.api_version.as_str(), object.kind.as_str());
            if let std::collections::btree_map::Entry::Vacant(place) = kinds.entry(key) {
                place.insert(self.ours(client, key.0, key.1).await?);
            }
        }
        let mut left_out = Vec::new();
        for object in objects {
            let ours = &kinds[&(object.api_version.as_str(), object.kind.as_str())];
            let applied = self.apply(ours, object, written).await?;
            if applied != Applied::Stands {
                left_out.push((*object, applied));
            }
        }
        Ok(left_out)
    }

    /// Applies one object unless it is as we left it. An object of its name that is not ours is left alone.
    async fn apply(
        &mut self,
        ours: &Ours,
        object: &Object,
        written: &mut Written,
    ) -> Result<Applied, Problem> {
        let key = (object.kind.clone(), object.name.clone());
        let sent = domain::Digest::of(object.text().as_bytes());
        let there = ours.there.get(&object.name);
        if let (Some(there), Some((digest, version))) = (there, self.applied.get(&key))
            && *digest == sent
            && there.metadata.resource_version == *version
        {
            written.objects += 1;
            return Ok(Applied::Stands);
        }
        if let Some(problem) = self.refusals.standing(&key, sent, Instant::now()) {
            written.left_out.push(problem);
            return Ok(Applied::Refused);
        }
        if there.is_none()
            && ours
                .api
                .get_opt(&object.name)
                .await
                .map_err(|e| failed("read", &object.kind, &object.name, &e))?
                .is_some()
        {
            let place = format!("{}/{}", object.kind, object.name);
            written.left_out.push(
                coded("publish.foreign-object", format!("{place} in the cluster is not this cell's"))
                    .at(place),
            );
            return Ok(Applied::Foreign);
        }
        let params = PatchParams::apply(dra::MANAGER).force();
        let json = object.json();
        let answer = ours.api.patch(&object.name, &params, &Patch::Apply(&json)).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let mut problem = refused("apply", &object.kind, &object.name, &error)?;
                if let Some(machine) = &object.machine {
                    problem = problem.at(format!("Machine/{machine} {}/{}", object.kind, object.name));
                }
                written.left_out.push(problem.clone());
                self.refusals.refused(key, sent, problem, Instant::now());
                if there.is_some_and(|there| is_untrue(there, &json)) {
                    delete(&ours.api, &object.kind, &object.name, written).await?;
                }
                return Ok(Applied::Refused);
            }
        };
        self.refusals.taken(&key);
        let version = answer.metadata.resource_version.clone();
        if there.is_none_or(|there| there.metadata.resource_version != version) {
            written.written += 1;
        }
        written.objects += 1;
        let dropped = dropped_fields(&json, &serde_json::to_value(&answer).unwrap_or_default());
        if !dropped.is_empty() {
            let place = format!("{}/{}", object.kind, object.name);
            let problem =
                coded("publish.fields-dropped", format!("the API server dropped fields of {place}"));
            written
                .left_out
                .push(problem.difference(format!("without {}", dropped.join(", ")), "all fields").at(place));
        }
        self.applied.insert(key, (sent, version));
        Ok(Applied::Stands)
    }

    async fn write_slices(
        &mut self,
        client: &Client,
        slices: &[&Object],
        written: &mut Written,
    ) -> Result<(), Problem> {
        // Every slice of our driver, whoever wrote it: what was forged before the policy held goes too.
        let selector = ListParams::default().fields(&format!("spec.driver={}", dra::DRIVER));
        let ours =
            list(api(client, "resource.k8s.io/v1", "ResourceSlice"), &selector, "ResourceSlice").await?;
        let existing: Vec<Value> =
            ours.there.values().filter_map(|object| serde_json::to_value(object).ok()).collect();
        let mut touched = BTreeSet::new();
        for step in dra::reconcile(&existing, slices.iter().copied()) {
            match step {
                Step::Apply(object) => {
                    self.apply(&ours, &object, written).await?;
                    touched.insert(object.name);
                }
                Step::Delete { name } => delete(&ours.api, "ResourceSlice", &name, written).await?,
            }
        }
        written.objects += slices.iter().filter(|object| !touched.contains(&object.name)).count();
        Ok(())
    }

    async fn prune(
        &mut self,
        client: &Client,
        api_version: &str,
        kind: &str,
        wanted: &BTreeSet<(&str, &str)>,
        written: &mut Written,
    ) -> Result<(), Problem> {
        let ours = self.ours(client, api_version, kind).await?;
        for name in ours.there.keys().filter(|name| !wanted.contains(&(kind, name.as_str()))) {
            delete(&ours.api, kind, name, written).await?;
            self.applied.remove(&(kind.to_owned(), name.clone()));
        }
        Ok(())
    }
}

async fn list(api: Api<DynamicObject>, selector: &ListParams, kind: &str) -> Result<Ours, Problem> {
    let list = api.list(selector).await.map_err(|error| failed("list", kind, "", &error))?;
    let there =
        list.items.into_iter().filter_map(|object| Some((object.metadata.name.clone()?, object))).collect();
    Ok(Ours { api, there })
}

fn api(client: &Client, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Api::all_with(client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

/// Deletes an object; what the cluster keeps all the same is told.
async fn delete(
    api: &Api<DynamicObject>,
    kind: &str,
    name: &str,
    written: &mut Written,
) -> Result<(), Problem> {
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => written.pruned += 1,
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => written.left_out.push(refused("delete", kind, name, &error)?),
    }
    Ok(())
}

/// Whether what stands in the place of an object that was refused opens a gate that may have closed: a class that selects otherwise,
/// a slice that tells otherwise. Without the slice its pool is not whole, and nothing of it is given out. Policies and taint rules close
/// gates, and stay as they are.
fn is_untrue(there: &DynamicObject, wanted: &Value) -> bool {
    matches!(wanted["kind"].as_str(), Some("DeviceClass" | "ResourceSlice"))
        && there.data.get("spec") != wanted.get("spec")
}

/// In which version DeviceTaintRule is served, if it is: it moves from release to release (facts: dra §4).
async fn taint_rules(client: &Client) -> Result<Option<TaintRuleVersion>, Problem> {
    let groups = client
        .list_api_groups()
        .await
        .map_err(|error| failed("discover", "APIGroup", "resource.k8s.io", &error))?;
    let versions = groups
        .groups
        .into_iter()
        .find(|group| group.name == "resource.k8s.io")
        .map(|group| group.versions)
        .unwrap_or_default();
    let mut serving = Vec::new();
    for version in versions {
        let list = client.list_api_group_resources(&version.group_version).await;
        let list =
            list.map_err(|error| failed("discover", "APIResourceList", &version.group_version, &error))?;
        if list.resources.iter().any(|resource| resource.name == "devicetaintrules") {
            serving.push(version.version);
        }
    }
    Ok(TaintRuleVersion::newest(serving.iter().map(String::as_str)))
}

/// Whether the server keeps counters: found by reading back what a dry run makes of some.
async fn keeps_counters(
    client: &Client,
    input: &Input,
    left_out: &mut Vec<Problem>,
) -> Result<bool, Problem> {
    let slice = dra::counters_slice(input);
    let object: DynamicObject =
        serde_json::from_str(slice.text()).map_err(|error| coded("api.internal", error.to_string()))?;
    let params = PostParams { dry_run: true, field_manager: None };
    match api(client, &slice.api_version, &slice.kind).create(&params, &object).await {
        Ok(kept) => Ok(kept.data.pointer("/spec/sharedCounters").is_some_and(Value::is_array)),
        // What is left of it without the counters may be no valid slice.
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(false),
        // What cannot be learned keeps partitions back, and nothing else.
        Err(error) => {
            left_out.push(refused("dry-run", &slice.kind, &slice.name, &error)?);
            Ok(false)
        }
    }
}

/// The policies let one user write: that must be the one we are, or nobody of ours could ever write again.
async fn who_we_are(client: &Client, expected: &str) -> Result<(), Problem> {
    let review = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|error| failed("ask who we are by", "SelfSubjectReview", "", &error))?;
    let user =
        review.status.and_then(|status| status.user_info).and_then(|info| info.username).unwrap_or_default();
    if user == expected {
        return Ok(());
    }
    let message = "the cluster knows the cell by another name than `cluster-user`";
    Err(coded("publish.cluster-user", message).difference(user, expected))
}

/// The system UUID that each Node says.
async fn system_uuids(client: &Client) -> Result<BTreeMap<String, String>, Problem> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| failed("list", "Node", "", &error))?;
    let uuid = |node: Node| Some((node.metadata.name?, node.status?.node_info?.system_uuid));
    Ok(nodes.items.into_iter().filter_map(uuid).collect())
}

/// Whether the machine has a Node of its name which says the UUID that its BMC says.
fn node_of(machine: &Name, world: &World, nodes: &BTreeMap<String, String>) -> Result<(), Problem> {
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

/// Proves that a kubelet could not write our slices.
async fn prove(kubelet: &Client, input: &Input) -> Result<(), Problem> {
    let slice = dra::proof_slice(input);
    let api = api(kubelet, &slice.api_version, &slice.kind);
    let object: DynamicObject =
        serde_json::from_str(slice.text()).map_err(|error| coded("api.internal", error.to_string()))?;
    let params = PostParams { dry_run: true, field_manager: None };
    for _ in 0..PROOF_TRIES {
        let proof = match api.create(&params, &object).await {
            Ok(_) => dra::judge(DryRun::Accepted),
            Err(kube::Error::Api(status)) => {
                dra::judge(DryRun::Refused { code: status.code, message: &status.message })
            }
            Err(error) => return Err(failed("dry-run", "ResourceSlice", &slice.name, &error)),
        };
        match proof {
            Proof::Holds => return Ok(()),
            Proof::DoesNotHold => {}
            // Waiting does not help one who may not ask.
            Proof::NotProven { message } => {
                let problem = coded(
                    "publish.policy-unproven",
                    "the cell could not prove that the admission policy holds",
                );
                return Err(problem.difference(message, "a refusal by our policy"));
            }
        }
        tokio::time::sleep(PROOF_PAUSE).await;
    }
    let problem = coded("publish.policy-broken", "the admission policy does not hold");
    Err(problem.difference("a kubelet may write our slices", "a refusal by our policy"))
}

/// Paths of what was sent and did not come back.
fn dropped_fields(sent: &Value, back: &Value) -> Vec<String> {
    fn walk(sent: &Value, back: Option<&Value>, path: &str, dropped: &mut Vec<String>) {
        match (sent, back) {
            (Value::Null, _) => {}
            (Value::Object(map), _) if map.is_empty() => {}
            (Value::Array(items), _) if items.is_empty() => {}
            (_, None | Some(Value::Null)) => dropped.push(path.to_owned()),
            (Value::Object(sent), Some(Value::Object(back))) => {
                for (key, value) in sent {
                    walk(value, back.get(key), &format!("{path}.{key}"), dropped);
                }
            }
            (Value::Array(sent), Some(Value::Array(back))) => {
                for (at, value) in sent.iter().enumerate() {
                    walk(value, back.get(at), &format!("{path}[{at}]"), dropped);
                }
            }
            _ => {}
        }
    }
    let mut dropped = Vec::new();
    walk(sent, Some(back), "", &mut dropped);
    dropped
}

/// An error that is about one object is told of that object: the API server refuses it, or something that it asks does (an
/// admission webhook that fails is a 500). Any other is about the cluster, and an `Err`.
fn refused(verb: &str, kind: &str, name: &str, error: &kube::Error) -> Result<Problem, Problem> {
    match error {
        // Who are you, not now, and nobody is there.
        kube::Error::Api(status) if !matches!(status.code, 401 | 429 | 502..=504) => {
            let message = format!("cannot {verb} {kind}/{name}: {}", status.message);
            Ok(coded("publish.refused", message).at(format!("{kind}/{name}")))
        }
        _ => Err(failed(verb, kind, name, error)),
    }
}

fn failed(verb: &str, kind: &str, name: &str, error: &kube::Error) -> Problem {
    let message = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let object = if name.is_empty() { kind.to_owned() } else { format!("{kind}/{name}") };
    coded("publish.cluster", format!("cannot {verb} {object}: {message}")).at(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_refused_leaves_no_open_gate_behind() {
        let object = |kind: &str, spec: Value| json!({ "apiVersion": "v1", "kind": kind, "metadata": {}, "spec": spec });
        let there = |json: Value| serde_json::from_value::<DynamicObject>(json).unwrap();
        let untrue =
            |kind: &str, was: u8| is_untrue(&there(object(kind, json!(was))), &object(kind, json!(1)));
        assert!(untrue("DeviceClass", 2) && untrue("ResourceSlice", 2));
        assert!(!untrue("DeviceClass", 1), "it is as it should be");
        assert!(!untrue("ValidatingAdmissionPolicy", 2) && !untrue("DeviceTaintRule", 2));
    }

    #[test]
    fn a_field_that_does_not_come_back_is_named() {
        let sent =
            json!({ "spec": { "devices": [{ "name": "a", "taints": [{ "key": "k" }] }], "none": {} } });
        let back = json!({ "spec": { "devices": [{ "name": "a" }], "more": 1 } });
        assert_eq!(dropped_fields(&sent, &back), [".spec.devices[0].taints"]);
        assert!(dropped_fields(&sent, &sent).is_empty());
    }
}
