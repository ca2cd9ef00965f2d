use super::model::Model;
use super::*;
use crate::desired::bmc_secret;
use crate::registration::tests::{deployment, name, registration};
use crate::registration::{Cleaning, Inspection};
use crate::secret::{Credentials, SecretText};
use crate::states::{ErrorType, OperationalStatus, ProvisioningState};
use crate::{CODES, KIND_HOST};
use proptest::prelude::*;
use serde_json::json;

/// More steps than any wish needs.
const PATIENCE: usize = 60;

/// Lets drive and operator take turns until nothing is written and nothing moves any more.
fn settle(model: &mut Model, registration: &Registration, wish: &Wish) -> Next {
    for _ in 0..PATIENCE {
        let next = next(registration, wish, &model.snapshot(registration));
        if model.carry_out(&next) {
            continue;
        }
        match next {
            Next::Wait(_) => {
                for host in model.host_names().iter().map(|name| (*name).to_owned()).collect::<Vec<_>>() {
                    model.operate(&host);
                }
            }
            end => return end,
        }
    }
    panic!("{wish} is never settled");
}

/// Writes until there is nothing to write, without the operator.
fn write_all(model: &mut Model, registration: &Registration, wish: &Wish) -> Next {
    for _ in 0..12 {
        let next = next(registration, wish, &model.snapshot(registration));
        if !model.carry_out(&next) {
            return next;
        }
    }
    panic!("{wish} is written for ever");
}

fn reached(wish: &Wish) -> (Model, Registration) {
    let (mut model, registration) = (Model::new(), registration());
    assert_eq!(settle(&mut model, &registration, wish), Next::Reached, "{wish}");
    (model, registration)
}

fn code(next: &Next) -> (&str, Option<Persistence>) {
    match next {
        Next::Refuse { problem, persistence } => (&problem.code, Some(*persistence)),
        Next::Wait(wait) => (&wait.problem.code, None),
        other => panic!("{other:?}"),
    }
}

fn provisioned(id: &str) -> Wish {
    Wish::Provisioned(deployment(id))
}

fn state(model: &Model) -> ProvisioningState {
    model.host("m1").unwrap().state().clone()
}

mod the_usual_way {
    use super::*;

    #[test]
    fn a_machine_goes_to_provisioned_and_back_to_the_shelf_and_away() {
        let (mut model, registration) = reached(&Wish::Available);
        assert!(!model.host("m1").unwrap().spec.online, "an idle machine is off");
        assert_eq!(settle(&mut model, &registration, &provisioned("d1")), Next::Reached);
        let host = model.host("m1").unwrap();
        assert_eq!(host.state(), &ProvisioningState::Provisioned);
        assert!(host.status.powered_on);
        assert_eq!(model.secret_names(), ["m1-bmc", "m1-user-data"]);
        assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
        assert_eq!(state(&model), ProvisioningState::Available);
        assert_eq!(model.secret_names(), ["m1-bmc"], "user data does not outlive its use");
        assert_eq!(settle(&mut model, &registration, &provisioned("d2")), Next::Reached);
        assert_eq!(settle(&mut model, &registration, &Wish::Removed), Next::Reached);
        assert!(
            model.host_names().is_empty() && model.secret_names().iter().all(|name| !name.ends_with("bmc"))
        );
    }

    #[test]
    fn a_wish_reached_is_reached_without_another_write() {
        for wish in [
            Wish::Registered,
            Wish::Inspected,
            Wish::Available,
            Wish::Offered,
            provisioned("d1"),
            Wish::ExternallyProvisioned,
            Wish::Released,
        ] {
            let (mut model, registration) = reached(&wish);
            assert_eq!(write_all(&mut model, &registration, &wish), Next::Reached, "{wish}");
            let before = model.host("m1").unwrap().resource_version;
            assert_eq!(next(&registration, &wish, &model.snapshot(&registration)), Next::Reached);
            assert_eq!(model.host("m1").unwrap().resource_version, before);
        }
    }

    #[test]
    fn the_secret_is_there_before_the_host_and_user_data_before_the_image() {
        let (mut model, registration) = (Model::new(), registration());
        let first = next(&registration, &Wish::Available, &model.snapshot(&registration));
        assert!(matches!(&first, Next::Apply(Object::Secret(secret)) if secret.name == "m1-bmc"));
        assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
        let first = next(&registration, &provisioned("d1"), &model.snapshot(&registration));
        assert!(matches!(&first, Next::Apply(Object::Secret(secret)) if secret.name == "m1-user-data"));
    }

    #[test]
    fn wishing_less_than_there_is_takes_nothing_off_the_machine() {
        let (mut model, registration) = reached(&provisioned("d1"));
        for wish in [Wish::Registered, Wish::Inspected] {
            assert_eq!(settle(&mut model, &registration, &wish), Next::Reached);
            let host = model.host("m1").unwrap();
            assert!(host.spec.has_deployment() && host.spec.online, "{wish}");
            assert_eq!(host.state(), &ProvisioningState::Provisioned);
        }
    }

    #[test]
    fn a_running_machine_is_switched_off_and_on_by_a_wish_and_keeps_what_it_was_given() {
        let (mut model, registration) = (Model::new(), registration());
        let off = Wish::Provisioned(crate::Deployment { power: crate::Power::Off, ..deployment("d1") });
        for (wish, on) in [(off.clone(), false), (provisioned("d1"), true), (off, false)] {
            assert_eq!(settle(&mut model, &registration, &wish), Next::Reached);
            let host = model.host("m1").unwrap();
            assert_eq!((host.status.powered_on, host.spec.has_deployment()), (on, true));
            assert_eq!(host.state(), &ProvisioningState::Provisioned);
        }
    }

    #[test]
    fn a_host_that_was_never_inspected_is_inspected_when_asked() {
        let (mut model, mut registration) = (Model::new(), registration());
        registration.inspection = Inspection::Disabled;
        assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
        assert_eq!(code(&settle(&mut model, &registration, &Wish::Inspected)).0, "metal3.not-inspected");
        registration.inspection = Inspection::Agent;
        assert_eq!(settle(&mut model, &registration, &Wish::Inspected), Next::Reached);
        assert!(model.hardware.is_some());
    }

    #[test]
    fn an_idle_host_is_marked_as_the_cells_unless_it_is_offered() {
        let (mut model, registration) = reached(&Wish::Available);
        assert_eq!(model.host("m1").unwrap().spec.consumer_ref.unwrap().kind, "Machine");
        assert_eq!(settle(&mut model, &registration, &Wish::Offered), Next::Reached);
        assert_eq!(model.host("m1").unwrap().spec.consumer_ref, None);
    }
}

mod others {
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
        let Next::Refuse { problem, .. } = settle(&mut model, &registration, &Wish::Available) else {
            panic!()
        };
        assert_eq!(problem.code, "metal3.edited-by-hand");
        assert!(
            problem.message.contains("Secret/m1-bmc") && !problem.to_string().contains("other"),
            "{problem}"
        );
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
        let ours =
            json!({ "metadata": { "annotations": { crate::ANNOTATION_DETACHED: crate::HELD_BY_US } } });
        model.edit("m1", crate::MANAGER, &ours);
        assert_eq!(settle(&mut model, &registration, &Wish::Removed), Next::Reached);
    }

    #[test]
    fn a_host_that_we_detached_ourselves_is_told_its_new_password_before_it_is_let_go() {
        let (mut model, mut registration) = reached(&Wish::Available);
        let ours =
            json!({ "metadata": { "annotations": { crate::ANNOTATION_DETACHED: crate::HELD_BY_US } } });
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
            for wish in [
                Wish::Available,
                provisioned("d1"),
                Wish::Released,
                Wish::Removed,
                Wish::ExternallyProvisioned,
            ] {
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
}

mod takeover {
    use super::*;

    fn existing(name: &str, address: &str) -> Model {
        let mut model = Model::new();
        model.edit(name, "kubectl-create", &json!({ "spec": {
            "online": true, "bootMACAddress": "02:00:5E:00:00:01", "bootMode": "legacy", "automatedCleaningMode": "disabled",
            "bmc": { "address": address, "credentialsName": "theirs", "disableCertificateVerification": true },
        } }));
        model.pass(3600);
        model
    }

    #[test]
    fn a_host_of_another_name_is_taken_over_and_never_doubled() {
        for address in ["redfish://10.0.0.1/redfish/v1/Systems/1", "ipmi://10.0.0.1"] {
            let (mut model, registration) = (existing("rack-1-unit-4", address), registration());
            for wish in [Wish::Available, provisioned("d1"), Wish::Released] {
                assert_eq!(settle(&mut model, &registration, &wish), Next::Reached, "{wish}");
                assert_eq!(model.host_names(), ["rack-1-unit-4"]);
            }
            let host = model.host("rack-1-unit-4").unwrap();
            assert_eq!(host.labels[crate::LABEL_MACHINE], "m1");
            assert_eq!(host.spec.bmc.address, address, "how its BMC is reached is left as it was");
            assert_eq!(host.spec.boot_mode, "legacy");
            assert_eq!(
                host.spec.automated_cleaning_mode, "metadata",
                "that disks are cleaned is the cell's to say"
            );
        }
    }

    #[test]
    fn without_an_account_of_ours_a_host_keeps_its_own() {
        let (mut model, mut registration) =
            (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
        registration.credentials = None;
        assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
        assert_eq!(model.host("old").unwrap().spec.bmc.credentials_name, "theirs");
        assert!(model.secret_names().is_empty());
    }

    #[test]
    fn with_an_account_of_ours_it_gets_that() {
        let (mut model, registration) =
            (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
        assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
        assert_eq!(model.host("old").unwrap().spec.bmc.credentials_name, bmc_secret("old"));
    }

    #[test]
    fn an_edit_after_the_takeover_is_an_edit_by_hand() {
        let (mut model, registration) =
            (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
        assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
        model.edit("old", "kubectl-edit", &json!({ "spec": { "automatedCleaningMode": "disabled" } }));
        assert_eq!(code(&settle(&mut model, &registration, &Wish::Available)).0, "metal3.edited-by-hand");
    }

    #[test]
    fn a_running_host_is_taken_over_running_and_can_be_released() {
        let (mut model, registration) =
            (existing("old", "redfish://10.0.0.1/redfish/v1/Systems/1"), registration());
        model.edit(
            "old",
            "kubectl-create",
            &json!({ "spec": { "image": { "url": "http://x/y.raw", "checksum": "1" } } }),
        );
        for _ in 0..8 {
            model.operate("old");
        }
        assert_eq!(settle(&mut model, &registration, &Wish::Registered), Next::Reached);
        assert_eq!(code(&settle(&mut model, &registration, &provisioned("d1"))).0, "metal3.deployed");
        assert_eq!(model.host("old").unwrap().state(), &ProvisioningState::Provisioned);
        assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
        assert!(!model.host("old").unwrap().spec.has_deployment());
    }

    #[test]
    fn two_hosts_of_one_machine_are_refused() {
        let mut model = existing("a", "redfish://10.0.0.1/redfish/v1/Systems/1");
        model.edit("b", "x", &json!({ "spec": { "bootMACAddress": "02:00:5e:00:00:01" } }));
        let hosts: Vec<_> = model.host_names().into_iter().filter_map(|name| model.host(name)).collect();
        let problem = find(&registration(), &hosts).unwrap_err();
        assert_eq!((problem.code.as_str(), problem.found.as_deref()), ("metal3.ambiguous", Some("a, b")));
    }

    #[test]
    fn another_machines_host_and_another_cells_are_refused() {
        let (mut model, registration) = (Model::new(), registration());
        model.edit(
            "m1",
            "x",
            &json!({ "spec": { "bmc": { "address": "redfish://10.0.0.9/redfish/v1/Systems/1" } } }),
        );
        let taken = find(&registration, &[model.host("m1").unwrap()]).unwrap_err();
        assert_eq!(taken.code, "metal3.name-taken");
        let labels =
            json!({ "metadata": { "labels": { crate::LABEL_OWNER: "cell-2", crate::LABEL_MACHINE: "m1" } } });
        model.edit("m1", "bailiwick", &labels);
        let other = find(&registration, &[model.host("m1").unwrap()]).unwrap_err();
        assert_eq!((other.code.as_str(), other.found.as_deref()), ("metal3.other-cell", Some("cell-2")));
    }
}

mod trouble {
    use super::*;

    fn failed(kind: &str, message: &str, wish: &Wish) -> (Model, Registration, Next) {
        let (mut model, registration) = reached(&Wish::Available);
        write_all(&mut model, &registration, wish);
        model.set("m1", "/status/operationalStatus", json!("error"));
        model.set("m1", "/status/errorType", json!(kind));
        model.set("m1", "/status/errorMessage", json!(message));
        model.set("m1", "/status/errorCount", json!(3));
        let next = write_all(&mut model, &registration, wish);
        (model, registration, next)
    }

    #[test]
    fn every_kind_of_error_has_a_code_and_a_remedy() {
        for kind in ErrorType::KNOWN.iter().chain([&ErrorType::Other("cosmic ray".into())]) {
            let (_, _, next) = failed(kind.as_str(), "something broke", &provisioned("d1"));
            let Next::Refuse { problem, persistence } = next else { panic!("{kind}") };
            assert_eq!(persistence, Persistence::Passing, "the operator goes on trying");
            assert!(problem.code.ends_with("error") && problem.hint.is_some(), "{problem}");
            assert!(
                problem.message.contains("something broke") && problem.message.contains("3 times"),
                "{problem}"
            );
        }
    }

    #[test]
    fn an_error_that_does_not_concern_the_wish_does_not_stop_it() {
        let (_, _, next) = failed("provisioning error", "", &Wish::Registered);
        assert_eq!(next, Next::Reached);
        let (_, _, next) = failed("registration error", "", &Wish::Registered);
        assert_eq!(code(&next).0, "metal3.registration-error");
    }

    #[test]
    fn refused_credentials_last_until_the_secret_is_corrected() {
        let said = "HTTP GET https://10.0.0.1/ returned code HTTP 401. pl4nted Unauthorized";
        let (mut model, mut registration, next) = failed("registration error", said, &Wish::Available);
        let Next::Refuse { problem, persistence } = next else { panic!() };
        assert_eq!(
            (problem.code.as_str(), persistence),
            ("metal3.credentials-refused", Persistence::Lasting)
        );
        assert!(!problem.to_string().contains("pl4nted"), "{problem}");
        let version = model.snapshot(&registration).secrets["m1-bmc"].resource_version.clone();
        model.set("m1", "/status/triedCredentials/credentialsVersion", json!(version));
        assert_eq!(
            code(&write_all(&mut model, &registration, &Wish::Available)).0,
            "metal3.credentials-refused"
        );
        registration.credentials = registration.credentials.map(|credentials| crate::Credentials {
            password: crate::SecretText::new("right"),
            ..credentials
        });
        let next = write_all(&mut model, &registration, &Wish::Available);
        assert_eq!(next, Next::Reached, "the error is of the past");
    }

    #[test]
    fn a_long_message_is_cut() {
        let (_, _, next) = failed("power management error", &"ä".repeat(5000), &Wish::Available);
        let Next::Refuse { problem, .. } = next else { panic!() };
        assert!(problem.message.chars().count() < 800);
    }

    #[test]
    fn an_image_that_is_taken_off_again_by_the_operator_has_failed() {
        let (mut model, registration) = reached(&Wish::Available);
        write_all(&mut model, &registration, &provisioned("d1"));
        model.set("m1", "/status/provisioning/state", json!("deprovisioning"));
        let next = write_all(&mut model, &registration, &provisioned("d1"));
        assert_eq!(code(&next), ("metal3.provisioning-error", Some(Persistence::Passing)));
    }

    #[test]
    fn a_state_that_lasts_too_long_is_nudged_now_and_then_and_told() {
        let (mut model, registration) = reached(&Wish::Available);
        write_all(&mut model, &registration, &provisioned("d1"));
        model.operate("m1");
        assert_eq!(state(&model), ProvisioningState::Provisioning);
        assert_eq!(code(&write_all(&mut model, &registration, &provisioned("d1"))).0, "metal3.provisioning");
        let mut nudges = 0;
        for _ in 0..20 {
            model.pass(600);
            let first = next(&registration, &provisioned("d1"), &model.snapshot(&registration));
            nudges += usize::from(matches!(first, Next::Patch { .. }));
            write_all(&mut model, &registration, &provisioned("d1"));
        }
        let told = write_all(&mut model, &registration, &provisioned("d1"));
        assert_eq!(code(&told), ("metal3.stuck", Some(Persistence::Passing)));
        assert!((10..=16).contains(&nudges), "{nudges}");
        model.operate("m1");
        assert_eq!(settle(&mut model, &registration, &provisioned("d1")), Next::Reached);
    }

    #[test]
    fn a_host_that_rested_for_days_is_not_stuck_when_a_wish_begins() {
        let (mut model, registration) = reached(&Wish::Available);
        model.pass(7 * 24 * 3600);
        let next = write_all(&mut model, &registration, &provisioned("d1"));
        assert_eq!(code(&next).0, "metal3.provisioning");
    }

    #[test]
    fn a_namespace_without_an_operator_is_told() {
        let (mut model, registration) = (Model::new(), registration());
        assert_eq!(code(&write_all(&mut model, &registration, &Wish::Available)).0, "metal3.registering");
        model.pass(90);
        let next = write_all(&mut model, &registration, &Wish::Available);
        assert_eq!(code(&next), ("metal3.operator-silent", Some(Persistence::Passing)));
    }

    #[test]
    fn the_address_of_a_registered_host_is_not_changed() {
        let (mut model, mut registration) = reached(&Wish::Available);
        registration.address =
            crate::bmc_address(crate::Transport::Https, "10.0.0.2", "/redfish/v1/Systems/1").unwrap();
        let next = write_all(&mut model, &registration, &Wish::Available);
        assert_eq!(code(&next), ("metal3.address-fixed", Some(Persistence::Lasting)));
    }

    #[test]
    fn what_cannot_be_registered_is_refused_before_anything_is_written() {
        let no_account = Registration { credentials: None, ..registration() };
        let no_mac = Registration { boot_mac: None, inspection: Inspection::Disabled, ..registration() };
        for (registration, expected) in
            [(no_account, "metal3.no-credentials"), (no_mac, "metal3.registration-invalid")]
        {
            let mut model = Model::new();
            assert_eq!(code(&write_all(&mut model, &registration, &Wish::Available)).0, expected);
            assert!(model.host_names().is_empty() && model.secret_names().is_empty());
        }
    }

    #[test]
    fn a_host_that_was_detached_is_not_as_wished_before_it_is_back() {
        let (mut model, registration) = reached(&provisioned("d1"));
        model.set("m1", "/status/operationalStatus", json!("detached"));
        assert_eq!(code(&write_all(&mut model, &registration, &provisioned("d1"))).0, "metal3.attaching");
    }

    #[test]
    fn data_for_a_live_iso_are_refused_before_anything_is_provisioned() {
        let (mut model, registration) = reached(&Wish::Available);
        let payload = crate::Payload::LiveIso { url: "http://x/y.iso".into() };
        let wish = Wish::Provisioned(crate::Deployment { payload, ..deployment("d1") });
        let refused = write_all(&mut model, &registration, &wish);
        assert_eq!(code(&refused), ("metal3.no-config-drive", Some(Persistence::Lasting)));
        assert!(!model.host("m1").unwrap().spec.has_deployment());
    }

    #[test]
    fn too_many_hosts_at_once_is_told() {
        let (mut model, registration) = reached(&Wish::Available);
        write_all(&mut model, &registration, &provisioned("d1"));
        model.set("m1", "/status/operationalStatus", json!("delayed"));
        assert_eq!(code(&write_all(&mut model, &registration, &provisioned("d1"))).0, "metal3.delayed");
    }
}

fn any_wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        Just(Wish::Registered),
        Just(Wish::Inspected),
        Just(Wish::Available),
        Just(Wish::Offered),
        Just(Wish::ExternallyProvisioned),
        Just(Wish::Released),
        Just(Wish::Removed),
        Just(provisioned("d1")),
        Just(provisioned("d2")),
    ]
}

fn any_state() -> impl Strategy<Value = ProvisioningState> {
    let known = proptest::sample::select(ProvisioningState::KNOWN.to_vec());
    prop_oneof![9 => known, 1 => "[a-z]{1,8}".prop_map(ProvisioningState::Other)]
}

fn any_error() -> impl Strategy<Value = Option<ErrorType>> {
    proptest::option::of(proptest::sample::select(ErrorType::KNOWN.to_vec()))
}

fn any_status() -> impl Strategy<Value = OperationalStatus> {
    proptest::sample::select(OperationalStatus::KNOWN.to_vec())
}

proptest! {
    /// Whatever the operator reports, and whatever was wished before: the answers are written out within a few steps, and what
    /// follows is a wait, a refusal with a code of the list and a remedy, or the end.
    #[test]
    fn drive_never_writes_for_ever_and_every_state_has_an_answer(
        before in any_wish(), wish in any_wish(), state in any_state(), error in any_error(), status in any_status(),
        powered in any::<bool>(), inspected in any::<bool>(), taken_up in any::<bool>(), age in 0_i64..200_000,
        cleaning in any::<bool>(),
    ) {
        let (mut model, mut registration) = (Model::new(), registration());
        registration.cleaning = if cleaning { Cleaning::Metadata } else { Cleaning::Disabled };
        write_all(&mut model, &registration, &before);
        if model.host_names().contains(&"m1") {
            model.set("m1", "/status", json!({
                "operationalStatus": status, "errorType": error, "errorMessage": "x", "poweredOn": powered,
                "provisioning": { "state": state }, "lastUpdated": model.now.to_string(),
            }));
            if taken_up {
                model.set("m1", "/metadata/finalizers", json!(["baremetalhost.metal3.io"]));
            }
        }
        model.hardware = inspected.then(Hardware::default);
        model.pass(age);
        let next = write_all(&mut model, &registration, &wish);
        let problem = match &next {
            Next::Reached => return Ok(()),
            Next::Wait(wait) => {
                prop_assert!(wait.poll_after >= Duration::from_secs(1) && wait.usual >= wait.poll_after);
                &wait.problem
            }
            Next::Refuse { problem, .. } => problem,
            written => panic!("{written:?}"),
        };
        prop_assert!(CODES.iter().any(|(code, ..)| *code == problem.code), "{}", problem.code);
        prop_assert!(problem.hint.is_some());
        prop_assert!(model.host_names().len() <= 1, "{KIND_HOST} doubled");
    }

    /// Any sequence of wishes, each given up at any point, ends where the last one says, or in a refusal that protects what runs.
    #[test]
    fn wishes_may_change_at_any_time(wishes in proptest::collection::vec((any_wish(), 0_usize..12), 1..6)) {
        let (mut model, registration) = (Model::new(), registration());
        for (wish, steps) in &wishes {
            for _ in 0..*steps {
                let next = next(&registration, wish, &model.snapshot(&registration));
                if !model.carry_out(&next) {
                    model.operate("m1");
                }
            }
            prop_assert!(model.host_names().len() <= 1);
        }
        let (last, _) = &wishes[wishes.len() - 1];
        match settle(&mut model, &registration, last) {
            Next::Reached => {}
            Next::Refuse { problem, .. } => {
                let protecting = ["metal3.deployed", "metal3.externally-provisioned", "metal3.being-deleted", "metal3.not-inspected"];
                prop_assert!(protecting.contains(&problem.code.as_str()), "{last}: {problem}");
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_machine_without_a_host_is_named_after_itself() {
    let registration = Registration { machine: name("dgx-01"), ..registration() };
    let mut model = Model::new();
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    assert_eq!(model.host_names(), ["dgx-01"]);
}
