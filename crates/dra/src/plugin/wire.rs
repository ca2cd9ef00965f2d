//! Messages between the kubelet and a plugin, by hand: there is no protoc, and they are few. Field numbers are those of
//! `kubernetes/kubelet` `pkg/apis/{pluginregistration/v1,dra/v1,dra-health/v1alpha1}`. DRA `v1beta1` has the same messages as
//! `v1` but for `Device.share_id`, which is never set here; health `v1` has those of `v1alpha1`.

use std::collections::HashMap;

/// `PluginInfo.type` of DRA drivers.
pub const PLUGIN_TYPE: &str = "DRAPlugin";

/// The full names of all methods that are served.
pub(super) mod method {
    pub(in super::super) const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
    pub(in super::super) const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";
    pub(in super::super) const PREPARE_V1: &str =
        "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
    pub(in super::super) const UNPREPARE_V1: &str =
        "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources";
    pub(in super::super) const PREPARE_V1BETA1: &str =
        "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources";
    pub(in super::super) const UNPREPARE_V1BETA1: &str =
        "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources";
    pub(in super::super) const HEALTH_V1: &str = "/v1.DRAResourceHealth/NodeWatchResources";
    pub(in super::super) const HEALTH_V1ALPHA1: &str = "/v1alpha1.DRAResourceHealth/NodeWatchResources";
}

/// `PluginInfo.supported_versions`. The kubelet takes the first that it knows, so the newest come first.
pub const SUPPORTED_VERSIONS: [&str; 4] =
    ["v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];

/// The kubelet asks who we are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoRequest {}

/// Who we are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginInfo {
    /// [`PLUGIN_TYPE`].
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// The driver's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Absolute path of the socket that serves DRA and health.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// [`SUPPORTED_VERSIONS`].
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

/// What became of a registration.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegistrationStatus {
    /// Whether the kubelet took it.
    #[prost(bool, tag = "1")]
    pub plugin_registered: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// Nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegistrationStatusResponse {}

/// A claim, by the names that the kubelet knows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Claim {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// UID.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Name in the namespace.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Claims to prepare, or to unprepare: both requests look the same.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClaimsRequest {
    /// Each needs an entry in the answer.
    #[prost(message, repeated, tag = "1")]
    pub claims: Vec<Claim>,
}

/// `NodePrepareResourcesResponse`, by claim UID.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PrepareResponse {
    /// One entry for each claim of the request.
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, PreparedClaim>,
}

/// `NodePrepareResourceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreparedClaim {
    /// Devices of our driver in this claim.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
    /// Why not; empty otherwise.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// A prepared device.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Device {
    /// Requests that it serves, without the name of an alternative.
    #[prost(string, repeated, tag = "1")]
    pub request_names: Vec<String>,
    /// Pool.
    #[prost(string, tag = "2")]
    pub pool_name: String,
    /// Name in the pool.
    #[prost(string, tag = "3")]
    pub device_name: String,
    /// Fully qualified names of CDI devices.
    #[prost(string, repeated, tag = "4")]
    pub cdi_device_ids: Vec<String>,
    /// For devices with several allocations at once, which we have none of; `v1` only.
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

/// `NodeUnprepareResourcesResponse`, by claim UID.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnprepareResponse {
    /// One entry for each claim of the request.
    #[prost(map = "string, message", tag = "1")]
    pub claims: HashMap<String, UnpreparedClaim>,
}

/// `NodeUnprepareResourceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnpreparedClaim {
    /// Why not; empty otherwise.
    #[prost(string, tag = "1")]
    pub error: String,
}

/// The kubelet asks for the health of our devices, from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeWatchResourcesRequest {}

/// The health of all our devices.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeWatchResourcesResponse {
    /// All of them, every time.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<DeviceHealth>,
}

/// Which device.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceIdentifier {
    /// Pool.
    #[prost(string, tag = "1")]
    pub pool_name: String,
    /// Name in the pool.
    #[prost(string, tag = "2")]
    pub device_name: String,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum HealthStatus {
    /// Nobody can tell.
    Unknown = 0,
    /// It works.
    Healthy = 1,
    /// It has a problem.
    Unhealthy = 2,
}

/// The health of one device.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceHealth {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub device: Option<DeviceIdentifier>,
    /// How.
    #[prost(enumeration = "HealthStatus", tag = "2")]
    pub health: i32,
    /// When that was found, in seconds since 1970.
    #[prost(int64, tag = "3")]
    pub last_updated_time: i64,
    /// After how many seconds without news the kubelet calls it unknown.
    #[prost(int64, tag = "4")]
    pub health_check_timeout_seconds: i64,
    /// Details; the kubelet cuts it at 1024 bytes.
    #[prost(string, tag = "5")]
    pub message: String,
}
