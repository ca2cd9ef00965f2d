//! What must hold of [`next`] against a model of Ironic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::model::{Luck, Model};
use super::{Action, Next, Task, Wish, next};
use crate::client::Provision;
use crate::deployment::{DeployKind, Deployment, RootDevice};
use crate::node::{Node, ProvisionState as State, Step};
use crate::refusal::Refusal;
use crate::registration::Registration;
use crate::samples;

const CURRENT: Uuid = Uuid::from_u128(0xc);
const OLD: Uuid = Uuid::from_u128(0xd);
const FOREIGN: Uuid = Uuid::from_u128(0xf);

/// More than any way through all states takes.
const STEPS: usize = 60;

fn deployment() -> Deployment {
    Deployment {
        instance_uuid: CURRENT,
        kind: DeployKind::Ramdisk { boot_iso: "https://images.example/live.iso".to_owned() },
        root_device: RootDevice::default(),
        config_drive: None,
    }
}

fn wishes() -> Vec<Wish> {
    vec![
        Wish::Registered,
        Wish::Inspected { after: None },
        Wish::Available,
        Wish::Deployed(Box::new(deployment())),
        Wish::Cleaned { request: Uuid::from_u128(7), steps: vec![Step::new("deploy", "erase_devices")] },
        Wish::Released,
        Wish::Removed { force: false },
        Wish::Removed { force: true },
    ]
}

fn task(wish: Wish, retry: bool) -> Task {
    Task { registration: samples::registration(), instances: vec![OLD], wish, retry }
}

fn states() -> Vec<State> {
    let mut all = State::KNOWN.to_vec();
    all.push(State::Other("pondering".to_owned()));
    all
}

/// Steps until something is reached, or refused for good, and says what.
fn run(model: &mut Model, task: &Task, mut luck: impl FnMut() -> Luck) -> Next {
    loop {
        match run_once(model, task, &mut luck) {
            // The caller stays away for a while, and comes again.
            Next::Tell { note, .. } => model.act(&Action::Patch(note)).unwrap(),
            end => return end,
        }
    }
}

/// Steps until something is reached, refused or told.
fn run_once(model: &mut Model, task: &Task, luck: &mut impl FnMut() -> Luck) -> Next {
    let mut trail = Vec::new();
    for _ in 0..STEPS {
        let decided = model.next(task);
        trail.push(format!("{:?} {decided:?}", model.state()));
        match decided {
            Next::Do(action) => {
                if let Err(refused) = model.act(&action) {
                    panic!("Ironic refuses {}: {refused}\n{}", action.summary(), trail.join("\n"));
                }
            }
            Next::Wait(_) => model.tick(luck()),
            end => {
                assert!(model.deploys.values().all(|deploys| *deploys < 2), "{}", trail.join("\n"));
                return end;
            }
        }
    }
    panic!("no end:\n{}", trail.join("\n"));
}

#[test]
fn from_every_state_every_wish_ends_and_nothing_is_asked_that_ironic_refuses() {
    for state in states() {
        for instance in [None, Some(CURRENT), Some(OLD), Some(FOREIGN)] {
            for wish in wishes() {
                for luck in [Luck::Well, Luck::ByTheAgent, Luck::Badly, Luck::AtOnce] {
                    for retry in [false, true] {
                        let mut model = Model::at(&state, instance, &samples::registration());
                        // The agent comes once, then all goes well; bad luck strikes once.
                        let mut lucks = [luck].into_iter();
                        run(&mut model, &task(wish.clone(), retry), || lucks.next().unwrap_or(Luck::Well));
                    }
                }
                // Bad luck that lasts is told, even to a caller that allows every try.
                for luck in [Luck::Badly, Luck::AtOnce] {
                    let mut model = Model::at(&state, instance, &samples::registration());
                    run(&mut model, &task(wish.clone(), false), || luck);
                    let mut model = Model::at(&state, instance, &samples::registration());
                    run_once(&mut model, &task(wish.clone(), true), &mut || luck);
                }
            }
        }
    }
}

#[test]
fn with_good_luck_every_wish_is_reached_from_nothing() {
    for wish in wishes() {
        let mut model = Model::empty();
        if matches!(wish, Wish::Deployed(_) | Wish::Released | Wish::Cleaned { .. }) {
            run(&mut model, &task(Wish::Registered, false), || Luck::Well);
        }
        let end = run(&mut model, &task(wish.clone(), false), || Luck::ByTheAgent.or_well(&wish));
        assert_eq!(end, Next::Reached, "{wish:?}");
    }
}

impl Luck {
    /// The agent is needed where something is written, cleaned or inspected by it; here only the names of states differ.
    fn or_well(self, wish: &Wish) -> Self {
        if matches!(wish, Wish::Registered) { self } else { Self::Well }
    }
}

#[test]
fn a_foreign_instance_is_never_touched() {
    for state in states() {
        for wish in wishes() {
            let model = Model::at(&state, Some(FOREIGN), &samples::registration());
            let Next::Refuse(refusal) = model.next(&task(wish, true)) else {
                panic!("a foreign instance is touched in {state}")
            };
            assert_eq!(refusal.code(), "ironic.instance-foreign");
        }
    }
}

#[test]
fn a_node_of_another_machine_is_never_touched() {
    for state in states() {
        for wish in wishes() {
            let other = Registration { machine: "m2".to_owned(), ..samples::registration() };
            let next = Model::at(&state, None, &other).next(&task(wish, true));
            assert!(matches!(next, Next::Refuse(Refusal::OwnedElsewhere { .. })), "{state} {next:?}");
        }
    }
}

#[test]
fn an_active_node_without_an_instance_is_foreign() {
    let next = Model::at(&State::Active, None, &samples::registration()).next(&task(Wish::Released, true));
    assert_eq!(next, Next::Refuse(Refusal::InstanceForeign { found: None }));
}

#[test]
fn who_wishes_late_for_what_was_reached_does_not_take_away_what_was_assigned_since() {
    let mut model = Model::at(&State::Available, Some(OLD), &samples::registration());
    assert_eq!(run(&mut model, &task(Wish::Available, true), || Luck::Well), Next::Reached);
    assert_eq!(model.read().unwrap().instance_uuid, Some(OLD.to_string()));
}

#[test]
fn a_node_that_was_deleted_behind_our_back_is_not_made_again() {
    for wish in [Wish::Deployed(Box::new(deployment())), Wish::Released] {
        assert_eq!(Model::empty().next(&task(wish, true)), Next::Refuse(Refusal::NodeGone));
    }
}

#[test]
fn a_failed_deploy_is_refused_whatever_the_last_error_says_and_left_for_another_instance() {
    let mut model = Model::at(&State::DeployFailed, Some(CURRENT), &samples::registration());
    let again = Wish::Deployed(Box::new(deployment()));
    let refused = run(&mut model, &task(again, true), || Luck::Well);
    assert_eq!(refused, Next::Refuse(Refusal::DeployFailed { last_error: None }));

    let fresh = Deployment { instance_uuid: Uuid::from_u128(0xe), ..deployment() };
    let mut task = task(Wish::Deployed(Box::new(fresh.clone())), false);
    task.instances.push(CURRENT);
    assert_eq!(run(&mut model, &task, || Luck::Well), Next::Reached);
    assert_eq!(model.deploys, BTreeMap::from([(fresh.instance_uuid.to_string(), 1)]));
}

#[test]
fn an_instance_that_was_taken_away_behind_our_back_is_not_deployed_again() {
    let deploy = task(Wish::Deployed(Box::new(deployment())), false);
    let mut model = Model::at(&State::Available, None, &samples::registration());
    assert_eq!(run(&mut model, &deploy, || Luck::Well), Next::Reached);
    model.act(&Action::Provision(Provision::Deleted)).unwrap();
    while model.state() != Some(State::Available) {
        model.tick(Luck::Well);
    }
    let refused = run(&mut model, &deploy, || Luck::Well);
    assert_eq!(refused, Next::Refuse(Refusal::InstanceSpent { instance: CURRENT }));
}

#[test]
fn corrected_credentials_are_verified_at_once_after_a_failed_verification() {
    let mut model = Model::at(&State::Enroll, None, &samples::registration());
    model.set("last_error", json!("HTTP 401"));
    let refused = run(&mut model, &task(Wish::Registered, false), || Luck::Well);
    assert_eq!(refused, Next::Refuse(Refusal::VerifyFailed { last_error: Some("HTTP 401".to_owned()) }));
    let mut corrected = task(Wish::Registered, false);
    corrected.registration.credentials = "v2".to_owned();
    let Next::Do(Action::Reconnect(patch)) = model.next(&corrected) else { panic!("not verified again") };
    assert!(patch.paths().contains(&"/driver_info/redfish_password"));
    assert_eq!(run(&mut model, &corrected, || Luck::Well), Next::Reached);
}

#[test]
fn rotated_credentials_reach_a_deployed_node_and_nothing_else_of_it_changes() {
    let mut model = Model::at(&State::Active, Some(CURRENT), &samples::registration());
    model.set("properties", json!({}));
    let mut rotated = task(Wish::Deployed(Box::new(deployment())), false);
    rotated.registration.credentials = "v2".to_owned();
    let Next::Do(Action::Patch(patch)) = model.next(&rotated) else { panic!("not patched") };
    assert_eq!(patch.paths(), ["/driver_info/redfish_password", "/extra/bailiwick"]);
}

#[test]
fn maintenance_is_waited_out() {
    for state in [State::Manageable, State::Available, State::Active, State::CleanFailed] {
        let mut model = Model::at(&state, Some(CURRENT), &samples::registration());
        model.set("maintenance", json!(true));
        model.set("fault", json!("power failure"));
        let next = model.next(&task(Wish::Deployed(Box::new(deployment())), true));
        let Next::Refuse(refusal @ Refusal::Maintenance { .. }) = next else { panic!("{next:?}") };
        assert!(refusal.is_passing());
    }
}

#[test]
fn every_failed_cleaning_is_told_once_and_repeated_when_the_caller_allows_it() {
    let mut model = Model::at(&State::CleanFailed, None, &samples::registration());
    let refused = model.next(&task(Wish::Released, false));
    assert!(matches!(refused, Next::Refuse(Refusal::CleanFailed { .. })), "{refused:?}");
    let mut luck = || Luck::Badly;
    for _ in 0..3 {
        let told = run_once(&mut model, &task(Wish::Released, true), &mut luck);
        let Next::Tell { refusal: Refusal::CleanFailed { .. }, note } = told else { panic!("{told:?}") };
        model.act(&Action::Patch(note)).unwrap();
    }
    let reached = run_once(&mut model, &task(Wish::Released, true), &mut || Luck::Well);
    assert_eq!(reached, Next::Reached);
}

#[test]
fn a_cleaning_that_failed_is_not_taken_for_one_that_was_done() {
    let mut model = Model::at(&State::Manageable, None, &samples::registration());
    let clean = wishes().into_iter().find(|wish| matches!(wish, Wish::Cleaned { .. })).unwrap();
    let refused = run(&mut model, &task(clean.clone(), false), || Luck::Badly);
    assert!(matches!(refused, Next::Refuse(Refusal::CleanFailed { .. })), "{refused:?}");
    // Somebody brings it back by hand. `last_error` stays.
    model.act(&Action::EndMaintenance).unwrap();
    model.act(&Action::Provision(Provision::Manage)).unwrap();
    let mut cleanings = 0;
    let end = run(&mut model, &task(clean, false), || {
        cleanings += 1;
        Luck::Well
    });
    assert_eq!((end, cleanings), (Next::Reached, 1));
}

#[test]
fn a_node_that_had_a_live_iso_gets_its_agent_back_before_it_is_inspected_or_cleaned_on_demand() {
    let on_demand = |wish: &Wish| matches!(wish, Wish::Inspected { .. } | Wish::Cleaned { .. });
    for wish in wishes().into_iter().filter(on_demand) {
        let mut model = Model::at(&State::Manageable, None, &samples::registration());
        model.set("deploy_interface", json!("ramdisk"));
        model.set("inspection_finished_at", json!(null));
        assert_eq!(run(&mut model, &task(wish, false), || Luck::Well), Next::Reached);
        assert_eq!(model.read().unwrap().deploy_interface.as_deref(), Some("direct"));
    }
}

#[test]
fn a_locked_node_is_waited_for() {
    let mut model = Model::at(&State::Manageable, None, &samples::registration());
    model.set("reservation", json!("conductor-1"));
    assert!(matches!(model.next(&task(Wish::Available, false)), Next::Wait(_)));
}

#[test]
fn protected_and_retired_nodes_say_so() {
    let mut protected = Model::at(&State::Active, Some(OLD), &samples::registration());
    protected.set("protected", json!(true));
    let mut retired = Model::at(&State::Manageable, None, &samples::registration());
    retired.set("retired", json!(true));
    for (mut model, wish, code) in
        [(protected, Wish::Released, "ironic.protected"), (retired, Wish::Available, "ironic.retired")]
    {
        let Next::Refuse(refusal) = run(&mut model, &task(wish, false), || Luck::Well) else {
            panic!("{code}")
        };
        assert_eq!(refusal.code(), code);
    }
}

/// What may happen between two steps.
#[derive(Clone, Copy, Debug)]
enum Event {
    Tick(Luck),
    /// The caller crashed after deciding: the action is lost.
    Lost,
    /// The answer was lost: the action is done, and decided on again.
    Unanswered,
    Maintain,
    EndMaintenance,
    Lock,
    Unlock,
    /// Somebody takes the instance away.
    Undeployed,
    /// Somebody brings the node to `manageable`.
    Managed,
    Deleted,
    Nothing,
}

fn events() -> impl Strategy<Value = Vec<(Event, bool)>> {
    let event = prop_oneof![
        6 => prop_oneof![Just(Luck::Well), Just(Luck::ByTheAgent), Just(Luck::Badly), Just(Luck::AtOnce)].prop_map(Event::Tick),
        2 => Just(Event::Lost),
        2 => Just(Event::Unanswered),
        1 => Just(Event::Maintain),
        1 => Just(Event::EndMaintenance),
        1 => Just(Event::Lock),
        2 => Just(Event::Unlock),
        1 => Just(Event::Undeployed),
        1 => Just(Event::Managed),
        1 => Just(Event::Deleted),
        6 => Just(Event::Nothing),
    ];
    prop::collection::vec((event, any::<bool>()), 0..120)
}

impl Model {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(luck) => self.tick(luck),
            Event::Maintain => self.set("maintenance", json!(true)),
            Event::EndMaintenance => {
                self.set("maintenance", json!(false));
                self.set("fault", Value::Null);
            }
            Event::Lock => self.set("reservation", json!("conductor-1")),
            Event::Unlock => self.set("reservation", Value::Null),
            Event::Undeployed => drop(self.act(&Action::Provision(Provision::Deleted))),
            Event::Managed => drop(self.act(&Action::Provision(Provision::Manage))),
            Event::Deleted => self.node = None,
            Event::Lost | Event::Unanswered | Event::Nothing => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_no_instance_is_deployed_twice_and_nothing_is_asked_that_ironic_refuses(
        wish in prop::sample::select(wishes()),
        state in prop::sample::select(states()),
        instance in prop::sample::select(vec![None, Some(CURRENT), Some(OLD)]),
        events in events(),
    ) {
        let mut model = Model::at(&state, instance, &samples::registration());
        for (event, retry) in events {
            model.happen(event);
            let action = match model.next(&task(wish.clone(), retry)) {
                Next::Do(action) => Some(action),
                Next::Tell { note, .. } => Some(Action::Patch(note)),
                _ => None,
            };
            if let Some(action) = action
                && !matches!(event, Event::Lost)
            {
                let done = model.act(&action);
                prop_assert!(done.is_ok(), "{}: {done:?}", action.summary());
            }
        }
        prop_assert!(model.deploys.values().all(|deploys| *deploys < 2), "{:?}", model.deploys);
        // Left alone at last, it ends.
        model.happen(Event::Unlock);
        run(&mut model, &task(wish, true), || Luck::Well);
    }

    #[test]
    fn whatever_a_node_looks_like_something_is_decided(
        state in prop::sample::select(states()),
        wish in prop::sample::select(wishes()),
        fields in prop::collection::btree_map(
            prop::sample::select(vec![
                "maintenance", "fault", "last_error", "instance_uuid", "extra", "driver_info", "properties", "traits",
                "reservation", "provision_updated_at", "driver", "name",
            ]),
            prop::sample::select(vec![json!(null), json!(true), json!("x"), json!({}), json!([1])]),
            0..6,
        ),
    ) {
        let mut node = Map::from_iter([
            ("uuid".to_owned(), json!(Uuid::nil())),
            ("provision_state".to_owned(), json!(state)),
        ]);
        node.extend(fields.into_iter().map(|(field, value)| (field.to_owned(), value)));
        let node: Node = serde_json::from_value(Value::Object(node)).unwrap();
        let _decided = next(Some(&node), &[], &task(wish, true));
    }
}
