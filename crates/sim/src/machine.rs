//! A bootable machine behind its BMC: what its resets, media, boot override, clock and settings come to.

use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::accounts;
use crate::behaviour::BootResource;
use crate::bmc::Bmc;
use crate::boot;
use crate::fault::merge;
use crate::host::{Booted, Disk, Erasure, Host, HostFault};
use crate::media;
use crate::power::{Effect, PowerState, ResetKind, ResetRefused};

/// Where tasks are.
pub(crate) const TASKS: &str = "/redfish/v1/TaskService/Tasks";

impl Bmc {
    /// The body with what is not in the tree: the power state that resets have led to, what is in a slot, what the clock says.
    pub(crate) fn with_state(&self, key: &str, body: Bytes) -> Bytes {
        let power = self.power_lock().shown(key).map(|state| json!({"PowerState": state.as_str()}));
        let (boot, service) = (self.boot_state(key), self.service_state(key));
        if power.is_none() && boot.is_none() && service.is_none() {
            return body;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return body };
        [power, boot, service].iter().flatten().for_each(|change| merge(&mut value, change));
        Bytes::from(value.to_string())
    }

    fn boot_state(&self, key: &str) -> Option<Value> {
        let paths = self.tree().boot_paths()?;
        if key == paths.manager {
            return Some(json!({"DateTime": self.date_time()}));
        }
        if key == paths.bios_settings {
            return Some(json!({"Attributes": self.settings.pending()}));
        }
        if key == paths.system && self.behaviour().boot.resource != BootResource::System {
            return Some(
                json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": paths.system_settings}}}),
            );
        }
        if !paths.media.iter().any(|slot| slot == key) {
            return None;
        }
        let mut slot = self.media.shown(key).unwrap_or_else(|| json!({}));
        if self.behaviour().virtual_media.patch_only {
            slot["Actions"] = Value::Null;
        }
        Some(slot)
    }

    /// Puts an image into a slot or takes it out.
    pub(crate) fn change_media(&self, slot: &str, change: media::Change) {
        self.media.apply(slot, change, &self.behaviour().virtual_media);
    }

    /// The slots with something in them, and the URL of what that is.
    pub(crate) fn inserted_media(&self) -> Vec<(String, String)> {
        let slots = self.tree().boot_paths().map(|paths| paths.media.as_slice()).unwrap_or_default();
        slots.iter().filter_map(|slot| Some((slot.clone(), self.media.image(slot)?))).collect()
    }

    /// What its clock says, as `DateTime` of a manager.
    pub(crate) fn date_time(&self) -> String {
        self.clock.date_time()
    }

    /// Sets its clock wrong by so much, in the manager's `DateTime` and in the `Date` header.
    pub fn set_clock_skew(&self, skew: SignedDuration) {
        self.clock.set_skew(skew);
    }

    /// How wrong its clock is now; a client may have set it right.
    pub fn clock_skew(&self) -> SignedDuration {
        self.clock.skew()
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// What its host runs now; [`Booted::Nothing`] where the machine is not bootable.
    pub fn booted(&self) -> Booted {
        self.host.as_ref().map(|host| host.booted().borrow().clone()).unwrap_or_default()
    }

    /// What its host runs, and every change of that; none where the machine is not bootable.
    pub fn watch_booted(&self) -> Option<watch::Receiver<Booted>> {
        Some(self.host.as_ref()?.booted())
    }

    /// What an agent wrote to its disk and none has erased since.
    pub fn disk(&self) -> Option<Disk> {
        self.host.as_ref()?.disk()
    }

    /// What agents have erased, in the order in which they did.
    pub fn erasures(&self) -> Vec<Erasure> {
        self.host.as_ref().map(Host::erasures).unwrap_or_default()
    }

    /// Lets something go wrong on its host, so many times.
    pub fn add_host_fault(&self, fault: HostFault, times: u32) {
        if let Some(host) = &self.host {
            host.add_fault(fault, times);
        }
    }

    /// What is said of services: lock-out, and the tasks that there are.
    fn service_state(&self, key: &str) -> Option<Value> {
        if let Some(accounts) = self.tree().accounts_path()
            && accounts.strip_suffix("/Accounts") == Some(key)
        {
            return Some(accounts::service(&self.behaviour()));
        }
        if key != TASKS {
            return None;
        }
        self.tree().boot_paths()?;
        let tasks = self.settings.listed(self.behaviour().settings.tasks);
        let members: Vec<Value> =
            tasks.iter().map(|task| json!({"@odata.id": format!("{TASKS}/{task}")})).collect();
        (!members.is_empty()).then(|| json!({"Members@odata.count": members.len(), "Members": members}))
    }

    /// Resources that no tree has: accounts, tasks, the settings object of a system.
    pub(crate) fn computed(&self, key: &str) -> Option<Value> {
        if let Some(accounts) = self.tree().accounts_path()
            && let Some(rest) = key.strip_prefix(accounts)
        {
            let behaviour = self.behaviour();
            return self.access.accounts(|all| all.show(accounts, rest, &behaviour));
        }
        let paths = self.tree().boot_paths()?;
        if let Some(number) = key.strip_prefix(TASKS).and_then(|rest| rest.strip_prefix('/')) {
            return self.settings.read(key, number.parse().ok()?, self.behaviour().settings.tasks);
        }
        let resource = self.behaviour().boot.resource;
        if key != paths.system_settings || resource == BootResource::System {
            return None;
        }
        let boot = match resource {
            BootResource::Settings => self.resource(&paths.system)?["Boot"].take(),
            _ => Value::Null,
        };
        let mut settings = json!({"@odata.id": key, "@odata.type": "#ComputerSystem.v1_17_0.ComputerSystem", "Id": "Settings",
            "Name": "System settings"});
        if boot.is_object() {
            settings["Boot"] = boot;
        }
        Some(settings)
    }

    /// Restarts the BMC, as [`crate::RestartStyle`] says; the host goes on.
    pub fn restart(&self) {
        let style = self.behaviour().restart;
        self.access.expire_sessions();
        if style.factory_accounts {
            self.access.accounts(accounts::Accounts::reset);
        }
        self.media.eject_all();
        self.outage.begin(style.takes.mul_f64(self.latency_scale()));
    }

    /// What a reset makes of settings that waited for it.
    fn settings_applied(&self) {
        if let (Some(paths), Some(attributes)) = (self.tree().boot_paths(), self.settings.apply()) {
            self.merge_resource(&paths.bios, &json!({"Attributes": attributes}));
        }
    }

    pub(crate) fn reset(&self, system: &str, kind: &str) -> Result<(), ResetRefused> {
        let kind = ResetKind::parse(kind).ok_or(ResetRefused::UnknownKind)?;
        let now = self.power_state_of(system).unwrap_or(PowerState::On);
        let mut style = self.behaviour().power;
        style.delay = style.delay.mul_f64(self.latency_scale());
        let boots = self.tree().boot_paths().filter(|paths| paths.system == system);
        let mut override_now = Value::Null;
        if boots.is_some() {
            override_now = self.boot_override();
        }
        // Held while the host follows, so that of two resets at once it follows the later one last.
        let mut power = self.power_lock();
        let effect = power.reset(system, now, kind, style)?;
        if let (Some(host), Some(this), true) = (&self.host, self.this.upgrade(), boots.is_some()) {
            host.follow(&this, effect, override_now.clone());
        }
        drop(power);
        if boots.is_some() && matches!(effect, Effect::Starts(_) | Effect::Hangs) {
            self.override_used(&override_now);
            self.settings_applied();
        }
        Ok(())
    }

    /// `Boot` of the host, with what its settings object has been told since the last reset (quirk 10).
    fn boot_override(&self) -> Value {
        let Some(paths) = self.tree().boot_paths() else { return Value::Null };
        let boot = |path: &str| self.resource(path).map(|mut value| value["Boot"].take()).unwrap_or_default();
        let mut now = boot(&paths.system);
        if self.behaviour().boot.resource == BootResource::Settings {
            let settings = boot(&paths.system_settings);
            if settings.is_object() {
                merge(&mut now, &settings);
            }
        }
        now
    }

    /// Shows what is left of the override after a start of the host.
    fn override_used(&self, boot: &Value) {
        let Some(paths) = self.tree().boot_paths() else { return };
        let mut left = json!({});
        for property in ["BootSourceOverrideEnabled", "BootSourceOverrideTarget", "BootSourceOverrideMode"] {
            left[property] = boot[property].clone();
        }
        if let Some(used) = boot::used_up(boot) {
            merge(&mut left, &used);
        }
        self.merge_resource(&paths.system, &json!({"Boot": left}));
        if self.behaviour().boot.resource == BootResource::Settings {
            self.merge_resource(&paths.system_settings, &json!({"Boot": left}));
        }
    }

    /// Switches the machine on or off at its front, whatever its BMC makes of resets; what its host boots is what it would have booted.
    pub fn switch(&self, on: bool) {
        let kind = if on { "On" } else { "ForceOff" };
        if let Some(paths) = self.tree().boot_paths() {
            // In the state asked for already: nothing to do.
            let _ = self.reset(&paths.system, kind);
        }
    }

    /// The host switches itself off, as an operating system does.
    pub(crate) fn switched_off_by_host(&self) {
        let Some(paths) = self.tree().boot_paths() else { return };
        let mut power = self.power_lock();
        power.switch_off(&paths.system);
        if let (Some(host), Some(this)) = (&self.host, self.this.upgrade()) {
            host.follow(&this, Effect::Ends, Value::Null);
        }
    }
}
