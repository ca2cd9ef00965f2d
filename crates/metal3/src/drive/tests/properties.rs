//! Whatever is wished and reported, in whatever order.

use super::*;
use proptest::prelude::*;

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
        cleaning in any::<bool>(), untold in any::<bool>(),
    ) {
        let (mut model, mut registration) = (Model::new(), registration());
        model.untold = untold;
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
    fn wishes_may_change_at_any_time(
        wishes in proptest::collection::vec((any_wish(), 0_usize..12), 1..6), untold in any::<bool>(),
    ) {
        let (mut model, registration) = (Model::new(), registration());
        model.untold = untold;
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
