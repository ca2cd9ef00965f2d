//! How a BMC behaves where vendors differ. Site files hold the same words in kebab case, times in milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The behaviours of one BMC. The default is an orderly one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Behaviour {
    /// What `ETag` headers look like.
    pub etags: Etags,
    /// What `$expand` does.
    pub expand: Expand,
    /// How many sessions fit into the pool (quirk 2).
    pub max_sessions: usize,
    /// After so many failed logins in a row an account is refused with any password, until [`Self::lockout_for`] has passed or
    /// [`crate::Bmc::unlock`] is called.
    pub lockout_after: Option<u32>,
    /// How long a lock-out lasts; without end if `None`.
    #[serde(rename = "lockout-for-ms", with = "milliseconds::optional")]
    pub lockout_for: Option<Duration>,
    /// How accounts come and go.
    pub accounts: AccountStyle,
    /// Whether even the service root wants credentials.
    pub root_requires_credentials: bool,
    /// Whether every request but the root's is answered with 403 PasswordChangeRequired (quirk 4).
    pub password_change_required: bool,
    /// Whether a PATCH without `If-Match` is refused with 428 (RFC 6585).
    pub requires_if_match: bool,
    /// Whether answers are compressed for clients that offer gzip, which changes their ETag (quirk 5).
    pub compresses: bool,
    /// How resets go.
    pub power: PowerStyle,
    /// What a client must do to set the boot source. Only of bootable machines, as all that follows.
    pub boot: BootStyle,
    /// What a client must do to put an image into virtual media.
    pub virtual_media: VirtualMediaStyle,
    /// What a client must do to change BIOS settings.
    pub settings: SettingsStyle,
    /// What a restart of the BMC does to it.
    pub restart: RestartStyle,
}

/// What `ETag` headers look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Etags {
    /// What the resource's `@odata.etag` says; none where it says nothing.
    #[default]
    Recorded,
    /// `"…"`, from the body.
    Strong,
    /// `W/"…"`, from the body (quirk 5).
    Weak,
    /// `""` always (quirk 6).
    Empty,
    /// None at all (quirk 9).
    None,
}

/// What `$expand` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expand {
    /// What the service root's `ProtocolFeaturesSupported` says; where it says nothing, 501.
    #[default]
    AsAdvertised,
    /// Members come without their required properties, whatever is advertised (quirk 19).
    DropsFields,
    /// The query is ignored.
    Ignored,
    /// 400 whatever is advertised (quirk 19).
    Rejected,
}

/// How accounts come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountStyle {
    /// POST creates one, DELETE removes it.
    #[default]
    Created,
    /// There are this many, numbered from 1, and POST is refused: a client takes an empty one from the third on by PATCH, and gives it
    /// back by an empty name (Dell, quirk 29).
    Slots(u32),
}

/// How resets go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PowerStyle {
    /// How long a change takes.
    #[serde(rename = "delay-ms", with = "milliseconds")]
    pub delay: Duration,
    /// Whether a reset into the present state is 409 (Dell) instead of 204 (quirk 15).
    pub conflict_if_already: bool,
    /// For how long after a power-off `On` is refused with 409 (quirk 14).
    #[serde(rename = "on-refused-after-off-ms", with = "milliseconds")]
    pub on_refused_after_off: Duration,
    /// Whether `ForceRestart` leaves a host that is on and boots nothing, until it is switched off and on (quirk 35).
    pub force_restart_hangs: bool,
}

/// What a client must do to set the boot source (quirks 10, 12).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BootStyle {
    /// What a change of `Boot` must hold, or is 400: all of it (AMI, ASRock), or `BootSourceOverrideEnabled` (Supermicro).
    pub demands: Vec<String>,
    /// Whether `BootSourceOverrideEnabled` is 400 where it says what is already so.
    pub refuses_unchanged: bool,
    /// Whether `Continuous` is accepted.
    pub persistent: bool,
    /// Whether only `UsbCd` boots virtual media; `Cd` is accepted and boots nothing (Supermicro).
    pub usb_cd: bool,
    /// Which resource takes the change.
    pub resource: BootResource,
}

/// Which resource takes a change of the boot source (quirk 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootResource {
    /// The system, which has no settings object.
    #[default]
    System,
    /// The settings object alone; what it is told holds from the next reset on (iDRAC10).
    Settings,
    /// The system alone: its settings object refuses boot attributes with PropertyNotWritable.
    SystemNotSettings,
}

/// What a client must do to put an image into virtual media (quirk 32).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VirtualMediaStyle {
    /// Whether there are no actions, and PATCH of `Image` and `Inserted` does it (Lenovo).
    pub patch_only: bool,
    /// Parameters that are 400 (`Inserted` and `WriteProtected` on Supermicro).
    pub refuses: Vec<String>,
    /// Parameters without which it is 400 (`TransferProtocolType` on Nokia, `UserName` and `Password` on NVIDIA).
    pub demands: Vec<String>,
    /// Whether ejecting without a body is 400 (HPE wants `{}`).
    pub eject_needs_body: bool,
    /// For how long media still read as inserted after they were ejected.
    #[serde(rename = "inserted-after-eject-ms", with = "milliseconds")]
    pub inserted_after_eject: Duration,
}

/// What a client must do to change BIOS settings (quirks 10, 11, 17, 18).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SettingsStyle {
    /// Whether a change without `@Redfish.SettingsApplyTime` is 400 (iDRAC).
    pub apply_time_required: bool,
    /// Whether a change makes a task; without, it is 200.
    pub tasks: Option<TaskStyle>,
}

/// What the task of a change looks like.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TaskStyle {
    /// The `Location` of the answer.
    pub location: TaskLocation,
    /// So many reads of a new task are 404.
    pub late: u32,
    /// So many reads say `New` before it is anything else.
    pub new: u32,
    /// Whether it is complete at once, with the change still to come at the next reset (iLO).
    pub complete_before_reset: bool,
    /// Whether it is 404 once it is complete.
    pub vanishes: bool,
}

/// The `Location` header of an answer that made a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskLocation {
    /// The task's path.
    #[default]
    Given,
    /// An empty header.
    Empty,
    /// No header.
    Absent,
}

/// What a restart does to a BMC. Sessions and virtual media are always lost, the host's power never.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RestartStyle {
    /// For how long it does not answer.
    #[serde(rename = "takes-ms", with = "milliseconds")]
    pub takes: Duration,
    /// Whether accounts are as at the factory afterwards (quirk 42).
    pub factory_accounts: bool,
}

impl Behaviour {
    /// The same behaviour with these words of a site file changed (RFC 7396).
    pub(crate) fn changed(&self, change: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        crate::fault::merge(&mut value, change);
        serde_json::from_value(value)
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            etags: Etags::default(),
            expand: Expand::default(),
            max_sessions: 8,
            lockout_after: None,
            lockout_for: None,
            accounts: AccountStyle::default(),
            root_requires_credentials: false,
            password_change_required: false,
            requires_if_match: false,
            compresses: false,
            power: PowerStyle::default(),
            boot: BootStyle::default(),
            virtual_media: VirtualMediaStyle::default(),
            settings: SettingsStyle::default(),
            restart: RestartStyle::default(),
        }
    }
}

impl Default for PowerStyle {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            conflict_if_already: false,
            on_refused_after_off: Duration::ZERO,
            force_restart_hangs: false,
        }
    }
}

impl Default for BootStyle {
    fn default() -> Self {
        Self {
            demands: Vec::new(),
            refuses_unchanged: false,
            persistent: true,
            usb_cd: false,
            resource: BootResource::System,
        }
    }
}

impl BootStyle {
    /// What AMI and ASRock demand of every change (quirk 12).
    pub const FULL: [&'static str; 3] =
        ["BootSourceOverrideEnabled", "BootSourceOverrideMode", "BootSourceOverrideTarget"];
}

/// Durations as whole milliseconds.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    fn whole(time: Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(whole(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Duration, Serializer, whole};

        // The signature is serde's.
        #[allow(clippy::ref_option)]
        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.serialize_some(&whole(*time)),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}
