//! What is answered on the sockets, for every method that the kubelet may call.

use crate::node::{Host, asked};
use bailiwick_dra::plugin::wire::{
    ClaimsRequest, HealthStatus, InfoRequest, NodeWatchResourcesRequest, NodeWatchResourcesResponse,
    PluginInfo, PrepareResponse, RegistrationStatus, RegistrationStatusResponse, UnprepareResponse,
};
use bailiwick_dra::plugin::{Health, Plugin, PluginError, Registration, RegistrationState};
use prost::Message;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

async fn client(socket: &Path) -> Grpc<Channel> {
    let path = format!("unix:{}", socket.display());
    let channel = Endpoint::from_shared(path).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

async fn call<Q, A>(socket: &Path, method: &'static str, question: Q) -> Result<A, tonic::Status>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let codec = ProstCodec::<Q, A>::default();
    let request = tonic::Request::new(question);
    let path = http::uri::PathAndQuery::from_static(method);
    Ok(client(socket).await.unary(request, path, codec).await?.into_inner())
}

fn plugin(host: &Host, health: watch::Receiver<Vec<Health>>) -> (Plugin, PathBuf) {
    let plugin = Plugin::start(host.files.path(), "test", host.preparer.clone(), health).unwrap();
    (plugin, host.files.path().join("plugins/gpu.bailiwick.dev/dra-test.sock"))
}

#[tokio::test]
async fn both_versions_of_dra_prepare_and_give_back() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    let (_plugin, socket) = plugin(&host, watch::channel(Vec::new()).1);
    let request = ClaimsRequest { claims: vec![asked("a"), asked("gone")] };
    for (prepare, unprepare) in [
        (
            "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
            "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
        ),
        (
            "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
            "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
        ),
    ] {
        let answer: PrepareResponse = call(&socket, prepare, request.clone()).await.unwrap();
        assert_eq!(answer.claims["uid-a"].devices[0].device_name, "gpu-0");
        let refused = &answer.claims["uid-gone"];
        assert_eq!(refused.error, "plugin.claim.gone: claim ns/gone does not exist");
        assert!(refused.devices.is_empty());
        let answer: UnprepareResponse = call(&socket, unprepare, request.clone()).await.unwrap();
        assert_eq!(answer.claims["uid-a"].error, "");
        assert_eq!(answer.claims["uid-gone"].error, "");
    }
}

#[tokio::test]
async fn both_versions_of_health_tell_all_devices_at_once_and_on_every_change() {
    let host = Host::new();
    let health = |device: &str, status: HealthStatus| Health {
        pool: "m1".to_owned(),
        device: device.to_owned(),
        status,
        taken: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000),
        timeout: Duration::from_secs(90),
        message: "ü".repeat(1000),
    };
    let all = vec![health("gpu-0", HealthStatus::Healthy), health("gpu-1", HealthStatus::Unknown)];
    let (sender, receiver) = watch::channel(all);
    let (_plugin, socket) = plugin(&host, receiver);
    for method in
        ["/v1.DRAResourceHealth/NodeWatchResources", "/v1alpha1.DRAResourceHealth/NodeWatchResources"]
    {
        sender.send_modify(|all| all[0].status = HealthStatus::Healthy);
        let codec = ProstCodec::<NodeWatchResourcesRequest, NodeWatchResourcesResponse>::default();
        let request = tonic::Request::new(NodeWatchResourcesRequest {});
        let path = http::uri::PathAndQuery::from_static(method);
        let stream = client(&socket).await.server_streaming(request, path, codec).await;
        let mut stream = stream.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.devices.len(), 2);
        assert_eq!(first.devices[0].last_updated_time, 1_800_000_000);
        assert_eq!(first.devices[0].health_check_timeout_seconds, 90);
        assert_eq!(first.devices[0].message.len(), 1024);
        assert_eq!(first.devices[1].health(), HealthStatus::Unknown);
        sender.send_modify(|all| all[0].status = HealthStatus::Unhealthy);
        let second = stream.message().await.unwrap().unwrap();
        assert_eq!(second.devices[0].health(), HealthStatus::Unhealthy);
        assert_eq!(second.devices.len(), 2);
    }
}

#[tokio::test]
async fn who_we_are_is_told_while_the_registration_is_open() {
    let host = Host::new();
    let directory = host.files.path().join("plugins_registry");
    let mut registration = Registration::new(&directory, "test", Path::new("/dra.sock"));
    let state = registration.state();
    assert_eq!(*state.borrow(), RegistrationState::Closed);
    registration.open().unwrap();
    registration.open().unwrap();
    assert_eq!(*state.borrow(), RegistrationState::Waiting);
    let socket = directory.join("test@gpu.bailiwick.dev-reg.sock");
    let info: PluginInfo =
        call(&socket, "/pluginregistration.Registration/GetInfo", InfoRequest {}).await.unwrap();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("DRAPlugin", "gpu.bailiwick.dev"));
    assert_eq!(info.endpoint, "/dra.sock");
    assert_eq!(
        info.supported_versions,
        ["v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]
    );

    let notify = "/pluginregistration.Registration/NotifyRegistrationStatus";
    let refused = RegistrationStatus { plugin_registered: false, error: "no".to_owned() };
    let _: RegistrationStatusResponse = call(&socket, notify, refused).await.unwrap();
    assert_eq!(*state.borrow(), RegistrationState::Refused("no".to_owned()));
    let taken = RegistrationStatus { plugin_registered: true, error: String::new() };
    let _: RegistrationStatusResponse = call(&socket, notify, taken).await.unwrap();
    assert!(matches!(*state.borrow(), RegistrationState::Registered(_)));

    let unknown = call::<_, InfoRequest>(&socket, "/pluginregistration.Registration/Other", InfoRequest {});
    assert_eq!(unknown.await.unwrap_err().code(), tonic::Code::Unimplemented);
    registration.close().await;
    assert!(!socket.exists());
    assert_eq!(*state.borrow(), RegistrationState::Closed);
}

#[tokio::test]
async fn sockets_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let host = Host::new();
    let directory = host.files.path().join("plugins_registry");
    std::fs::create_dir(&directory).unwrap();
    let [dead, own, foreign] =
        ["old@gpu.bailiwick.dev-reg.sock", "test@gpu.bailiwick.dev-reg.sock", "gpu.example-reg.sock"]
            .map(|name| directory.join(name));
    for path in [&dead, &own, &foreign] {
        // Dropping a listener leaves its file, as killing its process does.
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    }
    let mut registration = Registration::new(&directory, "test", Path::new("/dra.sock"));
    registration.open().unwrap();
    assert!(!dead.exists() && own.exists() && foreign.exists());
    let mut twin = Registration::new(&directory, "test", Path::new("/dra.sock"));
    assert!(matches!(twin.open(), Err(PluginError::SocketInUse { .. })));
    let mut other = Registration::new(&directory, "other", Path::new("/dra.sock"));
    other.open().unwrap();
    assert!(own.exists());
    let mut long = Registration::new(&directory, &"x".repeat(100), Path::new("/dra.sock"));
    assert_eq!(long.open().unwrap_err().code(), "plugin.socket.path-too-long");
}

#[tokio::test]
async fn whoever_is_connected_is_counted() {
    let host = Host::new();
    let (plugin, socket) = plugin(&host, watch::channel(Vec::new()).1);
    let mut connections = plugin.connections();
    for _ in 0..2 {
        let kubelet = client(&socket).await;
        connections.wait_for(|count| *count == 1).await.unwrap();
        drop(kubelet);
        connections.wait_for(|count| *count == 0).await.unwrap();
    }
}
