//! What a cluster says of itself: who we are there, what it can do, and whether the policies hold.

use super::cluster::{api, failed, list, refused};
use super::nodes;
use crate::error::coded;
use domain::Problem;
use dra::{DryRun, Input, Object, Proof, TaintRuleVersion};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A policy is active within a second of its creation (facts: dra, measured); it is given ten.
const PROOF_TRIES: u32 = 20;
const PROOF_PAUSE: Duration = Duration::from_millis(500);

/// What is read of a cluster before anything is done there. What could not be read fails who cannot do without it.
pub(super) struct Seen {
    /// In which version DeviceTaintRule is served.
    pub(super) taint_rules: Result<Option<TaintRuleVersion>, Problem>,
    /// The system UUID that each Node says.
    pub(super) uuids: Result<BTreeMap<String, String>, Problem>,
}

impl Seen {
    pub(super) async fn of(client: &Client) -> Self {
        let (taint_rules, uuids) = tokio::join!(taint_rules(client), nodes::system_uuids(client));
        Self { taint_rules, uuids }
    }
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
pub(super) async fn keeps_counters(
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
pub(super) async fn who_we_are(client: &Client, expected: &str) -> Result<(), Problem> {
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

/// Proves that a kubelet could not write our slices.
pub(super) async fn prove(kubelet: &Client, input: &Input) -> Result<(), Problem> {
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

/// Classes of others that have the name of one of our extended resources. The policy refuses new ones; of two that are there the newer wins
/// (facts: dra §2).
pub(super) async fn rivals(
    client: &Client,
    cell: &str,
    classes: &[&Object],
) -> Result<Vec<Problem>, Problem> {
    let names = classes
        .iter()
        .filter_map(|class| class.json()["spec"]["extendedResourceName"].as_str().map(str::to_owned));
    let names: BTreeSet<_> = names.collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let foreign = ListParams::default().labels(&format!("{}!={cell}", dra::LABEL_OWNER));
    let foreign = list(api(client, "resource.k8s.io/v1", "DeviceClass"), &foreign, "DeviceClass").await?;
    let told = foreign.there.iter().filter_map(|(class, object)| {
        let name = object.data.pointer("/spec/extendedResourceName").and_then(Value::as_str)?;
        let message = format!("DeviceClass/{class} in the cluster is not this cell's, and names {name}");
        let at = format!("DeviceClass/{class}");
        names.contains(name).then(|| coded("publish.extended-resource-taken", message).at(at))
    });
    Ok(told.collect())
}
