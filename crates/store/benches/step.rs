//! What the reconciler adds to a step: claim, record, release. With commits that reach the disk.
//!
//! `cargo bench -p bailiwick-store --bench step` fails where `SQLite` takes more than 1 ms a step; `PostgreSQL` is reported.
//! Two ways are measured: machines one at a time, and 32 claimed and given back together, as the reconciler does when many are
//! due. Beside them, in turn with them, what the least commit of one row costs on the same disk in the same run: no step can cost less. Given are
//! medians of rounds, since others use the disk too. Run without `--bench` (as `cargo test --all-targets` does) it takes few steps and holds
//! nothing against the bar.
#![allow(clippy::print_stdout)] // what a benchmark is for

use bailiwick_store::{Lease, Store, StoreOptions};
use domain::Name;
use serde_json::json;
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::error::Error;
use std::time::{Duration, Instant};
use testbed::Postgres;

mod support;

const BAR: Duration = Duration::from_millis(1);
const MACHINES: u32 = 100;
/// Of a round.
const STEPS: u32 = 96;

/// Times of one step.
struct Figures {
    /// The least commit.
    commit: Duration,
    /// One machine at a time.
    alone: Duration,
    /// Many claimed and given back together.
    together: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let full = std::env::args().any(|argument| argument == "--bench");
    let rounds = if full { 31 } else { 1 };
    let directory = tempfile::tempdir()?;
    let url = |file: &str| format!("sqlite://{}?mode=rwc", directory.path().join(file).display());
    let sqlite = measure(&url("cell.db"), &url("least.db"), directory.path(), rounds).await?;
    report("SQLite", &sqlite);

    let server = Postgres::options().durable(true).start().await?;
    for database in ["cell", "least"] {
        server.create_database(database).await?;
    }
    let directory = tempfile::tempdir()?;
    let postgres = measure(&server.url("cell"), &server.url("least"), directory.path(), rounds).await?;
    report("PostgreSQL", &postgres);
    if full && sqlite.alone > BAR {
        let told = format!("a step on SQLite costs {:?}, more than {BAR:?}", sqlite.alone);
        return Err(format!("{told}; this disk takes {:?} for the least commit", sqlite.commit).into());
    }
    Ok(())
}

async fn measure(
    url: &str,
    least: &str,
    directory: &std::path::Path,
    rounds: usize,
) -> Result<Figures, Box<dyn Error>> {
    let url = url.trim_end_matches("?mode=rwc").to_owned();
    let options = StoreOptions { url, key_file: directory.join("key"), max_connections: 4 };
    let store = Store::open(options).await?;
    declare(&store).await?;
    let mut least = Least::new(least).await?;
    let (mut commits, mut alone, mut together) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        commits.push(least.commit().await?);
        alone.push(claimed(&store, 1).await?);
        together.push(claimed(&store, 32).await?);
    }
    store.close().await;
    Ok(Figures { commit: median(commits), alone: median(alone), together: median(together) })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A database of one row, with the store's settings.
struct Least(AnyConnection);

impl Least {
    async fn new(url: &str) -> Result<Self, Box<dyn Error>> {
        let mut database = AnyConnection::connect(url).await?;
        if url.starts_with("sqlite") {
            database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").await?;
        }
        database.execute("CREATE TABLE least (number BIGINT NOT NULL)").await?;
        database.execute("INSERT INTO least VALUES (0)").await?;
        Ok(Self(database))
    }

    /// The row is changed and that is committed: so long each time.
    async fn commit(&mut self) -> Result<Duration, Box<dyn Error>> {
        let start = Instant::now();
        for _ in 0..STEPS {
            sqlx::query("UPDATE least SET number = number + 1").execute(&mut self.0).await?;
        }
        Ok(start.elapsed() / STEPS)
    }
}

async fn declare(store: &Store) -> Result<(), Box<dyn Error>> {
    let support::Rack { plan, passwords } = support::rack(MACHINES)?;
    store.save_plan(&plan, &passwords, "bench").await?;
    store.apply_plan(&plan.digest, "bench").await?;
    store.live("replica", Duration::from_hours(1)).await?;
    Ok(())
}

/// Claims so many machines together, records one event of each, gives them back, until the round is done.
async fn claimed(store: &Store, together: usize) -> Result<Duration, Box<dyn Error>> {
    let site = Name::new("fra1")?;
    let start = Instant::now();
    let mut done = 0;
    while done < STEPS {
        let mut back = Vec::new();
        for lease in store.claim("replica", &site, together).await? {
            record(store, &lease, done).await?;
            done += 1;
            back.push((lease, Some(Duration::ZERO)));
        }
        store.release(&back).await?;
    }
    Ok(start.elapsed() / done)
}

async fn record(store: &Store, lease: &Lease, number: u32) -> Result<(), Box<dyn Error>> {
    let record = store.machine(&lease.machine).await?.ok_or("the machine has gone")?;
    let data = json!({ "step": "inspect", "by": "ironic", "action": number });
    store.note(&lease.machine, lease.guard(record.generation), None, "machine.acted", &data).await?;
    Ok(())
}

fn report(database: &str, figures: &Figures) {
    let Figures { commit, alone, together } = figures;
    println!(
        "{database}: claim + record + release {alone:.2?} a step, {together:.2?} where 32 are claimed together (bar: 1 ms on \
         SQLite); the least commit of one row {commit:.2?}"
    );
}
