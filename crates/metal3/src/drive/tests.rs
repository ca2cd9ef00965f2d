use super::model::Model;
use super::*;
use crate::desired::bmc_secret;
use crate::registration::tests::{deployment, name, registration};
use crate::registration::{Cleaning, Inspection};
use crate::secret::{Credentials, SecretText};
use crate::states::{ErrorType, OperationalStatus, ProvisioningState};
use crate::{CODES, KIND_HOST};
use serde_json::json;

mod others;
mod properties;
mod takeover;
mod trouble;
mod untold;
mod usual;

/// More steps than any wish needs.
const PATIENCE: usize = 60;

/// Each wish that something stands for once it is reached.
fn lasting_wishes() -> [Wish; 7] {
    [
        Wish::Registered,
        Wish::Inspected,
        Wish::Available,
        Wish::Offered,
        provisioned("d1"),
        Wish::ExternallyProvisioned,
        Wish::Released,
    ]
}

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
