//! `bailiwick bmc-password`: the passwords that a cell has made, for people who have to log in where the cell cannot help.

use std::path::PathBuf;

use clap::Args;
use domain::Name;
use serde_json::json;

use crate::apply::parse_name;
use crate::config::{self, Keys};
use crate::errors::{Failure, Outcome, failed};
use crate::output::{self, Format};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick bmc-password r1-u04 --data-dir /var/lib/bailiwick
  bailiwick bmc-password r1-u04 --config /etc/bailiwick/cell.toml -o json

Run it where the cell runs: it reads the cell's database and the key beside it. No API gives a password out. A database in a
file belongs to one process: end the cell first. That somebody has read them becomes an event.")]
pub(crate) struct BmcPasswordArgs {
    /// The machine
    #[arg(value_parser = parse_name)]
    machine: Name,
    /// Configuration file of the cell (TOML)
    #[arg(long, short, value_name = "FILE", env = "BAILIWICK_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Where the cell keeps its database and key
    #[arg(long, value_name = "DIR", env = "BAILIWICK_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// `postgres://…`, where the database is no file in the data directory
    #[arg(long, value_name = "URL", env = "BAILIWICK_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: &BmcPasswordArgs) -> Outcome {
    let file = args.config.as_deref().map(config::read).transpose()?.unwrap_or_default();
    let keys =
        Keys { data_dir: args.data_dir.clone(), database_url: args.database_url.clone(), ..Keys::default() };
    let settings = keys.or(file).settings();
    // Opening a database makes one where there is none: that would only hide a wrong path.
    if !settings.data_dir.join("cell.key").exists() {
        let message = format!("{} holds no key of a cell", settings.data_dir.display());
        return Err(Failure::new("store.key-missing", message));
    }
    let accounts = cell::bmc_accounts(&settings, &args.machine).await.map_err(|error| failed(&error))?;
    if accounts.is_empty() {
        let message = format!("the cell has made no password for the BMC of Machine/{}", args.machine);
        return Err(Failure::new("machine.no-own-password", message));
    }
    let shown: Vec<_> = accounts
        .iter()
        .map(|account| {
            json!({
                "holder": account.holder, "username": account.username, "password": account.password.as_str(),
                "previous": account.previous.as_ref().map(|previous| previous.as_str()),
            })
        })
        .collect();
    output::value(args.output.unwrap_or(Format::Table), &shown, |_| {
        let rows = accounts.iter().map(|account| {
            let holder = serde_json::to_value(account.holder).unwrap_or_default();
            vec![
                holder.as_str().unwrap_or_default().to_owned(),
                account.username.clone(),
                account.password.to_string(),
                account.previous.as_ref().map_or_else(|| "-".to_owned(), |previous| previous.to_string()),
            ]
        });
        output::table(&["HOLDER", "USERNAME", "PASSWORD", "OR STILL"], rows)
    })
}
