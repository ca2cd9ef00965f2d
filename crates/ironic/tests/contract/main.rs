//! One suite, run on simulated and on real Ironic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking, and so do their helpers")]

mod faults;
mod ipmi;
mod redfish;
mod site;
mod suite;

use std::sync::Arc;

use bailiwick_ironic::{Authentication, Secret};
use sim::ironic::IronicEndpoint;
use site::Site;
use testbed::Ironic;
use tokio::sync::Mutex;

/// Makes a test of each function of the suite, on each Ironic.
macro_rules! contract {
    ($($name:ident,)+) => {
        mod simulated {
            $(#[tokio::test]
            async fn $name() {
                let ironic = super::IronicEndpoint::builder().automated_clean(false).start().unwrap();
                super::suite::$name(&super::Site::new(ironic.url())).await;
            })+
        }

        mod real {
            $(#[tokio::test]
            async fn $name() {
                let (_turn, ironic) = (super::TURN.lock().await, super::real().await);
                super::suite::$name(&super::Site::new(ironic.url())).await;
            })+
        }
    };
}

contract! {
    a_machine_goes_all_the_way_and_back,
    an_instance_is_deployed_once,
    another_instance_takes_the_place_of_an_older_one,
    a_foreign_instance_is_refused,
    a_node_deleted_behind_our_back_is_told,
    a_node_that_exists_is_taken_over,
    two_nodes_that_look_like_one_machine_are_refused,
    a_bmc_is_found_in_every_spelling,
    refusals_are_told_apart,
    maintenance_is_waited_out,
    a_node_is_removed_by_force,
    a_cleaning_that_is_asked_for_runs_once,
    a_cleaning_that_fails_is_told_and_repeated_on_demand,
    a_deployment_that_cannot_work_is_refused_before_it_begins,
    lists_are_whole,
    power_follows,
    a_changed_registration_is_brought_in_line,
}

/// Real Ironic runs on SQLite here, which answers 500 when several write at once: the suite's tests take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// One real Ironic for all tests of this program that run at the same time.
async fn real() -> Arc<Ironic> {
    static RUNNING: Mutex<std::sync::Weak<Ironic>> = Mutex::const_new(std::sync::Weak::new());
    let mut running = RUNNING.lock().await;
    if let Some(ironic) = running.upgrade() {
        return ironic;
    }
    let ironic = Arc::new(Ironic::start().await.unwrap());
    *running = Arc::downgrade(&ironic);
    ironic
}

#[tokio::test]
async fn a_real_ironic_with_passwords_takes_the_right_one_only() {
    let ironic = Ironic::options().http_basic(true).start().await.unwrap();
    let (username, password) = ironic.credentials().unwrap();
    let site = |password: &str| Site {
        url: ironic.url().to_owned(),
        authentication: Authentication::HttpBasic {
            username: username.to_owned(),
            password: Secret::new(password),
        },
    };
    assert!(site(password).client().node("nobody").await.unwrap().is_none());
    let error = site("wrong").client().node("nobody").await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("ironic.unauthorized", false));
}
