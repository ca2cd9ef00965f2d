//! The boot override.

use redfish::boot::{self, BootEnabled, BootMode, BootTarget};
use serde_json::json;

use crate::machine::{Running, SYSTEM};
use crate::server::Reply;

const SETTINGS: &str = "/redfish/v1/Systems/Host/Settings";

#[tokio::test]
async fn a_boot_override_is_set_once_and_taken_back() {
    let running = Running::good().await;
    let (client, host) = running.connect().await;
    let set = boot::set(&client, &host, BootTarget::Cd, Some(BootMode::Uefi)).await.unwrap();
    assert_eq!((set.target, set.enabled), (Some(BootTarget::Cd), Some(BootEnabled::Once)));
    // Nothing is sent for what is so already.
    boot::set(&client, &host, BootTarget::Cd, None).await.unwrap();
    assert_eq!(running.sent("PATCH", SYSTEM).len(), 1);
    let cleared = boot::set(&client, &host, BootTarget::None, None).await.unwrap();
    assert_eq!(cleared.enabled, Some(BootEnabled::Disabled));
}

#[tokio::test]
async fn quirk_10_a_system_that_is_read_only_is_set_by_its_settings_resource() {
    let running = Running::start(|_, seen| {
        seen.is("PATCH", SYSTEM).then(|| Reply::message(400, "Base.1.8.PropertyNotWritable"))
    })
    .await;
    running.machine().set(SYSTEM, &json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": SETTINGS}}}));
    running.machine().put(SETTINGS, json!({"Boot": {}}));
    let (client, host) = running.connect().await;
    let set = boot::set(&client, &host, BootTarget::Pxe, None).await.unwrap();
    assert_eq!(set.target, Some(BootTarget::Pxe));
    let sent = &running.sent("PATCH", SETTINGS)[0];
    assert_eq!(sent["@Redfish.SettingsApplyTime"]["ApplyTime"], "OnReset");
}

#[tokio::test]
async fn quirk_38_an_override_that_does_not_show_is_an_error() {
    let running = Running::start(|_, seen| seen.is("PATCH", SYSTEM).then(|| Reply::new(204, &[], ""))).await;
    let (client, host) = running.connect().await;
    let error = boot::set(&client, &host, BootTarget::Pxe, None).await.unwrap_err();
    assert_eq!(error.code(), "bmc.boot-no-effect");
}
