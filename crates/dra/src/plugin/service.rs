//! What the kubelet calls on the plugin's socket: DRA in both versions, and health in both.

use super::error::PluginError;
use super::health::{Health, response};
use super::preparer::Preparer;
use super::registration::Registration;
use super::rpc::{Answer, Server, Service, streaming, unary, unimplemented};
use super::socket::Socket;
use super::wire::{
    ClaimsRequest, NodeWatchResourcesRequest, PrepareResponse, PreparedClaim, UnprepareResponse,
    UnpreparedClaim, method,
};
use crate::DRIVER;
use futures_util::StreamExt as _;
use http::Request;
use hyper::body::Incoming;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

/// A plugin that serves the kubelet of this node.
#[derive(Debug)]
pub struct Plugin {
    registration: Registration,
    server: Server,
}

impl Plugin {
    /// Serves at `KUBELET_DIR/plugins/gpu.bailiwick.dev/dra-INSTANCE.sock`. The kubelet knows it once its registration was
    /// opened.
    pub fn start(
        kubelet_dir: &Path,
        instance: &str,
        preparer: Arc<Preparer>,
        health: watch::Receiver<Vec<Health>>,
    ) -> Result<Self, PluginError> {
        let endpoint = kubelet_dir.join("plugins").join(DRIVER).join(format!("dra-{instance}.sock"));
        let server = Server::start(Socket::bind(&endpoint)?, Arc::new(Driver { preparer, health }));
        let registration = Registration::new(&kubelet_dir.join("plugins_registry"), instance, &endpoint);
        Ok(Self { registration, server })
    }

    /// To open and close it.
    pub fn registration(&mut self) -> &mut Registration {
        &mut self.registration
    }

    /// How many are connected to it, now and later. A kubelet that has the plugin registered stays connected; none left means that it
    /// ended, and will delete the node's slices when it starts again.
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.server.connections()
    }

    /// Closes the registration, and lets calls under way end.
    pub async fn stop(mut self) {
        self.registration.close().await;
        self.server.stop().await;
    }
}

struct Driver {
    preparer: Arc<Preparer>,
    health: watch::Receiver<Vec<Health>>,
}

impl Service for Driver {
    fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            match request.uri().path() {
                method::PREPARE_V1 | method::PREPARE_V1BETA1 => {
                    unary(request, |asked: ClaimsRequest| {
                        let this = Arc::clone(&self);
                        async move { Ok(this.prepare(asked).await) }
                    })
                    .await
                }
                method::UNPREPARE_V1 | method::UNPREPARE_V1BETA1 => {
                    unary(request, |asked: ClaimsRequest| {
                        let this = Arc::clone(&self);
                        async move { Ok(this.unprepare(asked).await) }
                    })
                    .await
                }
                method::HEALTH_V1 | method::HEALTH_V1ALPHA1 => {
                    let all = WatchStream::new(self.health.clone()).map(|all| Ok(response(&all)));
                    streaming::<NodeWatchResourcesRequest, _, _>(request, all).await
                }
                _ => unimplemented(),
            }
        })
    }
}

impl Driver {
    async fn prepare(&self, asked: ClaimsRequest) -> PrepareResponse {
        let prepared = self.preparer.prepare(asked.claims).await.into_iter().map(|(uid, prepared)| {
            let entry = match prepared {
                Ok(devices) => {
                    tracing::info!(uid, devices = devices.len(), "prepared");
                    PreparedClaim { devices, error: String::new() }
                }
                Err(refusal) => {
                    tracing::warn!(uid, code = refusal.code(), %refusal, "not prepared");
                    PreparedClaim { devices: Vec::new(), error: refusal.told() }
                }
            };
            (uid, entry)
        });
        PrepareResponse { claims: prepared.collect() }
    }

    async fn unprepare(&self, asked: ClaimsRequest) -> UnprepareResponse {
        let unprepared = self.preparer.unprepare(asked.claims).await.into_iter().map(|(uid, unprepared)| {
            let error = match unprepared {
                Ok(()) => String::new(),
                Err(refusal) => {
                    tracing::warn!(uid, code = refusal.code(), %refusal, "not unprepared");
                    refusal.told()
                }
            };
            (uid, UnpreparedClaim { error })
        });
        UnprepareResponse { claims: unprepared.collect() }
    }
}
