//! Bringing what is published in line with what is known: render, then write to each sink what differs.

mod claims;
mod cluster;
mod directory;
mod evict;
mod nodes;
mod refusals;
mod server;
mod watch;

use crate::error::coded;
use crate::settings::SinkSettings;
use crate::world::World;
use domain::{Name, Problem};
use dra::Input;
use futures_util::future::select_all;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::types::Publication;
pub(crate) use claims::Allocations;
use cluster::Cluster;
use directory::Directory;

/// Events that come within this time are published together.
const GATHER: Duration = Duration::from_millis(100);

/// Changes are never left unpublished for longer because publishing takes long.
const LONGEST_REST: Duration = Duration::from_secs(3);

/// Look again after this time, whatever happened: a watch may miss what others do, and Nodes are not watched.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Time until the next try after a sink failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What writing to a sink came to.
#[derive(Debug, Default)]
// `written` is one of its counts, and the word for it.
#[allow(clippy::struct_field_names)]
pub(crate) struct Written {
    pub objects: usize,
    pub written: usize,
    pub pruned: usize,
    pub left_out: Vec<Problem>,
    /// Who has our devices, where the sink can tell.
    pub allocations: Allocations,
    /// Until something that was refused is to be tried again.
    pub again: Option<Duration>,
    /// Pods that were asked to go: the machine, and more.
    pub evicted: Vec<(String, serde_json::Value)>,
    /// How the objects that stand there were left.
    left: watch::Left,
}

impl Written {
    /// An object stands there as it should.
    fn leave(&mut self, key: refusals::Key, version: Option<&String>) {
        self.left.insert(key, version.cloned().unwrap_or_default());
    }
}

enum Sink {
    Directory(Arc<Mutex<Directory>>),
    Cluster(Box<Cluster>),
}

impl Sink {
    fn name(&self) -> String {
        match self {
            Self::Directory(directory) => {
                format!(
                    "directory {}",
                    directory.lock().unwrap_or_else(PoisonError::into_inner).root().display()
                )
            }
            Self::Cluster(cluster) => format!("cluster {}", cluster.name()),
        }
    }

    async fn write(&mut self, input: &Input, world: &World) -> Result<Written, Problem> {
        match self {
            Self::Directory(directory) => {
                let (directory, input) = (Arc::clone(directory), input.clone());
                let write = move || {
                    directory.lock().unwrap_or_else(PoisonError::into_inner).write(&dra::publish(&input))
                };
                let written = tokio::task::spawn_blocking(write).await;
                written.unwrap_or_else(|error| Err(coded("api.internal", error.to_string())))
            }
            Self::Cluster(cluster) => cluster.write(input, world).await,
        }
    }

    /// Returns when what was written there is to be looked at at once.
    async fn differs(&mut self) {
        match self {
            Self::Directory(_) => std::future::pending().await,
            Self::Cluster(cluster) => cluster.differs().await,
        }
    }
}

/// The publisher of a cell.
pub(crate) struct Publisher {
    pub store: Store,
    pub home: Name,
    pub cell: Name,
    /// Identity of the cell, made with its database.
    pub id: String,
    pub cluster_user: String,
    pub status: Status,
    /// Told when clusters have to change at once: a node's plugin came or went.
    pub urgent: Arc<Notify>,
}

/// How the last publication to each sink went, for the API.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status(Arc<Mutex<Vec<Publication>>>, Arc<Mutex<BTreeMap<usize, Allocations>>>);

impl Status {
    pub(crate) fn all(&self) -> Vec<Publication> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who has a machine's devices, as was seen at the last publication.
    pub(crate) fn allocations(&self) -> Allocations {
        let all = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let mut merged = Allocations::new();
        for (device, allocations) in all.values().flatten() {
            merged.entry(device.clone()).or_default().extend(allocations.iter().cloned());
        }
        merged
    }

    fn set_allocations(&self, at: usize, allocations: Allocations) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).insert(at, allocations);
    }

    fn set(&self, at: usize, publication: Publication) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.get_mut(at) {
            *place = publication;
        }
    }
}

impl Publisher {
    /// Runs until it is cancelled. A cut-off publication is taken up by the next.
    pub(crate) async fn run(self, settings: Vec<SinkSettings>, stop: CancellationToken) {
        let mut sinks: Vec<Sink> = settings.into_iter().map(|settings| self.sink(settings)).collect();
        let none = |sink: &Sink| Publication {
            sink: sink.name(),
            at: None,
            through: 0,
            objects: 0,
            written: 0,
            pruned: 0,
            left_out: Vec::new(),
            problem: None,
        };
        *self.status.0.lock().unwrap_or_else(PoisonError::into_inner) = sinks.iter().map(none).collect();
        if sinks.is_empty() {
            return;
        }
        let mut changed = self.store.changed();
        loop {
            changed.mark_unchanged();
            let began = Instant::now();
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = self.publish(&mut sinks) => pause,
            };
            // Publishing takes at most a fifth of the time, however much happens, unless it is slow itself.
            let rest = (began.elapsed() * 4).clamp(GATHER, LONGEST_REST);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = async { let _ = changed.changed().await; tokio::time::sleep(rest).await } => {}
                () = self.urgent.notified() => {}
                _ = select_all(sinks.iter_mut().map(|sink| Box::pin(sink.differs()))) => {}
            }
        }
    }

    fn sink(&self, settings: SinkSettings) -> Sink {
        match settings {
            SinkSettings::Directory(root) => {
                Sink::Directory(Arc::new(Mutex::new(Directory::new(root, &self.id))))
            }
            SinkSettings::Cluster { kubeconfig, context } => {
                Sink::Cluster(Box::new(Cluster::new(kubeconfig, context, self.cell.clone())))
            }
        }
    }

    /// Brings every sink in line. Says when to look again.
    async fn publish(&self, sinks: &mut [Sink]) -> Duration {
        // Read before the world, so that it is never ahead of what was published.
        let (through, world) = match self.read().await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(code = error.code(), "nothing can be published: {error}");
                return AFTER_FAILURE;
            }
        };
        let input = world.input(&self.cell, &self.cluster_user);
        let mut pause = LOOK_AGAIN;
        for (at, sink) in sinks.iter_mut().enumerate() {
            let result = sink.write(&input, &world).await;
            pause = pause.min(match &result {
                Ok(written) => written.again.unwrap_or(LOOK_AGAIN),
                Err(_) => AFTER_FAILURE,
            });
            let publication = self.account(sink.name(), at, through, result).await;
            self.status.set(at, publication);
        }
        pause
    }

    async fn read(&self) -> Result<(i64, World), store::StoreError> {
        let through = self.store.last_event().await?;
        Ok((through, World::read(&self.store, &self.home).await?))
    }

    async fn account(
        &self,
        sink: String,
        at: usize,
        through: i64,
        result: Result<Written, Problem>,
    ) -> Publication {
        let before = self.status.all().into_iter().nth(at);
        match result {
            Ok(Written { objects, written, pruned, left_out, allocations, evicted, .. }) => {
                self.status.set_allocations(at, allocations);
                for (machine, data) in evicted {
                    tracing::warn!(machine, "a pod was asked to go: {data}");
                    if let Err(error) = self.store.append_event("pod.evicted", &machine, "cell", &data).await
                    {
                        tracing::error!(code = error.code(), "an event is lost: {error}");
                    }
                }
                if written + pruned > 0 {
                    tracing::info!(sink, written, pruned, "published");
                    let data =
                        serde_json::json!({ "written": written, "pruned": pruned, "objects": objects });
                    if let Err(error) =
                        self.store.append_event("publication.written", &sink, "cell", &data).await
                    {
                        tracing::error!(code = error.code(), "an event is lost: {error}");
                    }
                }
                Publication {
                    sink,
                    at: Some(Timestamp::now()),
                    through,
                    objects,
                    written,
                    pruned,
                    left_out,
                    problem: None,
                }
            }
            Err(problem) => {
                let known = before.as_ref().and_then(|publication| publication.problem.as_ref());
                if known.is_none_or(|known| known.code != problem.code) {
                    tracing::error!(sink, code = problem.code, "{problem}");
                }
                let (at, through, objects) =
                    before.map_or((None, 0, 0), |before| (before.at, before.through, before.objects));
                Publication {
                    sink,
                    at,
                    through,
                    objects,
                    written: 0,
                    pruned: 0,
                    left_out: Vec::new(),
                    problem: Some(problem),
                }
            }
        }
    }
}
