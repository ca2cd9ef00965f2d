//! Registration with the kubelet: it watches a directory for sockets, asks whoever listens who that is, and forgets them when
//! the socket's file goes. So a registration is opened and closed by making and removing that file.
//!
//! The kubelet sends the socket's path, percent-encoded, as `:authority`, and the h2 crate refuses an authority with
//! percent-encoding in its host. An `@` in the file's name makes everything before it user information, where that is allowed:
//! docs/decisions/0016.

use super::error::PluginError;
use super::rpc::{Answer, Server, Service, unary, unimplemented};
use super::socket::{Socket, remove_if_dead};
use super::wire::{
    InfoRequest, PLUGIN_TYPE, PluginInfo, RegistrationStatus, RegistrationStatusResponse, SUPPORTED_VERSIONS,
    method,
};
use crate::DRIVER;
use http::Request;
use hyper::body::Incoming;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Where a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// There is no socket, so the kubelet knows nothing of us, and deletes our slices after about 30 seconds.
    Closed,
    /// The kubelet has not told yet.
    Waiting,
    /// The kubelet took it, then. Another time means that it was registered anew: the kubelet may have deleted slices meanwhile.
    Registered(SystemTime),
    /// The kubelet refused it, and says why. It tries again by itself.
    Refused(String),
}

/// A registration that can be opened and closed.
#[derive(Debug)]
pub struct Registration {
    directory: PathBuf,
    instance: String,
    endpoint: String,
    state: Arc<watch::Sender<RegistrationState>>,
    server: Option<Server>,
}

impl Registration {
    /// For a plugin that serves at `endpoint`, with the kubelet that watches `directory` (`/var/lib/kubelet/plugins_registry`).
    /// Two plugins at once, as during an update, need different instances: `[a-z0-9-]`, and short, since the whole path has at
    /// most 107 bytes. It is closed at first.
    pub fn new(directory: &Path, instance: &str, endpoint: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            instance: instance.to_owned(),
            endpoint: endpoint.display().to_string(),
            state: Arc::new(watch::Sender::new(RegistrationState::Closed)),
            server: None,
        }
    }

    /// Where it stands, now and later.
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.subscribe()
    }

    /// Makes the socket, if it is not there. The kubelet answers within about a second.
    pub fn open(&mut self) -> Result<(), PluginError> {
        if self.server.is_some() {
            return Ok(());
        }
        self.open_as(&self.directory.join(format!("{}@{}", self.instance, socket_suffix())))
    }

    fn open_as(&mut self, path: &Path) -> Result<(), PluginError> {
        self.remove_dead();
        let socket = Socket::bind(path)?;
        self.state.send_replace(RegistrationState::Waiting);
        let service = Introduction { endpoint: self.endpoint.clone(), state: Arc::clone(&self.state) };
        self.server = Some(Server::start(socket, Arc::new(service)));
        tracing::info!(socket = %path.display(), "registration opened");
        Ok(())
    }

    /// Removes the socket: the kubelet forgets us at once.
    pub async fn close(&mut self) {
        let Some(server) = self.server.take() else { return };
        tracing::info!(socket = %server.path().display(), "registration closed");
        server.stop().await;
        self.state.send_replace(RegistrationState::Closed);
    }

    /// The kubelet tries for ever to reach what killed instances left.
    fn remove_dead(&self) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(&format!("@{}", socket_suffix()))
                && let Err(error) = remove_if_dead(&entry.path())
            {
                tracing::warn!(socket = %entry.path().display(), %error, "a dead socket was not removed");
            }
        }
    }
}

/// A host name, for it stands where the authority has its host.
fn socket_suffix() -> String {
    format!("{DRIVER}-reg.sock")
}

/// Tells the kubelet who we are.
struct Introduction {
    endpoint: String,
    state: Arc<watch::Sender<RegistrationState>>,
}

impl Service for Introduction {
    fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(async move {
            match request.uri().path() {
                method::GET_INFO => {
                    // A kubelet that asks, also one that was registered before and started anew, has not decided yet.
                    self.state.send_replace(RegistrationState::Waiting);
                    unary(request, |_: InfoRequest| async {
                        Ok(PluginInfo {
                            r#type: PLUGIN_TYPE.to_owned(),
                            name: DRIVER.to_owned(),
                            endpoint: self.endpoint.clone(),
                            supported_versions: SUPPORTED_VERSIONS.map(str::to_owned).to_vec(),
                        })
                    })
                    .await
                }
                method::NOTIFY => {
                    unary(request, |status: RegistrationStatus| {
                        self.notified(status);
                        async { Ok(RegistrationStatusResponse {}) }
                    })
                    .await
                }
                _ => unimplemented(),
            }
        })
    }
}

impl Introduction {
    fn notified(&self, status: RegistrationStatus) {
        let state = if status.plugin_registered {
            tracing::info!("registered with the kubelet");
            RegistrationState::Registered(SystemTime::now())
        } else {
            tracing::warn!(error = status.error, "the kubelet refused the registration");
            RegistrationState::Refused(status.error)
        };
        self.state.send_replace(state);
    }
}
