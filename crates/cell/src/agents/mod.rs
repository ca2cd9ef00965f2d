//! Agents on machines: a listener of their own with mutual TLS, their certificates, reports and permits (DESIGN §5.6, §3.3).

mod authority;
mod invitation;
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
pub(crate) use invitation::Inviter;

/// An agent that has not reported for so many intervals is silent.
const PATIENCE: u32 = 3;

/// An agent calls once in so long, on average; so often at once, after a pause: a host whose GPUs, claims and registration change
/// together.
const CALLS: (Duration, u32) = (Duration::from_millis(500), 20);

/// A machine's token is used once in so long: twice at most where all is well.
const ENROLMENTS: (Duration, u32) = (Duration::from_secs(2), 20);

/// An agent tells of so many changes. Each is an event, and has clusters written to; of more the last state is told once there is
/// room again, since a report says how things are and not what changed.
const CHANGES: (Duration, u32) = (Duration::from_secs(30), 40);

/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What the cell does for agents.
pub(crate) struct Service {
    /// Where they call.
    pub address: SocketAddr,
    /// Who signs their certificates: what a token's pin is of.
    pub authority: Arc<Authority>,
    /// Has machines that are provisioned enrol their own.
    pub inviter: Option<Inviter>,
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
        calls: pace::Pace::new(CALLS.0, CALLS.1),
        enrolments: pace::Pace::new(ENROLMENTS.0, ENROLMENTS.1),
        changes: pace::Pace::new(CHANGES.0, CHANGES.1),
        urgent: Arc::clone(&urgent),
    };
    let door = listen::Mutual::new(config, serve::router(agents), |certificate| {
        authority::read(certificate).map(|named| *named.enrolment.bytes())
    });
    tasks.spawn(listen::serve(listener, listen::Door::Mutual(door), stop.clone()));
    tasks.spawn(listen_for_silence(store.clone(), urgent, stop.clone()));
    tracing::info!(%address, "serving agents");
    let inviter = settings.url.clone().map(|url| Inviter::new(url, *authority.pin()));
    Ok(Service { address, authority, inviter })
}

async fn listen_for_silence(store: Store, urgent: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let silent = store.lapse_agents().await.map(|machines| (machines, "its agent is silent"));
        let untold = store.lapse_probes().await;
        let untold =
            untold.map(|machines| (machines, "its agent says that its GPUs have changed, and not how"));
        for lapsed in [silent, untold] {
            match lapsed {
                Ok((machines, what)) => {
                    for machine in &machines {
                        tracing::warn!(%machine, "{what}");
                    }
                    if !machines.is_empty() {
                        urgent.notify_one();
                    }
                }
                Err(error) => tracing::error!(code = error.code(), "cannot look for silent agents: {error}"),
            }
        }
    }
}
