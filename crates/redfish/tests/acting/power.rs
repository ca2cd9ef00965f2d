//! Power, changed so that it is so.

use std::time::Duration;

use domain::Diagnose as _;
use redfish::power::{self, Patience, PowerState, Target};
use serde_json::json;

use crate::machine::{RESET, Running, SYSTEM};
use crate::server::{Reply, Seen};

/// Looks often, and gives a loaded test machine all the time it wants.
fn patience() -> Patience {
    let (ms, long) = (Duration::from_millis(1), Duration::from_secs(20));
    Patience { poll: ms, graceful: long, effect: long, refusal: long, retry: ms, rest: ms }
}

/// Gives up soon, for what never comes.
fn hurried() -> Patience {
    let soon = Duration::from_millis(50);
    Patience { graceful: soon, effect: soon, refusal: soon, ..patience() }
}

async fn set(running: &Running, target: Target) -> Result<Vec<&'static str>, power::PowerError> {
    set_with(running, target, patience()).await
}

async fn set_with(
    running: &Running,
    target: Target,
    patience: Patience,
) -> Result<Vec<&'static str>, power::PowerError> {
    let (client, host) = running.connect().await;
    let report = power::set(&client, &host, target, patience).await;
    client.close().await;
    report.map(|report| report.commands)
}

fn is_reset(seen: &Seen, kind: &str) -> bool {
    seen.is("POST", RESET) && seen.body.contains(&format!("\"{kind}\""))
}

fn is_on(running: &Running) {
    running.machine().set(SYSTEM, &json!({"PowerState": "On"}));
}

#[tokio::test]
async fn a_machine_is_switched_on_and_off_and_the_report_says_what_was_done() {
    let running = Running::good().await;
    let (client, host) = running.connect().await;
    let report = power::set(&client, &host, Target::On, patience()).await.unwrap();
    assert_eq!((report.before, report.after), (PowerState::Off, PowerState::On));
    assert_eq!(report.commands, ["On"]);
    let report = power::set(&client, &host, Target::ForcedOff, patience()).await.unwrap();
    assert_eq!((report.after, report.commands), (PowerState::Off, vec!["ForceOff"]));
    assert_eq!(power::state(&client, &host).await.unwrap(), PowerState::Off);
}

#[tokio::test]
async fn a_machine_already_in_that_state_is_sent_nothing() {
    let running = Running::good().await;
    assert_eq!(set(&running, Target::Off).await.unwrap(), Vec::<&str>::new());
    is_on(&running);
    assert_eq!(set(&running, Target::On).await.unwrap(), Vec::<&str>::new());
    assert!(running.resets().is_empty());
}

#[tokio::test]
async fn quirk_14_on_is_tried_again_while_it_is_refused_after_power_off() {
    let mut refusals = 3;
    let running = Running::start(move |_, seen| {
        (is_reset(seen, "On") && refusals > 0).then(|| {
            refusals -= 1;
            Reply::message(409, "IDRAC.2.9.SYS403")
        })
    })
    .await;
    assert_eq!(set(&running, Target::On).await.unwrap(), ["On"; 4]);
    assert_eq!(running.machine().power(), "On");
}

#[tokio::test]
async fn quirk_14_on_that_stays_refused_is_an_error_with_the_message_of_the_bmc() {
    let running =
        Running::start(|_, seen| is_reset(seen, "On").then(|| Reply::message(409, "IDRAC.2.9.SYS403"))).await;
    let error = set_with(&running, Target::On, hurried()).await.unwrap_err();
    assert_eq!(error.code(), "bmc.power-refused");
    assert_eq!(error.problem().found.as_deref(), Some("IDRAC.2.9.SYS403"));
}

#[tokio::test]
async fn quirk_15_a_conflict_because_the_machine_is_in_that_state_already_is_no_error() {
    // Somebody was faster.
    let running = Running::start(|machine, seen| {
        is_reset(seen, "On").then(|| {
            machine.set(SYSTEM, &json!({"PowerState": "On"}));
            Reply::message(409, "IDRAC.2.9.PSU501")
        })
    })
    .await;
    assert_eq!(set(&running, Target::On).await.unwrap(), ["On"]);
}

#[tokio::test]
async fn quirk_15_a_success_without_content_because_it_is_so_already_is_no_error() {
    let running = Running::start(|machine, seen| {
        is_reset(seen, "ForceOff").then(|| {
            machine.set(SYSTEM, &json!({"PowerState": "Off"}));
            Reply::new(204, &[], "")
        })
    })
    .await;
    is_on(&running);
    assert_eq!(set(&running, Target::ForcedOff).await.unwrap(), ["ForceOff"]);
}

#[tokio::test]
async fn quirk_16_a_bmc_that_is_not_ready_is_asked_again() {
    for (status, message) in [
        (400, "iLO.2.14.InvalidOperationForSystemState"),
        (500, "IDRAC.2.8.SYS518"),
        (503, "x.ServiceTemporarilyUnavailable"),
    ] {
        let mut once = true;
        let running = Running::start(move |_, seen| {
            (is_reset(seen, "On") && std::mem::take(&mut once)).then(|| Reply::message(status, message))
        })
        .await;
        assert_eq!(set(&running, Target::On).await.unwrap(), ["On", "On"], "{message}");
    }
}

#[tokio::test]
async fn quirk_35_a_machine_that_hangs_when_restarted_goes_off_and_on() {
    let running = Running::good().await;
    running.machine().set("/redfish/v1", &json!({"Vendor": "Lenovo"}));
    let told = json!({"Model": "ThinkSystem SR675 V3 OVX", "PowerState": "On", "LastResetTime": "2026-11-20T00:00:00Z"});
    running.machine().set(SYSTEM, &told);
    assert_eq!(set(&running, Target::ForceRestarted).await.unwrap(), ["ForceOff", "On"]);
    assert_eq!(set(&running, Target::Restarted).await.unwrap(), ["GracefulShutdown", "On"]);
}

#[tokio::test]
async fn a_restart_in_one_command_is_believed_where_the_bmc_tells_when_it_was() {
    let running = Running::good().await;
    running.machine().set(SYSTEM, &json!({"PowerState": "On", "LastResetTime": "2026-11-20T00:00:00Z"}));
    assert_eq!(set(&running, Target::ForceRestarted).await.unwrap(), ["ForceRestart"]);
    assert_eq!(set(&running, Target::Restarted).await.unwrap(), ["GracefulRestart"]);
}

#[tokio::test]
async fn a_restart_that_would_not_show_goes_off_and_on() {
    let running = Running::good().await;
    is_on(&running);
    assert_eq!(set(&running, Target::ForceRestarted).await.unwrap(), ["ForceOff", "On"]);
}

#[tokio::test]
async fn quirk_38_a_restart_without_effect_goes_off_and_on() {
    let running =
        Running::start(|_, seen| is_reset(seen, "ForceRestart").then(|| Reply::new(204, &[], ""))).await;
    running.machine().set(SYSTEM, &json!({"PowerState": "On", "LastResetTime": "2026-11-20T00:00:00Z"}));
    let soon = Patience { effect: Duration::from_secs(1), ..patience() };
    assert_eq!(
        set_with(&running, Target::ForceRestarted, soon).await.unwrap(),
        ["ForceRestart", "ForceOff", "On"]
    );
}

#[tokio::test]
async fn quirk_38_a_success_without_effect_is_an_error_that_tells_both_states() {
    let running = Running::start(|_, seen| seen.is("POST", RESET).then(|| Reply::new(204, &[], ""))).await;
    let error = set_with(&running, Target::On, hurried()).await.unwrap_err();
    assert_eq!(error.code(), "bmc.power-no-effect");
    let problem = error.problem();
    assert_eq!((problem.found.as_deref(), problem.expected.as_deref()), (Some("Off"), Some("On")));
    assert!(problem.hint.is_some());
    assert_eq!(running.resets(), ["On"]);
}

#[tokio::test]
async fn an_operating_system_that_does_not_hear_is_cut_off() {
    let running =
        Running::start(|_, seen| is_reset(seen, "GracefulShutdown").then(|| Reply::new(204, &[], ""))).await;
    is_on(&running);
    let deaf = Patience { graceful: Duration::from_millis(50), ..patience() };
    assert_eq!(set_with(&running, Target::Off, deaf).await.unwrap(), ["GracefulShutdown", "ForceOff"]);
}

#[tokio::test]
async fn the_kinds_of_reset_are_read_from_the_action_info() {
    let running = Running::good().await;
    let info = "/redfish/v1/Systems/Host/ResetActionInfo";
    running.machine().put(
        info,
        json!({"Parameters": [{"Name": "ResetType", "AllowableValues": ["ForceOn", "ForceOff"]}]}),
    );
    running.machine().tree.get_mut(SYSTEM).unwrap()["Actions"] =
        json!({"#ComputerSystem.Reset": {"target": RESET, "@Redfish.ActionInfo": info}});
    assert_eq!(set(&running, Target::On).await.unwrap(), ["ForceOn"]);
    assert_eq!(set(&running, Target::Off).await.unwrap(), ["ForceOff"]);
}

#[tokio::test]
async fn a_button_is_pressed_where_there_is_nothing_else_and_never_twice() {
    let running = Running::good().await;
    let only = json!({"Actions": {"#ComputerSystem.Reset": {"ResetType@Redfish.AllowableValues": ["PushPowerButton"]}}});
    running.machine().set(SYSTEM, &only);
    assert_eq!(set(&running, Target::On).await.unwrap(), ["PushPowerButton"]);
    assert_eq!(set(&running, Target::Off).await.unwrap(), ["PushPowerButton"]);
    let error = {
        is_on(&running);
        set(&running, Target::ForcedOff).await.unwrap_err()
    };
    assert_eq!(error.code(), "bmc.action-missing");
}

#[tokio::test]
async fn a_command_whose_answer_was_lost_is_judged_by_its_effect_and_not_repeated() {
    let running = Running::start(|machine, seen| {
        is_reset(seen, "On").then(|| {
            let _ = machine.reset("On");
            Reply::Cut(Vec::new())
        })
    })
    .await;
    assert_eq!(set(&running, Target::On).await.unwrap(), ["On"]);
    assert_eq!(running.resets(), ["On"]);
}

#[tokio::test]
async fn quirk_36_a_bmc_that_stumbles_while_the_power_changes_is_read_again() {
    let mut stumbles = 0;
    let running = Running::start(move |_, seen| {
        if is_reset(seen, "On") {
            stumbles = 4;
        }
        (seen.is("GET", SYSTEM) && stumbles > 0).then(|| {
            stumbles -= 1;
            match stumbles {
                3 => Reply::html(500),
                2 => Reply::html(404),
                1 => Reply::new(200, &[], "{\"half"),
                _ => Reply::json(200, &json!({"@odata.id": SYSTEM, "PowerState": null})),
            }
        })
    })
    .await;
    assert_eq!(set(&running, Target::On).await.unwrap(), ["On"]);
}

#[tokio::test]
async fn a_machine_between_two_states_is_let_arrive_first() {
    let mut looks = 0;
    let running = Running::start(move |_, seen| {
        looks += i32::from(seen.is("GET", SYSTEM));
        (seen.is("GET", SYSTEM) && looks == 2)
            .then(|| Reply::json(200, &json!({"@odata.id": SYSTEM, "PowerState": "PoweringOff"})))
    })
    .await;
    assert_eq!(set(&running, Target::Off).await.unwrap(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_bmc_that_tells_no_power_state_is_told_apart() {
    let running = Running::good().await;
    running.machine().set(SYSTEM, &json!({"PowerState": null}));
    assert_eq!(set(&running, Target::On).await.unwrap_err().code(), "bmc.power-unknown");
}

#[tokio::test]
async fn quirk_24_the_host_is_acted_on_and_not_the_baseboard_that_comes_first() {
    let running = Running::good().await;
    let board = "/redfish/v1/Systems/Board";
    running.machine().put(board, json!({"Id": "Board", "PowerState": "Off", "SerialNumber": "B-1"}));
    running
        .machine()
        .set("/redfish/v1/Systems", &json!({"Members": [{"@odata.id": board}, {"@odata.id": SYSTEM}]}));
    assert_eq!(set(&running, Target::On).await.unwrap(), ["On"]);
    assert_eq!(running.machine().power(), "On");
}

#[tokio::test]
async fn quirk_24_of_two_hosts_that_look_alike_none_is_acted_on_unless_the_serial_number_tells() {
    use redfish::host::Host;
    let running = Running::good().await;
    let twin = "/redfish/v1/Systems/Twin";
    let mut body = running.machine().tree[SYSTEM].clone();
    body["SerialNumber"] = json!("HOST-2");
    running.machine().put(twin, body);
    running
        .machine()
        .set("/redfish/v1/Systems", &json!({"Members": [{"@odata.id": twin}, {"@odata.id": SYSTEM}]}));
    let client = running.bmc.connect().await.unwrap();
    assert_eq!(Host::find(&client, None).await.unwrap_err().code(), "bmc.host-ambiguous");
    assert_eq!(Host::find(&client, Some("HOST-2")).await.unwrap().system, twin);
    assert_eq!(Host::find(&client, Some("HOST-3")).await.unwrap_err().code(), "bmc.host-not-found");
}
