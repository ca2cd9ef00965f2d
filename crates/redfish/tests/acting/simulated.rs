//! The same against the simulator, with whole servers.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use redfish::accounts::{ADMINISTRATOR, Accounts};
use redfish::boot::{self, BootEnabled, BootTarget};
use redfish::host::Host;
use redfish::power::{self, Patience, PowerState, Target};
use redfish::rotation::{self, Rotation, Which};
use redfish::write::Outcome;
use redfish::{Client, Credentials, Guards, Options, Reader as _, Trust, clock, manager, task};
use serde_json::json;
use sim::{
    AccountStyle, Bmc, BmcBuilder, BootStyle, HostOptions, Model, RunningBmc, TaskLocation, TaskStyle,
};

use crate::server::options;

fn dgx() -> BmcBuilder {
    let mut behaviour = Model::DgxH100.behaviour();
    behaviour.power.delay = Duration::from_millis(5);
    Bmc::builder(Model::DgxH100.tree()).behaviour(behaviour)
}

/// A DGX whose BMC has all that provisioning needs.
fn bootable() -> BmcBuilder {
    dgx().bootable(HostOptions::default())
}

fn patience() -> Patience {
    let (ms, long) = (Duration::from_millis, Duration::from_secs(20));
    Patience { poll: ms(2), graceful: long, effect: long, refusal: long, retry: ms(20), rest: ms(1) }
}

fn of(bmc: &RunningBmc) -> Options {
    Options { credentials: Some(Credentials::new(bmc.username(), bmc.password())), ..options() }
}

async fn connect(bmc: &RunningBmc, options: Options) -> Result<Client, redfish::Error> {
    Client::connect(at(bmc), options).await
}

fn at(bmc: &RunningBmc) -> redfish::Target {
    redfish::Target::new(bmc.url(), Trust::Pin(bmc.pin().parse().unwrap()))
}

async fn found(bmc: &RunningBmc) -> (Client, Host) {
    let client = connect(bmc, of(bmc)).await.unwrap();
    let host = Host::find(&client, None).await.unwrap();
    (client, host)
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
        behaviour.power.on_refused_after_off = Duration::from_secs(2);
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

#[tokio::test]
async fn quirk_15_a_simulated_bmc_that_says_409_to_what_is_so_already_is_no_error() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.power.conflict_if_already = true);
    let (first, host) = found(&bmc).await;
    let (second, _) = found(&bmc).await;
    let off = Target::ForcedOff;
    let (a, b) =
        tokio::join!(power::set(&first, &host, off, patience()), power::set(&second, &host, off, patience()));
    assert_eq!((a.unwrap().after, b.unwrap().after), (PowerState::Off, PowerState::Off));
}

#[tokio::test]
async fn quirk_41_the_clock_of_a_simulated_bmc_is_set() {
    let bmc = bootable().start().await.unwrap();
    let (client, host) = found(&bmc).await;
    let path = host.manager.clone().unwrap();
    client.patch(&path, &json!({"DateTime": "2001-02-03T04:05:06Z"})).await.unwrap();
    let before = clock::read(&client, &host).await.unwrap();
    assert!(before.skew < SignedDuration::from_hours(-24 * 365), "{before:?}");
    let set = clock::set(&client, &host, Duration::from_secs(5), clock::Patience::default()).await;
    match set {
        Ok(clock::Report::Set { after, .. }) => assert!(!after.is_off(Duration::from_secs(5))),
        // The recorded BMC follows NTP servers, and says so.
        Err(error) => assert_eq!((error.code(), before.ntp), ("bmc.clock-ntp", Some(true))),
        Ok(report) => panic!("{report:?}"),
    }
}

#[tokio::test]
async fn quirk_34_a_simulated_bmc_is_restarted_and_back() {
    let bmc = bootable().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.restart.takes = Duration::from_millis(150));
    let (client, host) = found(&bmc).await;
    let ms = Duration::from_millis;
    let patience = manager::Patience { every: ms(20), effect: ms(20_000), back: ms(20_000), good: 3 };
    let took = manager::reset(&client, &host, patience).await.unwrap();
    assert!(took >= ms(150) && bmc.counters().restarts == 1, "{took:?}");
    assert!(client.get(&host.system).await.is_ok());
}

#[tokio::test]
async fn quirk_12_a_simulated_bmc_that_wants_the_whole_override_gets_it() {
    let bmc = bootable().start().await.unwrap();
    bmc.set_behaviour(|behaviour| {
        behaviour.boot.demands = BootStyle::FULL.map(str::to_owned).into();
    });
    let (client, host) = found(&bmc).await;
    let mode = Some(boot::BootMode::Uefi);
    let set = boot::set(&client, &host, BootTarget::Pxe, mode).await.unwrap();
    assert_eq!((set.target, set.enabled), (Some(BootTarget::Pxe), Some(BootEnabled::Once)));
}

#[tokio::test]
async fn quirk_29_a_slot_of_a_simulated_bmc_is_filled() {
    let bmc = Bmc::builder(Model::PowerEdgeXe.tree()).behaviour(Model::PowerEdgeXe.behaviour());
    let bmc = bmc.bootable(HostOptions::default()).start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.accounts = AccountStyle::Slots(16));
    let (client, host) = found(&bmc).await;
    assert_eq!(host.profile.first_account_slot, Some(3));
    let accounts = Accounts::of(&client).await.unwrap();
    let new = Credentials::new("bailiwick", "own-password-1");
    let made = accounts.create(&new, ADMINISTRATOR).await.unwrap();
    assert!(made.id.parse::<u32>().unwrap() >= 3, "{made:?}");
    assert!(connect(&bmc, Options { credentials: Some(new), ..options() }).await.is_ok());
    accounts.remove("bailiwick").await.unwrap();
}

/// Rotates from what the BMC has to another password.
async fn rotated(
    bmc: &RunningBmc,
    guards: &Guards,
    old: &Credentials,
) -> Result<Which, rotation::RotationError> {
    let (target, plain) = (at(bmc), options());
    let guard = guards.of(&bmc.url()).unwrap();
    let new = Credentials::new(old.username.clone(), "own-password-1");
    let rotation = Rotation {
        target: &target,
        options: &plain,
        guard: &guard,
        old,
        new: &new,
        patience: rotation::Patience::default(),
    };
    rotation.rotate().await?;
    rotation.settle().await
}

#[tokio::test]
async fn quirk_42_the_factory_password_of_a_simulated_bmc_is_replaced_and_a_reset_to_it_is_found() {
    let bmc = bootable().start().await.unwrap();
    bmc.set_behaviour(|behaviour| {
        behaviour.lockout_after = Some(3);
        behaviour.password_change_required = true;
        behaviour.restart.factory_accounts = true;
    });
    let factory = Credentials::new(bmc.username(), bmc.password());
    let guards = Guards::default();
    assert_eq!(rotated(&bmc, &guards, &factory).await.unwrap(), Which::New);
    assert_eq!(bmc.password(), "own-password-1");

    let own = Options { credentials: Some(Credentials::new(bmc.username(), bmc.password())), ..options() };
    let client = connect(&bmc, own).await.unwrap();
    let host = Host::find(&client, None).await.unwrap();
    let restart = format!("{}/Actions/Manager.Reset", host.manager.unwrap());
    let _ = client.post(&restart, &json!({"ResetType": "ForceRestart"})).await;
    drop(client);
    while bmc.counters().restarts == 0 || connect(&bmc, Options::default()).await.is_err() {
        tokio::task::yield_now().await;
    }
    // One login with the lost password, one with the factory's, and the rotation begins anew.
    let failed = bmc.counters().failed_logins;
    let (target, plain, guard) = (at(&bmc), options(), guards.of(&bmc.url()).unwrap());
    let new = Credentials::new(factory.username.clone(), "own-password-1");
    let patience = rotation::Patience::default();
    let rotation =
        Rotation { target: &target, options: &plain, guard: &guard, old: &factory, new: &new, patience };
    assert_eq!(rotation.settle().await.unwrap(), Which::Old);
    assert_eq!(bmc.counters().failed_logins, failed + 1);
    assert_eq!(rotated(&bmc, &guards, &factory).await.unwrap(), Which::New);
    assert!(!bmc.is_locked_out(&bmc.username()));
}

#[tokio::test]
async fn quirks_17_and_18_tasks_of_a_simulated_bmc_end_however_they_are_told() {
    let styles = [
        TaskStyle::default(),
        TaskStyle { late: 2, new: 2, ..TaskStyle::default() },
        TaskStyle { location: TaskLocation::Empty, ..TaskStyle::default() },
        TaskStyle { location: TaskLocation::Absent, vanishes: true, ..TaskStyle::default() },
        TaskStyle { complete_before_reset: true, ..TaskStyle::default() },
    ];
    for style in styles {
        let bmc = bootable().start().await.unwrap();
        bmc.set_behaviour(|behaviour| behaviour.settings.tasks = Some(style));
        let (client, host) = found(&bmc).await;
        let bios = client.get(&format!("{}/Bios", host.system)).await.unwrap().body;
        let settings = bios["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str().unwrap().to_owned();
        let (name, value) = bios["Attributes"].as_object().unwrap().iter().next().unwrap();
        let change = json!({"Attributes": {name: value}});
        let Outcome::Accepted(receipt) = client.patch(&settings, &change).await.unwrap() else {
            panic!("no task: {style:?}")
        };
        for target in [Target::ForcedOff, Target::On] {
            power::set(&client, &host, target, patience()).await.unwrap();
        }
        let ms = Duration::from_millis;
        let patience = task::Patience { every: ms(1), appears: ms(500), deadline: ms(20_000) };
        let end = task::follow(&client, &receipt, patience).await.unwrap();
        let expected = matches!(end, task::TaskEnd::Completed { .. } | task::TaskEnd::Vanished);
        assert!(expected, "{style:?}: {end:?}");
    }
}
