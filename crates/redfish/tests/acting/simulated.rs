//! The same against the simulator, with whole servers.

use std::sync::Arc;
use std::time::Duration;

use redfish::host::Host;
use redfish::power::{self, Patience, PowerState, Target};
use redfish::{Client, Credentials, Guards, Options, Trust};
use sim::{Bmc, BmcBuilder, Model, RunningBmc};

use crate::server::options;

fn dgx() -> BmcBuilder {
    Bmc::builder(Model::DgxH100.tree()).behaviour(Model::DgxH100.behaviour())
}

fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience {
        poll: ms(2),
        graceful: ms(500),
        effect: ms(5_000),
        refusal: ms(5_000),
        retry: ms(20),
        rest: ms(1),
    }
}

fn of(bmc: &RunningBmc) -> Options {
    Options { credentials: Some(Credentials::new(bmc.username(), bmc.password())), ..options() }
}

async fn connect(bmc: &RunningBmc, options: Options) -> Result<Client, redfish::Error> {
    Client::connect(redfish::Target::new(bmc.url(), Trust::Pin(bmc.pin().parse().unwrap())), options).await
}

#[tokio::test]
async fn the_host_of_a_simulated_dgx_goes_off_and_on() {
    let bmc = dgx().start().await.unwrap();
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    let host = Host::find(&client, None).await.unwrap();
    assert!(host.system.ends_with("/DGX"), "{host:?}");
    let off = power::set(&client, &host, Target::Off, patience()).await.unwrap();
    assert_eq!(off.after, PowerState::Off);
    let on = power::set(&client, &host, Target::On, patience()).await.unwrap();
    assert_eq!((on.before, on.after), (PowerState::Off, PowerState::On));
    let again = power::set(&client, &host, Target::On, patience()).await.unwrap();
    assert!(again.commands.is_empty());
}

#[tokio::test]
async fn quirk_14_a_simulated_bmc_that_refuses_on_for_a_while_is_switched_on() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| {
        behaviour.power.on_refused_after_off = Duration::from_millis(200);
        behaviour.power.delay = Duration::from_millis(30);
    });
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    let host = Host::find(&client, None).await.unwrap();
    power::set(&client, &host, Target::ForcedOff, patience()).await.unwrap();
    let on = power::set(&client, &host, Target::On, patience()).await.unwrap();
    assert!(on.commands.len() > 1, "{on:?}");
}

#[tokio::test]
async fn quirk_42_all_clients_of_a_simulated_bmc_together_never_lock_the_account() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.lockout_after = Some(3));
    let guards = Guards::default();
    let guard = guards.of(&bmc.url()).unwrap();
    let with = |password: &str| Options {
        credentials: Some(Credentials::new(bmc.username(), password)),
        guard: Some(Arc::clone(&guard)),
        ..options()
    };
    let connects: Vec<_> = (0..8).map(|n| connect(&bmc, with(&format!("wrong-{n}")))).collect();
    assert!(futures_util::future::join_all(connects).await.iter().all(Result::is_err));
    assert!(bmc.counters().failed_logins <= 2);
    guard.budget(&bmc.username()).reset();
    assert!(connect(&bmc, with(&bmc.password())).await.is_ok());
}
