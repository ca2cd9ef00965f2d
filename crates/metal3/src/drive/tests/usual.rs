//! A machine on its way, with nobody in between.

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
    assert!(model.host_names().is_empty() && model.secret_names().iter().all(|name| !name.ends_with("bmc")));
}

#[test]
fn a_wish_reached_is_reached_without_another_write() {
    for wish in lasting_wishes() {
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

#[test]
fn a_machine_without_a_host_is_named_after_itself() {
    let registration = Registration { machine: name("dgx-01"), ..registration() };
    let mut model = Model::new();
    assert_eq!(settle(&mut model, &registration, &Wish::Available), Next::Reached);
    assert_eq!(model.host_names(), ["dgx-01"]);
}
