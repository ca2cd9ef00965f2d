//! Agents on machines: a listener of their own with mutual TLS, their certificates, reports and permits (DESIGN §5.6, §3.3).

mod authority;
mod pace;
mod permits;
mod request;
mod serve;
mod tls;

use crate::error::CellError;
use crate::listen;
use crate::settings::AgentSettings;
use crate::world::Snapshots;
use serve::Agents;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use authority::Authority;

/// An agent that has not reported for so many intervals is silent.
const PATIENCE: u32 = 3;

/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What the cell does for agents.
pub(crate) struct Service {
    /// Where they call.
    pub address: SocketAddr,
    /// Who signs their certificates: what a token's pin is of.
    pub authority: Arc<Authority>,
}

/// Opens the listener and serves it, and looks for agents that fell silent. `urgent` is told when what is published to
/// clusters has to change at once.
pub(crate) async fn start(
    store: &Store,
    cell: &str,
    settings: &AgentSettings,
    snapshots: Snapshots,
    urgent: Arc<Notify>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Service, CellError> {
    let authority = Arc::new(Authority::load(store, cell).await?);
    let signer = permits::Signer::load(store).await?;
    let failed = |source| CellError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let patience = settings.report_interval * PATIENCE;
    // The cell was away, so nobody could report: that is not their silence.
    store.spare_agents(patience).await?;
    let config = tls::config(Arc::clone(&authority))?;
    let agents = Agents {
        store: store.clone(),
        authority: Arc::clone(&authority),
        signer,
        snapshots,
        settings: settings.clone(),
        patience,
        pace: pace::Pace::default(),
        urgent: Arc::clone(&urgent),
    };
    tasks.spawn(listen::serve(listener, listen::Door::Mutual(config, serve::router(agents)), stop.clone()));
    tasks.spawn(listen_for_silence(store.clone(), urgent, stop.clone()));
    tracing::info!(%address, "serving agents");
    Ok(Service { address, authority })
}

async fn listen_for_silence(store: Store, urgent: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        match store.lapse_agents().await {
            Ok(silent) if silent.is_empty() => {}
            Ok(silent) => {
                for machine in silent {
                    tracing::warn!(%machine, "its agent is silent");
                }
                urgent.notify_one();
            }
            Err(error) => tracing::error!(code = error.code(), "cannot look for silent agents: {error}"),
        }
    }
}
