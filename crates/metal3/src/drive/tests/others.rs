//! What other hands do to a host.

use super::*;

#[test]
fn a_machine_that_runs_something_else_is_never_overwritten() {
    let (mut model, registration) = reached(&provisioned("d1"));
    for wish in [Wish::Available, Wish::Offered, Wish::ExternallyProvisioned, provisioned("d2")] {
        let refused = settle(&mut model, &registration, &wish);
        assert_eq!(code(&refused), ("metal3.deployed", Some(Persistence::Lasting)), "{wish}");
    }
    assert_eq!(state(&model), ProvisioningState::Provisioned);
}

#[test]
fn an_edit_by_hand_is_told_with_its_author_and_never_overruled() {
    for (patch, field) in [
        (json!({ "spec": { "online": false } }), "spec.online"),
        (json!({ "spec": { "image": { "url": "https://evil.example/x.raw" } } }), "spec.image.url"),
        (
            json!({ "spec": { "bmc": { "address": "redfish://10.9.9.9/redfish/v1/Systems/1" } } }),
            "spec.bmc.address",
        ),
        (
            json!({ "metadata": { "labels": { "bailiwick.dev/jurisdiction": "us" } } }),
            "metadata.labels.bailiwick.dev/jurisdiction",
        ),
        (
            json!({ "spec": { "consumerRef": { "kind": "Machine", "apiVersion": "bailiwick.dev/v1alpha1", "name": "m1", "uid": "x" } } }),
            "spec.consumerRef",
        ),
    ] {
        let (mut model, registration) = reached(&provisioned("d1"));
        model.edit("m1", "kubectl-edit", &patch);
        let Next::Refuse { problem, persistence } = settle(&mut model, &registration, &provisioned("d1"))
        else {
            panic!("{patch}");
        };
        assert_eq!(
            (problem.code.as_str(), persistence),
            ("metal3.edited-by-hand", Persistence::Lasting),
            "{patch}"
        );
        assert!(problem.message.contains("kubectl-edit") && problem.message.contains(field), "{problem}");
        assert!(problem.found.is_some() && problem.expected.is_some());
    }
}

#[test]
fn an_edit_taken_back_is_forgotten() {
    let (mut model, registration) = reached(&provisioned("d1"));
    model.edit("m1", "kubectl-edit", &json!({ "spec": { "online": false } }));
    assert_eq!(code(&settle(&mut model, &registration, &provisioned("d1"))).0, "metal3.edited-by-hand");
    model.edit("m1", "kubectl-edit", &json!({ "spec": { "online": true } }));
    assert_eq!(settle(&mut model, &registration, &provisioned("d1")), Next::Reached);
}

#[test]
fn an_image_taken_off_by_hand_is_not_put_on_again() {
    let (mut model, registration) = reached(&provisioned("d1"));
    model.edit("m1", "kubectl-patch", &json!({ "spec": { "image": null } }));
    for _ in 0..4 {
        let refused = write_all(&mut model, &registration, &provisioned("d1"));
        assert_eq!(code(&refused), ("metal3.edited-by-hand", Some(Persistence::Lasting)));
        model.operate("m1");
    }
    assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
}

#[test]
fn an_image_put_on_by_hand_is_told() {
    let (mut model, registration) = reached(&Wish::Available);
    model.edit(
        "m1",
        "kubectl-patch",
        &json!({ "spec": { "image": { "url": "http://x/y.iso", "format": "live-iso" } } }),
    );
    assert_eq!(code(&settle(&mut model, &registration, &Wish::Available)).0, "metal3.deployed");
    let refused = settle(&mut model, &registration, &Wish::Released);
    assert_eq!(code(&refused), ("metal3.edited-by-hand", Some(Persistence::Lasting)));
}

#[test]
fn a_secret_changed_by_hand_is_left_as_it_is() {
    let (mut model, registration) = reached(&Wish::Available);
    model.secret_changed_by("m1-bmc", "kubectl-edit", "password", "b3RoZXI=");
    let Next::Refuse { problem, .. } = settle(&mut model, &registration, &Wish::Available) else { panic!() };
    assert_eq!(problem.code, "metal3.edited-by-hand");
    assert!(problem.message.contains("Secret/m1-bmc") && !problem.to_string().contains("other"), "{problem}");
}

#[test]
fn a_host_paused_or_detached_by_others_is_left_alone() {
    for (annotation, expected) in
        [(crate::ANNOTATION_PAUSED, "metal3.paused"), (crate::ANNOTATION_DETACHED, "metal3.detached")]
    {
        for wish in [Wish::Available, Wish::Removed, provisioned("d1")] {
            let (mut model, registration) = reached(&Wish::Available);
            model.edit(
                "m1",
                "kubectl-annotate",
                &json!({ "metadata": { "annotations": { annotation: "" } } }),
            );
            let refused = settle(&mut model, &registration, &wish);
            assert_eq!(code(&refused), (expected, Some(Persistence::Lasting)));
            if (annotation, &wish) == (crate::ANNOTATION_DETACHED, &Wish::Removed) {
                continue;
            }
            let ours = json!({ "metadata": { "annotations": { annotation: crate::HELD_BY_US } } });
            model.edit("m1", crate::MANAGER, &ours);
            assert_eq!(
                code(&settle(&mut model, &registration, &wish)),
                (expected, Some(Persistence::Passing))
            );
        }
    }
}

#[test]
fn a_host_that_we_detached_ourselves_can_be_removed() {
    let (mut model, registration) = reached(&provisioned("d1"));
    let ours = json!({ "metadata": { "annotations": { crate::ANNOTATION_DETACHED: crate::HELD_BY_US } } });
    model.edit("m1", crate::MANAGER, &ours);
    assert_eq!(settle(&mut model, &registration, &Wish::Removed), Next::Reached);
}

#[test]
fn a_host_that_we_detached_ourselves_is_told_its_new_password_before_it_is_let_go() {
    let (mut model, mut registration) = reached(&Wish::Available);
    let ours = json!({ "metadata": { "annotations": { crate::ANNOTATION_DETACHED: crate::HELD_BY_US } } });
    model.edit("m1", crate::MANAGER, &ours);
    let step = |model: &Model, registration: &Registration| {
        next(registration, &Wish::Available, &model.snapshot(registration))
    };
    assert_eq!(code(&step(&model, &registration)), ("metal3.detached", Some(Persistence::Passing)));
    registration.credentials =
        Some(Credentials { username: "bw-provisioner".into(), password: SecretText::new("n3w") });
    let next = step(&model, &registration);
    assert!(matches!(&next, Next::Apply(Object::Secret(_))), "{next:?}");
}

#[test]
fn a_host_that_cluster_api_uses_is_left_to_it() {
    let (mut model, registration) = reached(&Wish::Offered);
    model.edit("m1", "capm3", &json!({ "spec": {
        "online": true, "image": { "url": "http://x/y.raw" },
        "consumerRef": { "kind": "Metal3Machine", "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "name": "w-1" },
    } }));
    for _ in 0..4 {
        assert_eq!(write_all(&mut model, &registration, &Wish::Offered), Next::Reached);
        for wish in
            [Wish::Available, provisioned("d1"), Wish::Released, Wish::Removed, Wish::ExternallyProvisioned]
        {
            let refused = settle(&mut model, &registration, &wish);
            assert_eq!(code(&refused), ("metal3.consumed", Some(Persistence::Lasting)), "{wish}");
        }
        model.operate("m1");
    }
    let host = model.host("m1").unwrap();
    assert!(host.spec.online && host.spec.has_deployment());
}

#[test]
fn an_edit_that_was_taken_back_binds_nobody() {
    let (mut model, registration) = reached(&provisioned("d1"));
    let image = model.host("m1").unwrap().raw["spec"]["image"].clone();
    let edits = [
        json!({ "online": false, "image": { "url": "https://x/y.raw" } }),
        json!({ "online": true, "image": image }),
    ];
    for (edit, ends) in edits.into_iter().zip(["metal3.edited-by-hand", "reached"]) {
        model.edit("m1", "kubectl-edit", &json!({ "spec": edit }));
        let end = settle(&mut model, &registration, &provisioned("d1"));
        let end = if end == Next::Reached { "reached" } else { code(&end).0 };
        assert_eq!(end, ends);
    }
    assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
    assert!(!model.host("m1").unwrap().spec.has_deployment());
}

#[test]
fn a_host_deleted_behind_our_back_is_told_and_not_made_anew() {
    let (mut model, mut registration) = reached(&provisioned("d1"));
    registration.known_uid = Some(model.host("m1").unwrap().uid);
    model.set("m1", "/metadata/deletionTimestamp", json!(model.now.to_string()));
    let refused = write_all(&mut model, &registration, &provisioned("d1"));
    assert_eq!(code(&refused), ("metal3.being-deleted", Some(Persistence::Passing)));
    while !model.host_names().is_empty() {
        model.operate("m1");
    }
    for wish in [provisioned("d1"), Wish::Available, Wish::Released, Wish::Registered] {
        let refused = settle(&mut model, &registration, &wish);
        assert_eq!(code(&refused), ("metal3.host-gone", Some(Persistence::Lasting)), "{wish}");
    }
    assert_eq!(settle(&mut model, &registration, &Wish::Removed), Next::Reached);
    registration.known_uid = None;
    registration.expected = true;
    let refused = settle(&mut model, &registration, &provisioned("d1"));
    assert_eq!(code(&refused), ("metal3.host-gone", Some(Persistence::Lasting)));
    registration.expected = false;
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    registration.known_uid = Some("another".into());
    assert_eq!(code(&settle(&mut model, &registration, &Wish::Available)).0, "metal3.host-gone");
}

#[test]
fn an_externally_provisioned_host_stays_so() {
    let (mut model, registration) = reached(&Wish::ExternallyProvisioned);
    for wish in [Wish::Available, Wish::Released, provisioned("d1")] {
        let refused = settle(&mut model, &registration, &wish);
        assert_eq!(code(&refused), ("metal3.externally-provisioned", Some(Persistence::Lasting)));
    }
    assert_eq!(settle(&mut model, &registration, &Wish::Removed), Next::Reached);
}
