//! What holds of an Ironic, whether real or simulated.

use std::collections::BTreeSet;

use bailiwick_ironic::erasure::{self, Watch};
use bailiwick_ironic::registration::{BmcPlace, Marks};
use bailiwick_ironic::{
    AutomatedClean, Bmc, ConfigDrive, DeployKind, Directory, Error, Found, Identity, NodeQuery, Options,
    Patch, Power, PowerState, Provision, ProvisionState, Refusal, Registration, Secret, Step, Wish, find,
    step,
};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::site::{Site, bring, deployed, deployment, machine, reach, sqlite_is_busy, task, until};

/// From nothing to active, back, and away.
pub(crate) async fn a_machine_goes_all_the_way_and_back(site: &Site) {
    let machine = machine();
    let registered = bring(site, &machine, Wish::Registered).await;
    assert_eq!(registered.provision_state, ProvisionState::Manageable);
    assert_eq!((registered.uuid, registered.name.as_deref()), (machine.uuid, Some(machine.name.as_str())));
    assert_eq!(registered.traits, ["CUSTOM_BAILIWICK_JURISDICTION_FR"]);
    assert_eq!(registered.properties.text("capabilities"), Some("boot_mode:uefi"));

    let inspected = bring(site, &machine, Wish::Inspected { after: None }).await;
    let first = inspected.inspection_finished_at.unwrap();
    let again = bring(site, &machine, Wish::Inspected { after: Some(first) }).await;
    assert!(again.inspection_finished_at.unwrap() > first);

    let available = bring(site, &machine, Wish::Available).await;
    assert_eq!(available.provision_state, ProvisionState::Available);

    let mut deployment = deployment();
    let meta_data = Map::from_iter([("name".to_owned(), json!("node-1"))]);
    deployment.config_drive =
        Some(ConfigDrive { meta_data, user_data: Some(Secret::new("#!/bin/sh")), network_data: None });
    let active = bring(site, &machine, deployed(&deployment)).await;
    assert_eq!(active.instance(), Some(deployment.instance_uuid));
    let (_, way) = reach(site, &task(&machine, deployed(&deployment))).await.unwrap();
    assert!(way.acted.is_empty(), "what is reached is left alone: {way:?}");

    let released = bring(site, &machine, Wish::Released).await;
    assert_eq!((released.provision_state, released.instance_uuid), (ProvisionState::Available, None));

    let (gone, _) = reach(site, &task(&machine, Wish::Removed { force: false })).await.unwrap();
    assert!(gone.is_none());
    assert!(site.client().node(&machine.uuid.to_string()).await.unwrap().is_none());
}

/// One `active` for one instance, and a node that is torn down by others is not deployed again.
pub(crate) async fn an_instance_is_deployed_once(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Available).await;
    let deployment = deployment();
    let (node, way) = reach(site, &task(&machine, deployed(&deployment))).await.unwrap();
    assert_eq!(way.acted.iter().filter(|action| *action == "provision: active").count(), 1, "{way:?}");

    let node = node.unwrap().uuid;
    site.client().provision(node, &Provision::Deleted).await.unwrap();
    until(site, node, |node| node.provision_state == ProvisionState::Available).await;
    let error = reach(site, &task(&machine, deployed(&deployment))).await.unwrap_err();
    assert_eq!(error.code(), "ironic.instance-spent");

    bring(site, &machine, deployed(&crate::site::deployment())).await;
}

/// An older instance of ours makes way.
pub(crate) async fn another_instance_takes_the_place_of_an_older_one(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Available).await;
    let (old, new) = (deployment(), deployment());
    bring(site, &machine, deployed(&old)).await;
    let active = bring(site, &machine, deployed(&new)).await;
    assert_eq!(active.instance(), Some(new.instance_uuid));
}

/// What others deployed stays.
pub(crate) async fn a_foreign_instance_is_refused(site: &Site) {
    let machine = machine();
    let node = bring(site, &machine, Wish::Available).await.uuid;
    let foreign = Uuid::new_v4().to_string();
    site.client().patch_node(node, &Patch::new().set(&["instance_uuid"], foreign.clone())).await.unwrap();
    for wish in [Wish::Available, Wish::Released, deployed(&deployment()), Wish::Removed { force: true }] {
        let error = reach(site, &task(&machine, wish)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Refused(Refusal::InstanceForeign { found: Some(found) }) if *found == foreign),
            "{error:?}"
        );
    }
    let on_another = bring(site, &self::machine(), Wish::Available).await.uuid;
    let error = site
        .client()
        .patch_node(on_another, &Patch::new().set(&["instance_uuid"], foreign))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "ironic.instance-associated");
}

/// A node that was deleted with our instance on it is not made again.
pub(crate) async fn a_node_deleted_behind_our_back_is_told(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Available).await;
    let deployment = deployment();
    let node = bring(site, &machine, deployed(&deployment)).await.uuid;
    let client = site.client();
    client.begin_maintenance(node, "by hand").await.unwrap();
    client.delete_node(node).await.unwrap();
    let error = reach(site, &task(&machine, deployed(&deployment))).await.unwrap_err();
    assert_eq!(error.code(), "ironic.node-gone");
    client.delete_node(node).await.unwrap();
}

/// A node that somebody made is found by each of its marks, taken over, and not made twice.
pub(crate) async fn a_node_that_exists_is_taken_over(site: &Site) {
    let client = site.client();
    for found_by in ["name", "mac", "address"] {
        let ours = with_address(machine());
        let mut theirs = ours.clone();
        theirs.uuid = Uuid::new_v4();
        if found_by != "name" {
            theirs.name = format!("theirs-{}", theirs.uuid.simple());
        }
        client.create_node(&theirs.new_node()).await.unwrap();
        // As people make nodes: without our marks.
        client.patch_node(theirs.uuid, &Patch::new().remove(&["extra", "bailiwick"])).await.unwrap();
        if found_by != "address" {
            client
                .patch_node(theirs.uuid, &Patch::new().remove(&["driver_info", "redfish_address"]))
                .await
                .unwrap();
        }
        if found_by == "mac" {
            client.create_port(theirs.uuid, &ours.macs[0], true).await.unwrap();
        }
        let found = find::find(&client, &Identity::of(&ours), &Directory::default()).await.unwrap();
        assert!(matches!(&found, Found::Existing(node) if node.uuid == theirs.uuid), "{found_by}: {found:?}");

        // Everything but verifying the BMC, which is not there.
        let directory = Directory::default();
        let node = loop {
            let node = client.node(&theirs.uuid.to_string()).await.unwrap().unwrap();
            let ports = client.ports_of(node.uuid).await.unwrap();
            if Marks::of(&node).is_some() && ports.len() == 1 && !node.traits.is_empty() {
                break node;
            }
            if let Err(error) = step(&client, &directory, &task(&ours, Wish::Registered)).await {
                assert!(sqlite_is_busy(&error), "{error}");
            }
        };
        assert_eq!(node.name.as_deref(), Some(ours.name.as_str()));
        let found = find::find(&client, &Identity::of(&ours), &Directory::default()).await.unwrap();
        assert!(matches!(found, Found::Ours(node) if node.uuid == theirs.uuid));
        assert!(client.node(&ours.uuid.to_string()).await.unwrap().is_none());
    }
}

/// A registration with an address that no BMC has.
fn with_address(mut machine: Registration) -> Registration {
    let address = format!("https://{}.invalid", machine.name);
    machine.bmc = Bmc::Other {
        driver: "fake-hardware".to_owned(),
        info: Map::from_iter([("redfish_address".to_owned(), json!(address))]),
    };
    machine
}

/// Nobody guesses between two.
pub(crate) async fn two_nodes_that_look_like_one_machine_are_refused(site: &Site) {
    let client = site.client();
    let ours = machine();
    for (name, mac) in [(ours.name.clone(), None), (format!("x-{}", ours.uuid.simple()), Some(&ours.macs[0]))]
    {
        let other = Registration { uuid: Uuid::new_v4(), name, ..ours.clone() };
        client.create_node(&other.new_node()).await.unwrap();
        if let Some(mac) = mac {
            client.create_port(other.uuid, mac, true).await.unwrap();
        }
    }
    let error = reach(site, &task(&ours, Wish::Registered)).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.node-ambiguous", false));
}

/// One BMC is found in the spelling that somebody else used.
pub(crate) async fn a_bmc_is_found_in_every_spelling(site: &Site) {
    let client = site.client();
    let theirs = with_address(machine());
    client.create_node(&theirs.new_node()).await.unwrap();
    let spelling = format!("{}.INVALID:443/", theirs.name.to_uppercase());
    let identity = Identity {
        uuid: Uuid::new_v4(),
        name: format!("y-{}", theirs.uuid.simple()),
        macs: Vec::new(),
        bmc: BmcPlace::redfish(&spelling, None),
        cell: "eu".to_owned(),
        machine: "another".to_owned(),
    };
    let found = find::find(&client, &identity, &Directory::default()).await.unwrap();
    assert!(matches!(&found, Found::Existing(node) if node.uuid == theirs.uuid), "{found:?}");
    // It is another machine's, so it is not taken.
    let ours = Registration { machine: "another".to_owned(), ..theirs };
    let error = reach(site, &task(&ours, Wish::Registered)).await.unwrap_err();
    assert_eq!(error.code(), "ironic.owned-elsewhere");
}

/// What Ironic refuses has the code that says why.
pub(crate) async fn refusals_are_told_apart(site: &Site) {
    let client = site.client();
    let machine = machine();
    let node = client.create_node(&machine.new_node()).await.unwrap().uuid;
    let code = |error: Error| error.code();

    assert_eq!(code(client.create_node(&machine.new_node()).await.unwrap_err()), "ironic.duplicate");
    client.create_port(node, &machine.macs[0], true).await.unwrap();
    assert_eq!(code(client.create_port(node, &machine.macs[0], true).await.unwrap_err()), "ironic.duplicate");
    let active = Provision::Active { config_drive: None };
    assert_eq!(code(client.provision(node, &active).await.unwrap_err()), "ironic.invalid-state");
    let nowhere = Uuid::new_v4();
    assert_eq!(code(client.provision(nowhere, &active).await.unwrap_err()), "ironic.not-found");
    assert_eq!(
        code(client.patch_node(node, &Patch::new().set(&["no_such_field"], 1)).await.unwrap_err()),
        "ironic.invalid-request"
    );
    assert_eq!(
        code(client.patch_node(node, &Patch::new().remove(&["extra", "nothing"])).await.unwrap_err()),
        "ironic.invalid-request"
    );
    assert!(client.node("no-such-node").await.unwrap().is_none());
    assert!(client.inventory(node).await.unwrap().is_none());
    assert!(client.history(node).await.unwrap().is_empty());
}

/// Maintenance stops us, and its end lets us go on.
pub(crate) async fn maintenance_is_waited_out(site: &Site) {
    let machine = machine();
    let node = bring(site, &machine, Wish::Registered).await.uuid;
    site.client().begin_maintenance(node, "a disk is changed").await.unwrap();
    let error = reach(site, &task(&machine, Wish::Available)).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.maintenance", true));
    assert!(error.to_string().contains("a disk is changed"));
    site.client().end_maintenance(node).await.unwrap();
    bring(site, &machine, Wish::Available).await;
}

/// Also in maintenance and with an instance, if it must be.
pub(crate) async fn a_node_is_removed_by_force(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Available).await;
    bring(site, &machine, deployed(&deployment())).await;
    let error = reach(site, &task(&machine, Wish::Removed { force: false })).await.unwrap_err();
    assert_eq!(error.code(), "ironic.in-use");
    let (gone, way) = reach(site, &task(&machine, Wish::Removed { force: true })).await.unwrap();
    assert!(gone.is_none(), "{way:?}");
}

/// A cleaning that was asked for runs once for one request, and is seen.
pub(crate) async fn a_cleaning_that_is_asked_for_runs_once(site: &Site) {
    let machine = machine();
    let steps = vec![Step::new("bios", "factory_reset")];
    bring(site, &machine, Wish::Registered).await;
    let wish = Wish::Cleaned { request: Uuid::new_v4(), steps: steps.clone() };
    let (cleaned, first) = reach(site, &task(&machine, wish.clone())).await.unwrap();
    let mut watch = Watch::default();
    first.nodes.iter().chain(cleaned.as_deref()).for_each(|node| watch.note(node));
    let history = site.client().history(machine.uuid).await.unwrap();
    assert_eq!(erasure::record(&watch, None, &history).steps, ["bios.factory_reset"]);
    assert_eq!(first.acted.last().map(String::as_str), Some("provision: clean"));
    let (_, second) = reach(site, &task(&machine, wish)).await.unwrap();
    assert!(second.acted.is_empty(), "{second:?}");
    let another = Wish::Cleaned { request: Uuid::new_v4(), steps };
    let (_, third) = reach(site, &task(&machine, another)).await.unwrap();
    assert_eq!(third.acted.last().map(String::as_str), Some("provision: clean"));
}

/// A step that does not exist fails; each failure is told once, also to a caller that allows every try.
pub(crate) async fn a_cleaning_that_fails_is_told_and_repeated_on_demand(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Registered).await;
    let wish = |interface: &str, step: &str| Wish::Cleaned {
        request: Uuid::new_v4(),
        steps: vec![Step::new(interface, step)],
    };
    let mut hopeless = task(&machine, wish("deploy", "no_such_step"));
    for retry in [false, true, true] {
        hopeless.retry = retry;
        let error = reach(site, &hopeless).await.unwrap_err();
        assert_eq!((error.code(), error.is_passing()), ("ironic.clean-failed", true));
    }
    let node = site.client().node(&machine.uuid.to_string()).await.unwrap().unwrap();
    assert_eq!(node.provision_state, ProvisionState::CleanFailed);

    let mut again = task(&machine, wish("bios", "factory_reset"));
    again.retry = true;
    let (node, _) = reach(site, &again).await.unwrap();
    assert_eq!(node.unwrap().provision_state, ProvisionState::Manageable);
}

/// A node that cannot be deployed is told before it is tried.
pub(crate) async fn a_deployment_that_cannot_work_is_refused_before_it_begins(site: &Site) {
    let machine = machine();
    bring(site, &machine, Wish::Available).await;
    let mut deployment = deployment();
    deployment.kind = DeployKind::Ramdisk { boot_iso: "http://127.0.0.1:1/live.iso".to_owned() };
    let error = reach(site, &task(&machine, deployed(&deployment))).await.unwrap_err();
    assert!(!error.is_passing(), "{error:?}");
    let node = site.client().node(&machine.uuid.to_string()).await.unwrap().unwrap();
    assert_eq!(node.provision_state, ProvisionState::Available);
}

/// Lists come whole, page by page, each member once.
pub(crate) async fn lists_are_whole(site: &Site) {
    let client = site.client_with(Options { page: 2, ..Options::default() });
    let mut made = BTreeSet::new();
    for _ in 0..5 {
        made.insert(client.create_node(&machine().new_node()).await.unwrap().uuid);
    }
    for fields in [None, Some(vec!["name", "driver_info"])] {
        let query = NodeQuery { fields, driver: Some("fake-hardware".to_owned()), owner: None };
        let nodes = client.nodes(&query).await.unwrap();
        let found: BTreeSet<Uuid> = nodes.iter().map(|node| node.uuid).collect();
        assert_eq!(found.len(), nodes.len());
        assert!(found.is_superset(&made));
    }
}

/// Power goes where it is told.
pub(crate) async fn power_follows(site: &Site) {
    let client = site.client();
    let node = bring(site, &machine(), Wish::Registered).await.uuid;
    for (power, state) in
        [(Power::On, PowerState::On), (Power::Off, PowerState::Off), (Power::Reboot, PowerState::On)]
    {
        client.power(node, power, None).await.unwrap();
        until(site, node, |node| {
            node.power_state.as_ref() == Some(&state)
                && node.target_power_state.is_none()
                && node.reservation.is_none()
        })
        .await;
    }
}

/// What is registered otherwise is brought in line, and what others set stays.
pub(crate) async fn a_changed_registration_is_brought_in_line(site: &Site) {
    let client = site.client();
    let mut machine = machine();
    let node = bring(site, &machine, Wish::Available).await.uuid;
    client.patch_node(node, &Patch::new().set(&["extra", "theirs"], 1)).await.unwrap();
    "v2".clone_into(&mut machine.credentials);
    machine.traits = [bailiwick_ironic::Trait::bailiwick(&["jurisdiction", "de"])].into();
    machine.automated_clean = AutomatedClean::Set(Some(true));
    let node = bring(site, &machine, Wish::Registered).await;
    assert_eq!(node.traits, ["CUSTOM_BAILIWICK_JURISDICTION_DE"]);
    assert_eq!(node.automated_clean, Some(true));
    assert_eq!(node.extra.get("theirs"), Some(&json!(1)));
    assert_eq!(Marks::of(&node).unwrap().credentials, "v2");
}
