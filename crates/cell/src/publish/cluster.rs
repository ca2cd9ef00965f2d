//! The cluster sink: server-side apply as field manager `bailiwick`, prune by label.
//!
//! The admission policies go first; then a dry run with a kubelet's identity proves that they hold, each time anew, and while
//! it does not nothing else is written (DESIGN §3.2).

use super::evict::Evictions;
use super::refusals::{Key, Refusals};
use super::server::{Seen, keeps_counters, prove, rivals, who_we_are};
use super::watch::{Left, Watch, Watched};
use super::{Written, claims, nodes};
use crate::error::coded;
use crate::world::World;
use domain::{Digest, Name, Problem};
use dra::{Input, Object, Step};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

/// One Kubernetes cluster.
pub(super) struct Cluster {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    cell: Name,
    clients: Option<Clients>,
    /// What the server made of what was applied.
    applied: BTreeMap<Key, Taken>,
    refusals: Refusals,
    evictions: Evictions,
    /// Evictions that are not recorded yet: what goes wrong after them must not lose them.
    untold: Vec<(String, Value)>,
    /// From the first publication on.
    watch: Option<Watch>,
    left: Left,
}

/// What the server took.
struct Taken {
    /// Digest of what was sent.
    sent: Digest,
    /// `resourceVersion` that came back.
    version: Option<String>,
    /// Whether all of it came back.
    whole: bool,
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
    /// Asks once: a client that tries again by itself would ask for minutes for what a disruption budget refuses (429).
    once: Client,
    kubelet: Client,
}

/// A kind we write.
pub(super) struct Ours {
    pub(super) api: Api<DynamicObject>,
    pub(super) there: BTreeMap<String, DynamicObject>,
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
            evictions: Evictions::default(),
            untold: Vec::new(),
            watch: None,
            left: Left::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        let file = self
            .kubeconfig
            .as_ref()
            .map_or("in-cluster or default kubeconfig".to_owned(), |path| path.display().to_string());
        self.context.as_ref().map_or(file.clone(), |context| format!("{file}#{context}"))
    }

    /// Returns when somebody else has changed what was left there, and it is time to put it right.
    pub(super) async fn differs(&mut self) {
        match &mut self.watch {
            Some(watch) => watch.differs(&self.left).await,
            None => std::future::pending().await,
        }
    }

    /// Brings the cluster in line.
    pub(super) async fn write(&mut self, input: &Input, world: &World) -> Result<Written, Problem> {
        let clients = self.clients().await?;
        if let Some(watch) = &mut self.watch {
            watch.forget();
        }
        let mut written = Written::default();
        let seen = Seen::of(&clients.own).await;
        // Whatever becomes of publishing, nobody keeps a device whose gate has closed.
        self.evict(&clients, &seen, world, &mut written).await;
        let input = self.asked(&clients.own, input, world, seen, &mut written.left_out).await?;
        let output = dra::publish(&input);
        written.left_out.extend(output.diagnostics.clone());
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
        written.left_out.extend(rivals(&clients.own, self.cell.as_str(), &classes).await?);
        let (slices, rules): (Vec<_>, Vec<_>) =
            output.observed.iter().partition(|object| object.kind == "ResourceSlice");
        // The devices of a machine whose taint the cluster does not take are not offered.
        let untainted = self.bring_in_line(&clients.own, &rules, &mut written).await?;
        let tainted = |slice: &&Object| untainted.iter().all(|(rule, _)| rule.machine != slice.machine);
        let slices: Vec<_> = slices.into_iter().filter(tainted).collect();
        self.write_slices(&clients.own, &slices, &mut written).await?;
        let wanted: BTreeSet<_> = output
            .declared
            .iter()
            .chain(&output.observed)
            .map(|o| (o.kind.as_str(), o.name.as_str()))
            .collect();
        self.prune_all(&clients.own, &input, &wanted, &mut written).await?;
        self.refusals.retain(&wanted);
        written.again = written.again.into_iter().chain(self.refusals.next(Instant::now())).min();
        self.left = std::mem::take(&mut written.left);
        if self.watch.is_none() {
            self.watch = Some(Watch::start(self.watched(&clients.own)));
        }
        written.evicted = std::mem::take(&mut self.untold);
        Ok(written)
    }

    /// Tells who has which device, and asks those to go who must.
    async fn evict(&mut self, clients: &Clients, seen: &Seen, world: &World, written: &mut Written) {
        let client = &clients.own;
        let classes = self.ours(client, "resource.k8s.io/v1", "DeviceClass");
        let (claims, classes) = tokio::join!(claims::read(client), classes);
        let claims = match claims {
            Ok(claims) => claims,
            Err(problem) => return written.left_out.push(problem),
        };
        // By what stands in the cluster: a class of that name may be somebody else's, and one that is declared no more has given out.
        let classes = classes.map_or_else(
            |problem| {
                written.left_out.push(problem);
                BTreeMap::new()
            },
            |ours| ours.there,
        );
        let holders = claims::holders(&claims, |class| classes.contains_key(class));
        self.evictions.evict(&clients.once, holders, seen, world, written).await;
        self.untold.append(&mut written.evicted);
        written.allocations = claims::allocations(&claims);
    }

    /// With what the cluster can do, and which machines have verified Nodes there.
    async fn asked(
        &self,
        client: &Client,
        input: &Input,
        world: &World,
        seen: Seen,
        left_out: &mut Vec<Problem>,
    ) -> Result<Input, Problem> {
        let mut input = input.clone();
        input.server.taint_rules = seen.taint_rules?;
        if input.machines.iter().any(|machine| !machine.partitions.is_empty()) {
            input.server.counters = keeps_counters(client, &input, left_out).await?;
        }
        who_we_are(client, &input.cell_user).await?;
        let uuids = seen.uuids?;
        let mut verified = BTreeSet::new();
        for machine in &input.machines {
            match nodes::may_have_slices(machine, world, &uuids) {
                Ok(()) => drop(verified.insert(machine.name.clone())),
                Err(_) if machine.gpus.is_empty() => {}
                Err(problem) => left_out.push(problem),
            }
        }
        input.verified = Some(verified);
        Ok(input)
    }

    fn owned(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", dra::LABEL_OWNER, self.cell))
    }

    /// What others may change of ours: of taint rules a controller writes the status all the time, so they are not watched.
    fn watched(&self, client: &Client) -> impl Iterator<Item = Watched> {
        const ADMISSION: &str = "admissionregistration.k8s.io/v1";
        let (client, owned) = (client.clone(), self.owned());
        [
            ("resource.k8s.io/v1", "ResourceSlice", of_driver()),
            ("resource.k8s.io/v1", "DeviceClass", owned.clone()),
            (ADMISSION, "ValidatingAdmissionPolicy", owned.clone()),
            (ADMISSION, "ValidatingAdmissionPolicyBinding", owned),
        ]
        .into_iter()
        .map(move |(version, kind, selector)| Watched {
            kind,
            api: api(&client, version, kind),
            selector,
        })
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
        let mut once = config.clone();
        once.default_retry = false;
        let mut kubelet = config.clone();
        kubelet.auth_info.impersonate = Some(dra::PROOF_USER.to_owned());
        kubelet.auth_info.impersonate_groups = Some(vec![dra::PROOF_GROUP.to_owned()]);
        let client =
            |config| Client::try_from(config).map_err(|error: kube::Error| refuse(error.to_string()));
        let clients = Clients { own: client(config)?, once: client(once)?, kubelet: client(kubelet)? };
        self.clients = Some(clients.clone());
        Ok(clients)
    }

    async fn ours(&self, client: &Client, api_version: &str, kind: &str) -> Result<Ours, Problem> {
        list(api(client, api_version, kind), &self.owned(), kind).await
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
        // What did not come back as it was sent is sent again: the server may keep it by now.
        if let (Some(there), Some(taken)) = (there, self.applied.get(&key))
            && taken.whole
            && taken.sent == sent
            && there.metadata.resource_version == taken.version
        {
            written.objects += 1;
            written.leave(key, there.metadata.resource_version.as_ref());
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
        written.leave(key.clone(), version.as_ref());
        self.applied.insert(key, Taken { sent, version, whole: dropped.is_empty() });
        Ok(Applied::Stands)
    }

    async fn write_slices(
        &mut self,
        client: &Client,
        slices: &[&Object],
        written: &mut Written,
    ) -> Result<(), Problem> {
        // Whoever wrote them: what was forged before the policy held goes too.
        let ours =
            list(api(client, "resource.k8s.io/v1", "ResourceSlice"), &of_driver(), "ResourceSlice").await?;
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
        for slice in slices.iter().filter(|slice| !touched.contains(&slice.name)) {
            written.objects += 1;
            let there = ours.there.get(&slice.name);
            let version = there.and_then(|there| there.metadata.resource_version.as_ref());
            written.leave((slice.kind.clone(), slice.name.clone()), version);
        }
        Ok(())
    }

    /// Deletes what bears our label and is wanted no more.
    async fn prune_all(
        &mut self,
        client: &Client,
        input: &Input,
        wanted: &BTreeSet<(&str, &str)>,
        written: &mut Written,
    ) -> Result<(), Problem> {
        let rules = input.server.taint_rules.map(|version| format!("resource.k8s.io/{}", version.as_str()));
        let kinds = [
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
            ("resource.k8s.io/v1", "DeviceClass"),
        ];
        for (version, kind) in kinds.into_iter().chain(rules.as_deref().map(|of| (of, "DeviceTaintRule"))) {
            self.prune(client, version, kind, wanted, written).await?;
        }
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

pub(super) async fn list(
    api: Api<DynamicObject>,
    selector: &ListParams,
    kind: &str,
) -> Result<Ours, Problem> {
    let list = api.list(selector).await.map_err(|error| failed("list", kind, "", &error))?;
    let there =
        list.items.into_iter().filter_map(|object| Some((object.metadata.name.clone()?, object))).collect();
    Ok(Ours { api, there })
}

/// Every slice of our driver, whoever wrote it.
fn of_driver() -> ListParams {
    ListParams::default().fields(&format!("spec.driver={}", dra::DRIVER))
}

pub(super) fn api(client: &Client, api_version: &str, kind: &str) -> Api<DynamicObject> {
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
pub(super) fn refused(verb: &str, kind: &str, name: &str, error: &kube::Error) -> Result<Problem, Problem> {
    match error {
        // Who are you, not now, and nobody is there.
        kube::Error::Api(status) if !matches!(status.code, 401 | 429 | 502..=504) => {
            let message = format!("cannot {verb} {kind}/{name}: {}", status.message);
            Ok(coded("publish.refused", message).at(format!("{kind}/{name}")))
        }
        _ => Err(failed(verb, kind, name, error)),
    }
}

pub(super) fn failed(verb: &str, kind: &str, name: &str, error: &kube::Error) -> Problem {
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
