//! The API server takes everything as it is, and a second time changes nothing.

use crate::cluster::{Cluster, input, machine, name, probed};
use bailiwick_dra::{Object, Step, counters_slice, publish, reconcile};
use domain::Problem;
use serde_json::{Value, json};
use testbed::ControlPlane;

/// Everything that was sent is in what came back: the API server drops fields silently (facts: dra §1).
fn kept(sent: &Value, got: &Value) -> bool {
    match (sent, got) {
        (Value::Object(sent), Value::Object(got)) => {
            sent.iter().all(|(key, value)| got.get(key).is_some_and(|got| kept(value, got)))
        }
        (Value::Array(sent), Value::Array(got)) => {
            sent.len() == got.len() && sent.iter().zip(got).all(|(sent, got)| kept(sent, got))
        }
        _ => sent == got,
    }
}

/// The most of everything: a machine of several slices, every partition of nine GPUs, taints by rule and in slices, a class near the longest selector.
fn everything() -> Vec<Object> {
    let mut input = input("accepted", &["de", "us"]);
    input.machines.push(machine(&format!("{}x", "accepted-".repeat(6)), "de", 130));
    input.machines.push(machine("accepted-alarmed", "de", 70));
    input.machines[3].alarms = vec![Problem::new("bmc.pin-mismatch", "its key changed")];
    let parted = probed(&mut input, "accepted-parted", 9);
    input.machines.push(parted);
    let models: Vec<_> = (0..95).map(|at| format!("it's model \\ \"{at:040}\" of größter Länge")).collect();
    let longest = "r".repeat(63);
    let classes = [
        ("accepted-default", json!({ "jurisdiction": "eu" })),
        ("accepted-trial", json!({ "jurisdiction": "de", "requires": ["inventoried"] })),
        (
            "accepted-long",
            json!({ "jurisdiction": "world", "models": models, "zone": { "tier": "secret", "handling": "sensitive" } }),
        ),
        ("accepted-unmarked", json!({ "jurisdiction": "world", "zone": { "tier": "official" } })),
        (longest.as_str(), json!({ "jurisdiction": "eu", "extendedResource": true })),
    ];
    input.classes = classes
        .into_iter()
        .map(|(class, spec)| (name(class), serde_json::from_value(spec).unwrap()))
        .collect();
    let output = publish(&input);
    let codes: Vec<_> = output.diagnostics.iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, Vec::<&str>::new());
    input.server.taint_rules = None;
    let tainted =
        publish(&input).observed.into_iter().filter(|object| object.name.starts_with("accepted-alarmed"));
    [output.declared, output.observed, tainted.collect()].concat()
}

#[tokio::test]
async fn all_objects_are_accepted_as_they_are_and_a_second_time_changes_nothing() {
    let cluster = Cluster::guarded().await;
    // Of a slice with taints the server dates the taints anew each time; what to write of slices is `reconcile`'s to say, below.
    let (tainted, untainted): (Vec<_>, Vec<_>) = everything()
        .into_iter()
        .partition(|object| object.json().pointer("/spec/devices/0/taints").is_some());
    assert_eq!(tainted.len(), 2);
    for object in untainted {
        let mut first = cluster.apply(&object).await;
        assert!(kept(&object.json(), &first), "{} was sent, {first} came back", object.text());
        if object.kind == "DeviceTaintRule" {
            // A controller tells of each rule what it does about it.
            let rule = format!("devicetaintrule/{}", object.name);
            cluster
                .admin(&["wait", &rule, "--for=condition=EvictionInProgress=False", "--timeout=60s"])
                .await;
            first = serde_json::from_str(&cluster.admin(&["get", &rule, "-o", "json"]).await).unwrap();
        }
        let second = cluster.apply(&object).await;
        let version =
            |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned).unwrap();
        assert_eq!(version(&first), version(&second), "{} {}", object.kind, object.name);
    }
    for object in tainted {
        let got = cluster.apply(&object).await;
        assert!(kept(&object.json(), &got), "{} was sent, {got} came back", object.text());
    }
}

#[tokio::test]
async fn a_server_that_keeps_no_counters_is_found_by_reading_a_dry_run_back() {
    let slice = counters_slice(&input("unused", &[])).json();
    let kept = async |plane: &ControlPlane| {
        let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let answer = plane.kubectl(&arguments, Some(&slice.to_string())).await.unwrap();
        let answer: Value = serde_json::from_str(&answer.success().unwrap_or_default()).unwrap_or_default();
        answer["spec"]["sharedCounters"].is_array()
    };
    assert!(kept(&*ControlPlane::shared().await.unwrap()).await);
    let without = ControlPlane::options().scheduler(false).controller_manager(false);
    let without = without.without("DRAPartitionableDevices");
    assert!(!kept(&without.start().await.unwrap()).await);
}

#[tokio::test]
async fn slices_read_back_from_the_server_leave_nothing_to_write() {
    let cluster = Cluster::guarded().await;
    let mut input = input("again", &["de"]);
    input.machines.push(machine("again-large", "de", 200));
    let parted = probed(&mut input, "again-parted", 1);
    input.machines.push(parted);
    let desired = publish(&input).observed;
    let mut existing = Vec::new();
    for step in reconcile(&[], &desired) {
        let Step::Apply(object) = step else { panic!("nothing to delete") };
        existing.push(cluster.apply(&object).await);
    }
    assert_eq!(existing.len(), 7);
    assert_eq!(reconcile(&existing, &desired), vec![]);
    input.machines[0].alarms = vec![Problem::new("bmc.pin-mismatch", "its key changed")];
    input.server.taint_rules = None;
    let tainted = publish(&input).observed;
    let mut after = Vec::new();
    for step in reconcile(&existing, &tainted) {
        let Step::Apply(object) = step else { panic!("nothing to delete") };
        after.push(cluster.apply(&object).await);
    }
    assert_eq!(after.len(), 1, "the other pool is left alone");
    existing.retain(|slice| slice["metadata"]["name"] != after[0]["metadata"]["name"]);
    existing.extend(after);
    assert_eq!(
        reconcile(&existing, &tainted),
        vec![],
        "the time that the server adds to a taint is no change"
    );
}
