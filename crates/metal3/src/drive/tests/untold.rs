//! Hosts that are read without `metadata.managedFields`.

use super::*;

/// The model does not tell any more who has set what.
fn untold(wish: &Wish) -> (Model, Registration) {
    let (mut model, registration) = reached(wish);
    model.untold = true;
    (model, registration)
}

#[test]
fn every_wish_is_reached_and_then_nothing_more_is_written() {
    for wish in lasting_wishes() {
        let (mut model, registration) = (Model::new(), registration());
        model.untold = true;
        assert_eq!(settle(&mut model, &registration, &wish), Next::Reached, "{wish}");
        assert_eq!(next(&registration, &wish, &model.snapshot(&registration)), Next::Reached, "{wish}");
    }
}

#[test]
fn what_was_reached_before_stands_without_another_write() {
    for wish in [Wish::Available, Wish::Offered, provisioned("d1"), Wish::ExternallyProvisioned] {
        let (model, registration) = untold(&wish);
        assert_eq!(next(&registration, &wish, &model.snapshot(&registration)), Next::Reached, "{wish}");
    }
}

#[test]
fn wishing_less_than_there_is_takes_nothing_off_the_machine() {
    for (before, wishes) in [
        (provisioned("d1"), vec![Wish::Registered, Wish::Inspected]),
        (Wish::ExternallyProvisioned, vec![Wish::Registered]),
    ] {
        let (mut model, registration) = untold(&before);
        let on_it = |model: &Model| {
            let spec = &model.host("m1").unwrap().raw["spec"];
            crate::desired::DEPLOYMENT_FIELDS.iter().map(|field| spec[*field].clone()).collect::<Vec<_>>()
        };
        let was = on_it(&model);
        for wish in wishes {
            assert_eq!(settle(&mut model, &registration, &wish), Next::Reached, "{before} {wish}");
            assert_eq!(on_it(&model), was, "{before} {wish}");
        }
    }
}

#[test]
fn what_is_on_the_machine_goes_when_it_is_released() {
    let (mut model, registration) = untold(&provisioned("d1"));
    assert_eq!(settle(&mut model, &registration, &Wish::Released), Next::Reached);
    assert!(!model.host("m1").unwrap().spec.has_deployment());
    assert_eq!(state(&model), ProvisioningState::Available);
}

#[test]
fn a_value_that_is_another_is_written_once() {
    let (mut model, mut registration) = untold(&Wish::Available);
    registration.cleaning = Cleaning::Disabled;
    let first = next(&registration, &Wish::Available, &model.snapshot(&registration));
    assert!(matches!(&first, Next::Apply(Object::Host(_))), "{first:?}");
    model.carry_out(&first);
    assert_eq!(model.host("m1").unwrap().spec.automated_cleaning_mode, "disabled");
    assert_eq!(next(&registration, &Wish::Available, &model.snapshot(&registration)), Next::Reached);
}
