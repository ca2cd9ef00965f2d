//! Steps against a real API server: its owners of fields, its refusals. The test plays the operator by writing the status.

use std::sync::{Arc, Weak};

use bailiwick_metal3::drive::Persistence;
use bailiwick_metal3::{
    Algorithm, Deployment, DiskFormat, Error, Payload, Power, Progress, Registration, SecretText, Transport,
    Wish, bmc_address, detach, pause, step, unpause,
};
use kube::Client;
use serde_json::{Value, json};
use testbed::{BaremetalOperator, ControlPlane};
use tokio::sync::Mutex;

use crate::support::{apply, cell, client, edit, kubectl, name, registration};

/// One namespace with its cell.
struct Subject {
    plane: Arc<ControlPlane>,
    namespace: String,
    client: Client,
    registration: Registration,
}

/// One API server for all tests of this program that run at the same time.
async fn plane() -> Arc<ControlPlane> {
    static RUNNING: Mutex<Weak<ControlPlane>> = Mutex::const_new(Weak::new());
    let mut running = RUNNING.lock().await;
    if let Some(plane) = running.upgrade() {
        return plane;
    }
    let plane = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    plane.apply_crds(&BaremetalOperator::crds().await.unwrap()).await.unwrap();
    let plane = Arc::new(plane);
    *running = Arc::downgrade(&plane);
    plane
}

impl Subject {
    async fn new(namespace: &str) -> Self {
        let plane = plane().await;
        let client = cell(&plane, namespace).await;
        let address = bmc_address(Transport::Https, "10.0.0.1", "/redfish/v1/Systems/1").unwrap();
        let registration = registration("m1", address, "02:00:5e:00:00:01", ("ironic", "pl4nted"));
        Self { plane, namespace: namespace.to_owned(), client, registration }
    }

    async fn step(&self, wish: &Wish) -> Progress {
        step(&self.client, &self.namespace, &self.registration, wish).await.unwrap()
    }

    /// Steps until nothing is written any more.
    async fn written(&self, wish: &Wish) -> Progress {
        for _ in 0..10 {
            match self.step(wish).await {
                Progress::Acted(_) => {}
                progress => return progress,
            }
        }
        panic!("{wish} is written for ever");
    }

    async fn refused(&self, wish: &Wish) -> (String, Persistence, String) {
        match self.written(wish).await {
            Progress::Refused { problem, persistence, .. } => {
                (problem.code.clone(), persistence, problem.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the operator would write.
    async fn status(&self, host: &str, status: &Value) {
        let (namespace, patch) =
            (format!("--namespace={}", self.namespace), json!({ "status": status }).to_string());
        let arguments =
            ["patch", "bmh", host, &namespace, "--subresource=status", "--type=merge", "-p", &patch];
        kubectl(&self.plane, &arguments).await;
    }

    async fn state(&self, host: &str, state: &str, image: Option<&str>) {
        let image = image.map_or(json!({ "url": "" }), |url| json!({ "url": url }));
        let provisioning = json!({ "ID": "6f1d8c0a", "state": state, "image": image });
        let status = json!({
            "operationalStatus": "OK", "errorMessage": "", "errorCount": 0, "poweredOn": true, "provisioning": provisioning,
        });
        self.status(host, &status).await;
    }

    async fn host(&self, host: &str) -> Value {
        let namespace = format!("--namespace={}", self.namespace);
        serde_json::from_str(&kubectl(&self.plane, &["get", "bmh", host, &namespace, "-o", "json"]).await)
            .unwrap()
    }

    async fn available(&self) {
        self.written(&Wish::Available).await;
        self.state("m1", "available", None).await;
        assert!(matches!(self.written(&Wish::Available).await, Progress::Reached(Some(_))));
    }
}

fn disk(id: &str) -> Wish {
    Wish::Provisioned(Deployment {
        id: name(id),
        payload: Payload::Disk {
            url: IMAGE.unwrap().to_owned(),
            checksum: "a".repeat(64),
            algorithm: Algorithm::Sha256,
            format: DiskFormat::Raw,
        },
        power: Power::On,
        user_data: Some(SecretText::new("#cloud-config\n")),
        network_data: None,
        meta_data: None,
    })
}

const IMAGE: Option<&str> = Some("http://images.example/node.raw");

#[tokio::test]
async fn a_host_and_its_secrets_are_written_with_the_verbs_documented_and_written_once() {
    let subject = Subject::new("once").await;
    subject.available().await;
    let before = subject.host("m1").await["metadata"]["resourceVersion"].clone();
    assert!(matches!(subject.step(&Wish::Available).await, Progress::Reached(_)));
    let host = subject.host("m1").await;
    assert_eq!(host["metadata"]["resourceVersion"], before, "nothing is written again");
    assert_eq!(host["metadata"]["labels"]["bailiwick.dev/model"], "CPU-Node-rev.-1");
    assert_eq!(host["spec"]["consumerRef"]["kind"], "Machine");
    assert_eq!(host["spec"]["bmc"]["address"], "redfish-virtualmedia+https://10.0.0.1/redfish/v1/Systems/1");
}

#[tokio::test]
async fn a_deployment_comes_and_goes_with_its_fields_and_its_secret() {
    let subject = Subject::new("deployment").await;
    subject.available().await;
    assert!(matches!(subject.written(&disk("d1")).await, Progress::Waiting { .. }));
    let host = subject.host("m1").await;
    let image =
        json!({ "url": IMAGE, "checksum": "a".repeat(64), "checksumType": "sha256", "format": "raw" });
    assert_eq!(host["spec"]["image"], image);
    assert_eq!(
        (&host["spec"]["online"], &host["spec"]["userData"]["name"]),
        (&json!(true), &json!("m1-user-data"))
    );
    subject.state("m1", "provisioned", IMAGE).await;
    assert!(matches!(subject.written(&disk("d1")).await, Progress::Reached(_)));
    assert_eq!(subject.refused(&disk("d2")).await.0, "metal3.deployed");
    assert_eq!(subject.refused(&Wish::Available).await.0, "metal3.deployed");
    assert!(matches!(subject.written(&Wish::Registered).await, Progress::Reached(_)));
    assert_eq!(
        subject.host("m1").await["spec"]["image"]["url"],
        json!(IMAGE),
        "a lesser wish takes nothing away"
    );

    assert!(matches!(subject.written(&Wish::Released).await, Progress::Waiting { .. }));
    let spec = subject.host("m1").await["spec"].clone();
    assert!(spec.get("image").is_none() && spec.get("userData").is_none(), "{spec}");
    assert_eq!(spec["online"], false);
    subject.state("m1", "available", None).await;
    assert!(matches!(subject.written(&Wish::Released).await, Progress::Reached(_)));
    let secrets = kubectl(&subject.plane, &["get", "secrets", "-n", "deployment", "-o", "name"]).await;
    assert_eq!(secrets, "secret/m1-bmc\n");
    assert!(matches!(subject.written(&Wish::Removed).await, Progress::Reached(None)));
    assert_eq!(kubectl(&subject.plane, &["get", "bmh,secrets", "-n", "deployment", "-o", "name"]).await, "");
}

#[tokio::test]
async fn an_edit_by_hand_is_told_with_its_author_and_forgotten_when_taken_back() {
    let subject = Subject::new("edited").await;
    subject.available().await;
    subject.written(&disk("d1")).await;
    subject.state("m1", "provisioned", IMAGE).await;
    for (edited, restored, field) in [
        (json!({ "online": false }), json!({ "online": true }), "spec.online"),
        (
            json!({ "image": { "url": "http://evil.example/x.iso" } }),
            json!({ "image": { "url": IMAGE } }),
            "spec.image.url",
        ),
        (
            json!({ "bmc": { "disableCertificateVerification": null } }),
            json!({ "bmc": { "disableCertificateVerification": true } }),
            "",
        ),
    ] {
        edit(&subject.plane, "edited", "m1", &json!({ "spec": edited })).await;
        if !field.is_empty() {
            let (code, persistence, text) = subject.refused(&disk("d1")).await;
            assert_eq!((code.as_str(), persistence), ("metal3.edited-by-hand", Persistence::Lasting));
            assert!(text.contains("kubectl-edit") && text.contains(field), "{text}");
        }
        edit(&subject.plane, "edited", "m1", &json!({ "spec": restored })).await;
        assert!(matches!(subject.written(&disk("d1")).await, Progress::Reached(_)));
    }
    edit(&subject.plane, "edited", "m1", &json!({ "spec": { "image": null } })).await;
    let (code, _, text) = subject.refused(&disk("d1")).await;
    assert_eq!(code, "metal3.edited-by-hand", "{text}");
    assert!(subject.host("m1").await["spec"].get("image").is_none(), "it is not put on again");
}

#[tokio::test]
async fn an_existing_host_is_taken_over_released_and_never_doubled() {
    let subject = Subject::new("takeover").await;
    let host = json!({
        "apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost",
        "metadata": { "name": "rack-1-unit-4", "namespace": "takeover" },
        "spec": {
            "online": true, "bootMACAddress": "02:00:5E:00:00:01", "automatedCleaningMode": "metadata",
            "bmc": { "address": "idrac-virtualmedia://10.0.0.1/redfish/v1/Systems/1", "credentialsName": "theirs" },
            "image": { "url": "http://images.example/old.raw", "checksum": "1", "checksumType": "auto" },
        },
    });
    apply(&subject.plane, &host).await;
    subject.state("rack-1-unit-4", "provisioned", Some("http://images.example/old.raw")).await;
    assert!(matches!(subject.written(&Wish::Registered).await, Progress::Reached(_)));
    let taken = subject.host("rack-1-unit-4").await;
    assert_eq!(taken["metadata"]["labels"]["bailiwick.dev/machine"], "m1");
    assert_eq!(taken["spec"]["bmc"]["address"], host["spec"]["bmc"]["address"]);
    assert_eq!(taken["spec"]["bmc"]["credentialsName"], "rack-1-unit-4-bmc");
    assert_eq!(taken["spec"]["image"], host["spec"]["image"], "what runs goes on running");
    assert_eq!(subject.refused(&disk("d1")).await.0, "metal3.deployed");

    assert!(matches!(subject.written(&Wish::Released).await, Progress::Waiting { .. }));
    assert!(subject.host("rack-1-unit-4").await["spec"].get("image").is_none());
    subject.state("rack-1-unit-4", "available", None).await;
    assert!(matches!(subject.written(&disk("d1")).await, Progress::Waiting { .. }));
    subject.state("rack-1-unit-4", "provisioned", IMAGE).await;
    assert!(matches!(subject.written(&disk("d1")).await, Progress::Reached(_)));
    assert_eq!(
        kubectl(&subject.plane, &["get", "bmh", "-n", "takeover", "-o", "name"]).await.lines().count(),
        1
    );
    // The API server tells by whole seconds when somebody wrote: within that of the takeover an edit looks older than it.
    let taken: jiff::Timestamp =
        taken["metadata"]["annotations"]["bailiwick.dev/taken-over"].as_str().unwrap().parse().unwrap();
    while jiff::Timestamp::now().as_second() <= taken.as_second() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    edit(&subject.plane, "takeover", "rack-1-unit-4", &json!({ "spec": { "online": false } })).await;
    assert_eq!(subject.refused(&disk("d1")).await.0, "metal3.edited-by-hand");
}

#[tokio::test]
async fn a_host_that_cluster_api_takes_is_left_to_it() {
    let subject = Subject::new("offered").await;
    subject.written(&Wish::Offered).await;
    subject.state("m1", "available", None).await;
    assert!(matches!(subject.written(&Wish::Offered).await, Progress::Reached(_)));
    assert!(subject.host("m1").await["spec"].get("consumerRef").is_none());
    let consumer = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "Metal3Machine", "name": "w-1", "namespace": "offered",
    });
    let taken = json!({ "spec": { "consumerRef": consumer, "online": true, "image": { "url": IMAGE, "format": "live-iso" } } });
    edit(&subject.plane, "offered", "m1", &taken).await;
    let Progress::Reached(Some(standing)) = subject.written(&Wish::Offered).await else { panic!() };
    assert_eq!(standing.consumer.unwrap().kind, "Metal3Machine");
    assert_eq!(subject.refused(&Wish::Available).await.0, "metal3.consumed");
    assert_eq!(subject.refused(&Wish::Removed).await.0, "metal3.consumed");
}

#[tokio::test]
async fn a_host_is_held_by_one_at_a_time() {
    let subject = Subject::new("held").await;
    subject.available().await;
    let (client, namespace) = (&subject.client, "held");
    let held = pause(client, namespace, "m1").await.unwrap();
    assert!(held.quiet && held.powered_on);
    assert_eq!(pause(client, namespace, "m1").await.unwrap(), held, "twice is once");
    assert_eq!(subject.refused(&disk("d1")).await.1, Persistence::Passing);
    unpause(client, namespace, "m1").await.unwrap();
    assert!(matches!(subject.written(&disk("d1")).await, Progress::Waiting { .. }));

    let theirs =
        json!({ "metadata": { "annotations": { "baremetalhost.metal3.io/paused": "metal3.io/capm3" } } });
    edit(&subject.plane, namespace, "m1", &theirs).await;
    assert_eq!(pause(client, namespace, "m1").await.unwrap_err().code(), "metal3.held-by-others");
    unpause(client, namespace, "m1").await.unwrap();
    let (code, persistence, text) = subject.refused(&disk("d1")).await;
    assert_eq!((code.as_str(), persistence), ("metal3.paused", Persistence::Lasting));
    assert!(text.contains("metal3.io/capm3"), "{text}");
    assert_eq!(detach(client, namespace, "m2").await.unwrap_err().code(), "metal3.no-host");
}

#[tokio::test]
async fn a_secret_edited_by_hand_is_left_alone() {
    let subject = Subject::new("secret").await;
    subject.available().await;
    let patch = r#"{"stringData":{"password":"theirs"}}"#;
    kubectl(
        &subject.plane,
        &["patch", "secret", "m1-bmc", "-n", "secret", "--field-manager=kubectl-edit", "-p", patch],
    )
    .await;
    let (code, _, text) = subject.refused(&Wish::Available).await;
    assert_eq!(code, "metal3.edited-by-hand");
    assert!(text.contains("kubectl-edit") && !text.contains("theirs") && !text.contains("pl4nted"), "{text}");
}

#[tokio::test]
async fn two_callers_at_once_make_one_host() {
    let subject = Subject::new("twins").await;
    let wish = Wish::Available;
    let (one, other) = tokio::join!(subject.written(&wish), subject.written(&wish));
    assert!(matches!((one, other), (Progress::Waiting { .. }, Progress::Waiting { .. })));
    assert_eq!(
        kubectl(&subject.plane, &["get", "bmh", "-n", "twins", "-o", "name"]).await.lines().count(),
        1
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_be_used_is_told_as_such() {
    let subject = Subject::new("errors").await;
    let stranger = client(&subject.plane.kubeconfig_for("stranger", &[]).unwrap()).await;
    let forbidden = step(&stranger, "errors", &subject.registration, &Wish::Available).await.unwrap_err();
    assert_eq!((forbidden.code(), forbidden.is_passing()), ("metal3.forbidden", false));

    let bare = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    let nobody = client(bare.kubeconfig_admin()).await;
    let missing = step(&nobody, "default", &subject.registration, &Wish::Available).await.unwrap_err();
    assert!(matches!(missing, Error::NotInstalled { .. }), "{missing}");
    drop(bare);
    let away = step(&nobody, "default", &subject.registration, &Wish::Available).await.unwrap_err();
    assert_eq!((away.code(), away.is_passing()), ("metal3.unreachable", true));
}
