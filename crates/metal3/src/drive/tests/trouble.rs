//! What goes wrong, and how it is told.

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
    assert_eq!((problem.code.as_str(), persistence), ("metal3.credentials-refused", Persistence::Lasting));
    assert!(!problem.to_string().contains("pl4nted"), "{problem}");
    let version = model.snapshot(&registration).secrets["m1-bmc"].resource_version.clone();
    model.set("m1", "/status/triedCredentials/credentialsVersion", json!(version));
    assert_eq!(code(&write_all(&mut model, &registration, &Wish::Available)).0, "metal3.credentials-refused");
    registration.credentials = registration
        .credentials
        .map(|credentials| crate::Credentials { password: crate::SecretText::new("right"), ..credentials });
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
