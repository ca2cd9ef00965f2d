//! One cell, from its settings to a running service and back.

use crate::agents;
use crate::api::{self, Api};
use crate::enrol::{Enroller, Requests};
use crate::error::CellError;
use crate::life::Life;
use crate::listen;
use crate::provision::{Services, UNSERVED};
use crate::publish::{Publisher, Status};
use crate::reconcile::{self, Limits};
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::world::Snapshots;
use domain::Name;
use domain::principal::Role;
use jiff::SignedDuration;
use redfish::Guards;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{BmcAccount, Store, StoreError, StoreOptions};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections that may read the database at once.
const READERS: u32 = 4;

/// Starts cells.
#[derive(Debug)]
pub struct Cell;

/// A running cell. Dropping it stops it without waiting; [`RunningCell::shutdown`] waits.
#[derive(Debug)]
pub struct RunningCell {
    address: SocketAddr,
    agents: Option<SocketAddr>,
    settings: Settings,
    store: Store,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Cell {
    /// Opens the database, binds the address, starts the reconciler and the publisher.
    pub async fn start(settings: Settings) -> Result<RunningCell, CellError> {
        let store = open(&settings).await?;
        let home = agree_on_jurisdiction(&store, settings.jurisdiction.as_ref()).await?;
        let cell = cell_id(&store).await?;
        first_token(&store, &settings.admin_token_file()).await?;

        let listener = tokio::net::TcpListener::bind(settings.listen).await;
        let listener = listener.map_err(|source| CellError::Listen { address: settings.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| CellError::Listen { address: settings.listen, source })?;

        let services = Services::new(&settings.provisioners).map_err(CellError::Provisioner)?;
        if !services.is_empty() {
            store.wake_unserved(&UNSERVED).await?;
        }
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let status = Status::default();
        let urgent = Arc::new(Notify::new());
        let agents = match &settings.agents {
            None => None,
            Some(wanted) => {
                let snapshots = Snapshots::new(store.clone(), home.clone());
                let urgent = Arc::clone(&urgent);
                Some(agents::start(&store, &cell, wanted, snapshots, urgent, &mut tasks, &stop).await?)
            }
        };
        let enroller = Enroller {
            store: store.clone(),
            secrets: Secrets::new(settings.secrets_dir.clone()),
            guards: Guards::default(),
            requests_per_bmc: settings.requests_per_bmc.max(1),
            requests: Requests::new(settings.requests_per_site),
        };
        let inviter = agents.as_ref().and_then(|agents| agents.inviter.clone());
        let life = Arc::new(Life::new(enroller, cell.clone(), services.clone(), inviter, settings.refresh));
        let limits = Limits { per_site: settings.machines_per_site.max(1), lease: settings.lease };
        tasks.spawn(reconcile::run(life, limits, stop.clone()));
        let publisher = Publisher {
            store: store.clone(),
            home: home.clone(),
            cell: home.clone(),
            id: cell.clone(),
            cluster_user: settings.cluster_user.clone(),
            status: status.clone(),
            urgent,
        };
        tasks.spawn(publisher.run(settings.sinks.clone(), stop.clone()));
        let api = Api {
            store: store.clone(),
            home,
            cell,
            status,
            services,
            hosts: hosts(&settings, address),
            machines_per_site: settings.machines_per_site.max(1),
            authority: agents.as_ref().map(|agents| Arc::clone(&agents.authority)),
            stop: stop.clone(),
        };
        let router = api::router(api);
        tasks.spawn(listen::serve(listener, listen::Door::Plain(listen::Plain::new(router)), stop.clone()));
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "tokens and passwords travel unencrypted: put a TLS proxy in front of the API");
        }
        tracing::info!(%address, "serving");
        let agents = agents.map(|agents| agents.address);
        Ok(RunningCell { address, agents, settings, store, stop, tasks })
    }
}

/// The passwords that a cell has made for a machine's BMC, the cell's own first: for people who have to log in there when the
/// cell cannot help them. Needs the database and its key, as the cell does, and leaves an event.
pub async fn bmc_accounts(settings: &Settings, machine: &Name) -> Result<Vec<BmcAccount>, CellError> {
    let store = open(settings).await?;
    let read = async {
        let accounts = store.bmc_accounts(machine).await?;
        if !accounts.is_empty() {
            store.note_bmc_accounts_read(machine, "local").await?;
        }
        Ok(accounts)
    };
    let accounts = read.await;
    store.close().await;
    accounts
}

async fn open(settings: &Settings) -> Result<Store, CellError> {
    make_private_dir(&settings.data_dir)?;
    let options = StoreOptions {
        url: settings.database_url(),
        key_file: settings.data_dir.join("cell.key"),
        max_connections: READERS,
    };
    Ok(Store::open(options).await?)
}

impl RunningCell {
    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for agents, if it does.
    pub fn agents_address(&self) -> Option<SocketAddr> {
        self.agents
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From now on the cell reads its database's clock as so much later: see [`Store::put_clock_forward`]. For tests.
    pub fn put_clock_forward(&self, by: SignedDuration) {
        self.store.put_clock_forward(by);
    }

    /// Stops taking calls, ends what is under way, closes the database.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.store.close().await;
    }
}

impl Drop for RunningCell {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn make_private_dir(path: &Path) -> Result<(), CellError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| CellError::DataDir { path: path.to_owned(), source })
}

async fn agree_on_jurisdiction(store: &Store, wanted: Option<&Name>) -> Result<Name, CellError> {
    const KEY: &str = "jurisdiction";
    let known = store.meta(KEY).await?;
    match (known, wanted) {
        (None, None) => Err(CellError::NoJurisdiction),
        (None, Some(wanted)) => {
            store.set_meta_once(KEY, wanted.as_str()).await?;
            Ok(wanted.clone())
        }
        (Some(found), Some(wanted)) if found != wanted.as_str() => {
            Err(CellError::JurisdictionFixed { found, expected: wanted.clone() })
        }
        (Some(found), _) => Name::new(found).map_err(|error| StoreError::Corrupt(error.to_string()).into()),
    }
}

async fn cell_id(store: &Store) -> Result<String, CellError> {
    const KEY: &str = "cell";
    if store.meta(KEY).await?.is_none() {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
        match store.set_meta_once(KEY, &hex::encode(bytes)).await {
            // Another replica was faster.
            Ok(()) | Err(StoreError::MetaConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(store.meta(KEY).await?.unwrap_or_default())
}

/// Makes the first token, once. A crash between database and file is mended by making it again: a token whose file was never
/// written is known to nobody.
async fn first_token(store: &Store, path: &Path) -> Result<(), CellError> {
    const NAME: &str = "first-admin";
    if path.exists() && !is_unknown(store, path).await? {
        warn_if_readable_by_others(path);
        return Ok(());
    }
    let tokens = store.tokens().await?;
    let now = store.clock().await?;
    let live = |name: &str| tokens.iter().any(|token| token.name == name && token.is_live(now));
    if live(NAME) {
        let another =
            tokens.iter().any(|token| token.name != NAME && token.role == Role::Admin && token.is_live(now));
        if another {
            // Deleted on purpose, since there is another way in.
            return Ok(());
        }
        store.revoke_token(NAME, "cell").await?;
    } else if !tokens.is_empty() {
        return Ok(());
    }
    let token = store.create_token(NAME, Role::Admin, None, "cell").await?;
    write_private(path, token.as_bytes())
        .map_err(|source| CellError::DataDir { path: path.to_owned(), source })
}

/// Whether the file holds a token that this database never gave out: it is another database's, so nobody could log in with it.
async fn is_unknown(store: &Store, path: &Path) -> Result<bool, CellError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| CellError::DataDir { path: path.to_owned(), source })?;
    Ok(store.tokens().await?.is_empty() && store.authenticate(text.trim()).await?.is_none())
}

fn warn_if_readable_by_others(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            mode = format!("{:04o}", mode & 0o7777),
            "others may read {}; chmod 600 it",
            path.display()
        );
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = PathBuf::from(format!("{}.unfinished", path.display()));
    let _ = std::fs::remove_file(&unfinished);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

/// By which hosts the API may be called: guards a cell on loopback against web pages that rebind their name to it.
fn hosts(settings: &Settings, address: SocketAddr) -> Vec<String> {
    let mut hosts = settings.hosts.clone();
    hosts.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()]);
    hosts.push(match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    });
    hosts
}
