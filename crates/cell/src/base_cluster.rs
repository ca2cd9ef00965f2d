//! What the cell does in a base cluster so that machines become nodes of it, and leave it again.

use crate::error::coded;
use crate::join::request::SIGNER;
use crate::join::{GROUP, Token};
use crate::secrets::Secrets;
use crate::trouble::Trouble;
use domain::base_cluster::{BaseClusterSpec, Join};
use domain::{Digest, Name, Problem};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Store;

/// Field manager of what the cell applies.
const MANAGER: &str = "bailiwick";

/// How long a listing serves.
const FRESH: Duration = Duration::from_millis(300);

/// By how much the clocks of API server and database may differ. A Date header is exact to the second (RFC 9110 §5.6.7).
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// How long a clock that was right is believed.
const CLOCK_FRESH: Duration = Duration::from_secs(30);

/// How long one that was not is no more looked at. One question is to fail for all machines that wait for its answer, and not one after
/// the other.
const CLOCK_WRONG: Duration = Duration::from_secs(5);

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Base clusters that the cell has a way into.
#[derive(Debug, Default)]
pub(crate) struct BaseClusters {
    secrets: Secrets,
    known: Mutex<HashMap<Name, (Digest, Arc<BaseCluster>)>>,
}

/// One base cluster.
pub(crate) struct BaseCluster {
    client: Client,
    /// CA of its API server (PEM).
    pub ca: String,
    /// Whether its rules for tokens are in place: looked at once a connection.
    ready: tokio::sync::OnceCell<()>,
    /// Certificate requests as last listed: one listing serves all machines that wait at the same time.
    listed: tokio::sync::Mutex<Option<(Instant, Arc<Vec<CertificateSigningRequest>>)>>,
    /// When its clock was looked at last, and what was wrong with it, or kept it from being seen.
    clock: tokio::sync::Mutex<Option<(Instant, Option<Problem>)>>,
}

impl std::fmt::Debug for BaseCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseCluster").finish_non_exhaustive()
    }
}

impl BaseClusters {
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self { secrets, known: Mutex::default() }
    }

    /// The way in that its declaration names; opened anew when the kubeconfig changes.
    pub(crate) async fn of(&self, name: &Name, spec: &BaseClusterSpec) -> Result<Arc<BaseCluster>, Trouble> {
        let missing = |why: String| {
            Trouble::Passing(coded(
                "basecluster.no-kubeconfig",
                format!("no way into BaseCluster/{name}: {why}"),
            ))
        };
        let reference = spec.kubeconfig.as_ref().ok_or_else(|| missing("it names no secret".into()))?;
        let text = self.secrets.read(reference).await.map_err(missing)?;
        let digest = Digest::of(text.as_bytes());
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, cluster)) = known.get(name).filter(|(of, _)| *of == digest) {
                return Ok(Arc::clone(cluster));
            }
        }
        let opened = open(&text).await.map_err(missing)?;
        if opened.ca.is_empty() {
            // Nodes would be told to trust whoever answers.
            return Err(missing("the kubeconfig names no CA of the API server".into()));
        }
        let cluster = Arc::new(opened);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.clone(), (digest, Arc::clone(&cluster)));
        Ok(cluster)
    }
}

async fn open(kubeconfig: &str) -> Result<BaseCluster, String> {
    let (client, ca) = connect(kubeconfig).await?;
    Ok(BaseCluster {
        client,
        ca,
        ready: tokio::sync::OnceCell::new(),
        listed: tokio::sync::Mutex::default(),
        clock: tokio::sync::Mutex::default(),
    })
}

/// A client of the API server that a kubeconfig names, and the CA of that server (PEM).
pub(crate) async fn connect(kubeconfig: &str) -> Result<(Client, String), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let file = Kubeconfig::from_yaml(kubeconfig).map_err(|error| told(&error))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|error| told(&error))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(PATIENCE);
    config.write_timeout = Some(PATIENCE);
    // The machine waits and says for what; a client that tries for minutes by itself would keep it silent, and would try an
    // eviction that a disruption budget refuses (429) again and again.
    config.default_retry = false;
    let ca = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
    let client = Client::try_from(config).map_err(|error| told(&error))?;
    Ok((client, ca))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A failed call, as what the machine waits for.
fn trouble(doing: &str, error: &kube::Error) -> Trouble {
    if let kube::Error::Api(status) = error
        && status.code == 403
    {
        let message = format!("the cell may not {doing}: {}", status.message);
        return Trouble::Passing(coded("basecluster.forbidden", message));
    }
    let reason = match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    };
    Trouble::Passing(coded("basecluster.unreachable", format!("the base cluster did not {doing}: {reason}")))
}

impl BaseCluster {
    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    fn tokens(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), "kube-system")
    }

    /// Rules under which our tokens may ask for certificates, and the proof that nobody else approves what they ask for.
    pub(crate) async fn prepare(&self, spec: &BaseClusterSpec) -> Result<(), Trouble> {
        self.ready
            .get_or_try_init(|| async {
                for (path, object) in bindings(spec) {
                    self.apply(&path, &object).await?;
                }
                self.refuse_automatic_approval().await
            })
            .await
            .copied()
    }

    async fn apply(&self, path: &str, object: &Value) -> Result<(), Trouble> {
        let doing = "apply the rules for bootstrap tokens";
        let uri = format!("{path}?fieldManager={MANAGER}&force=true");
        let request = http::Request::patch(uri)
            .header("content-type", "application/apply-patch+yaml")
            .body(object.to_string().into_bytes());
        let Ok(request) = request else {
            return Err(Trouble::Passing(coded("api.internal", "a request cannot be made")));
        };
        self.client.request::<Value>(request).await.map(drop).map_err(|error| trouble(doing, &error))
    }

    /// Where a controller approves what our tokens ask for, the cell's own decision would come too late.
    async fn refuse_automatic_approval(&self) -> Result<(), Trouble> {
        let review: SubjectAccessReview = serde_json::from_value(json!({
            "spec": {
                "user": "system:bootstrap:bailiwi", "groups": ["system:bootstrappers", GROUP, "system:authenticated"],
                "resourceAttributes": {
                    "verb": "create", "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests", "subresource": "nodeclient",
                },
            },
        }))
        .unwrap_or_default();
        let review = self.all().create(&PostParams::default(), &review).await;
        let review = review.map_err(|error| trouble("review what bootstrap tokens may do", &error))?;
        if review.status.is_some_and(|status| status.allowed) {
            return Err(Trouble::Passing(coded(
                "basecluster.automatic-approval",
                format!("the base cluster approves by itself what tokens of group {GROUP} ask for"),
            )));
        }
        Ok(())
    }

    /// The API server ends tokens by its own clock: where that is wrong, machines would come late without a fault of theirs.
    pub(crate) async fn refuse_wrong_clock(&self, store: &Store) -> Result<(), Trouble> {
        // Held while it is asked: one question serves all machines.
        let mut clock = self.clock.lock().await;
        match &*clock {
            Some((at, None)) if at.elapsed() < CLOCK_FRESH => return Ok(()),
            Some((at, Some(wrong))) if at.elapsed() < CLOCK_WRONG => {
                return Err(Trouble::Passing(wrong.clone()));
            }
            _ => {}
        }
        let wrong = match self.look_at_clock(store).await {
            Ok(()) => None,
            Err(Trouble::Store(error)) => return Err(Trouble::Store(error)),
            Err(trouble) => Some(trouble.problem()),
        };
        *clock = Some((Instant::now(), wrong.clone()));
        wrong.map_or(Ok(()), |wrong| Err(Trouble::Passing(wrong)))
    }

    async fn look_at_clock(&self, store: &Store) -> Result<(), Trouble> {
        let before = store.clock().await?;
        let said = self.date().await?;
        let after = store.clock().await?;
        if let Some(said) = said
            && (said.duration_since(before) < -SKEW || said.duration_since(after) > SKEW)
        {
            let message = "the clock of the base cluster's API server differs from the database's";
            let problem = coded("basecluster.clock-skew", message);
            return Err(Trouble::Passing(problem.difference(said.to_string(), after.to_string())));
        }
        Ok(())
    }

    /// The Date header of any answer.
    async fn date(&self) -> Result<Option<Timestamp>, Trouble> {
        let request = http::Request::get("/version").body(kube::client::Body::empty());
        let Ok(request) = request else { return Ok(None) };
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| trouble("tell the time", &error))?;
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp()))
    }

    /// The token is there, and ends then.
    pub(crate) async fn ensure_token(
        &self,
        machine: &Name,
        token: &Token,
        until: Timestamp,
    ) -> Result<(), Trouble> {
        let name = format!("bootstrap-token-{}", token.id);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": { "name": name, "labels": { "bailiwick.dev/machine": machine } },
            "stringData": {
                "token-id": token.id,
                "token-secret": token.secret.as_str(),
                "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": GROUP,
                "description": format!("Machine/{machine} joins with this, once"),
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        let applied = self.tokens().patch(&name, &params, &Patch::Apply(&secret)).await;
        applied.map(drop).map_err(|error| trouble("take a bootstrap token", &error))
    }

    /// The token serves no more.
    pub(crate) async fn forget_token(&self, token: &Token) -> Result<(), Trouble> {
        let name = format!("bootstrap-token-{}", token.id);
        match self.tokens().delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(trouble("delete a bootstrap token", &error)),
        }
    }

    /// Requests for certificates of kubelets, as they were a moment ago.
    pub(crate) async fn requests(&self) -> Result<Arc<Vec<CertificateSigningRequest>>, Trouble> {
        // Held while it is read: whoever comes meanwhile waits for the one reading instead of beginning another.
        let mut listed = self.listed.lock().await;
        if let Some((at, requests)) = &*listed
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(requests));
        }
        let params = ListParams::default().fields(&format!("spec.signerName={SIGNER}"));
        let list = self.all().list(&params).await;
        let requests = Arc::new(list.map_err(|error| trouble("list certificate requests", &error))?.items);
        *listed = Some((Instant::now(), Arc::clone(&requests)));
        Ok(requests)
    }

    /// Approves or denies a request; one that is decided stays as it is.
    pub(crate) async fn answer(
        &self,
        request: &CertificateSigningRequest,
        approve: bool,
        reason: &str,
        message: &str,
    ) -> Result<(), Trouble> {
        let name = request.metadata.name.clone().unwrap_or_default();
        if is_decided(request) {
            return Ok(());
        }
        let body = json!({
            "metadata": { "resourceVersion": request.metadata.resource_version },
            "status": { "conditions": [{
                "type": if approve { "Approved" } else { "Denied" },
                "status": "True", "reason": reason, "message": message,
            }] },
        });
        let api: Api<CertificateSigningRequest> = self.all();
        let answered = api.patch_approval(&name, &PatchParams::default(), &Patch::Merge(&body)).await;
        match answered {
            Ok(_) => Ok(()),
            // What is listed is up to a moment old: it may have been answered by ourselves since.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let message =
                    format!("certificate request {name} has changed meanwhile; it is looked at again");
                Err(Trouble::UnderWay(coded("machine.under-way", message), FRESH))
            }
            Err(error) => Err(trouble("take an answer to a certificate request", &error)),
        }
    }

    pub(crate) async fn node(&self, name: &Name) -> Result<Option<Node>, Trouble> {
        let node = self.all().get_opt(name.as_str()).await;
        node.map_err(|error| trouble("show a node", &error))
    }

    /// Changes a node by a merge patch.
    pub(crate) async fn patch_node(&self, name: &Name, patch: &Value) -> Result<(), Trouble> {
        let api: Api<Node> = self.all();
        let patched = api.patch(name.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| trouble("change a node", &error))
    }

    pub(crate) async fn delete_node(&self, name: &Name) -> Result<(), Trouble> {
        let api: Api<Node> = self.all();
        match api.delete(name.as_str(), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(trouble("delete a node", &error)),
        }
    }

    /// Asks the pods of a node to go; gives those that are still there. DaemonSets' and static pods stay.
    pub(crate) async fn evict(&self, node: &Name) -> Result<Vec<String>, Trouble> {
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = self.all::<Pod>().list(&params).await;
        let pods = pods.map_err(|error| trouble("list the pods of a node", &error))?;
        let mut left = Vec::new();
        for pod in pods.items.iter().filter(|pod| has_to_go(pod)) {
            let (name, namespace) = (
                pod.metadata.name.clone().unwrap_or_default(),
                pod.metadata.namespace.clone().unwrap_or_default(),
            );
            left.push(format!("{namespace}/{name}"));
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            match api.evict(&name, &EvictParams::default()).await {
                Ok(_) => {}
                Err(error) if is_missing(&error) => drop(left.pop()),
                // A disruption budget says not now (policy/v1 Eviction).
                Err(kube::Error::Api(status)) if status.code == 429 => {}
                Err(error) => return Err(trouble("evict a pod", &error)),
            }
        }
        Ok(left)
    }
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether somebody approved or denied the request.
pub(crate) fn is_decided(request: &CertificateSigningRequest) -> bool {
    let conditions =
        request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| matches!(condition.type_.as_str(), "Approved" | "Denied"))
}

fn has_to_go(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let is_static =
        pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
    !is_static
        && !matches!(phase, "Succeeded" | "Failed")
        && !owners.iter().any(|owner| owner.kind == "DaemonSet")
}

/// Roles of our tokens: to ask for a certificate; with kubeadm also to read what `kubeadm join` reads.
fn bindings(spec: &BaseClusterSpec) -> Vec<(String, Value)> {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let binding = |kind: &str, name: &str, role_kind: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP }],
        })
    };
    let cluster = |name: &str, role: &str| {
        (
            format!("{RBAC}/clusterrolebindings/{name}"),
            binding("ClusterRoleBinding", name, "ClusterRole", role),
        )
    };
    let system = |name: &str, role: &str| {
        let path = format!("{RBAC}/namespaces/kube-system/rolebindings/{name}");
        (path, binding("RoleBinding", name, "Role", role))
    };
    let mut all = vec![cluster("bailiwick:node-bootstrapper", "system:node-bootstrapper")];
    if matches!(spec.join, Join::Kubeadm) {
        all.push(cluster("bailiwick:get-nodes", "kubeadm:get-nodes"));
        all.push(system("bailiwick:kubeadm-config", "kubeadm:nodes-kubeadm-config"));
        all.push(system("bailiwick:kubelet-config", "kubeadm:kubelet-config"));
    }
    all
}
