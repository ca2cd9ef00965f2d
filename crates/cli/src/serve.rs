//! `bailiwick serve`: one cell, until it is asked to end.

use std::path::PathBuf;

use cell::{Cell, RunningCell};
use clap::Args;

use crate::config::{self, Keys, LogFormat};
use crate::errors::{Failure, Outcome, failed, note};
use crate::signals::{asked_again, asked_to_end};
use tracing_subscriber::EnvFilter;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick serve --jurisdiction eu --publish-directory /var/lib/bailiwick/publish
  bailiwick serve --config /etc/bailiwick/cell.toml
  BAILIWICK_DATABASE_URL=postgres://… bailiwick serve --config cell.toml --listen 0.0.0.0:8460 --hosts cell.example

A flag goes before the environment, the environment before the file, the file before the default.
The first token, of an admin, is written to DATA-DIR/admin.token, mode 0600.")]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE", env = "BAILIWICK_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Outcome {
    let file = args.config.as_deref().map(config::read).transpose()?;
    let keys = args.keys.or(file.unwrap_or_default());
    keys.check()?;
    start_log(keys.log_format.unwrap_or(LogFormat::Text), keys.log_level.as_deref().unwrap_or("info"))?;
    let running = Cell::start(keys.settings()).await.map_err(|error| failed(&error))?;
    note(&greeting(&running));
    asked_to_end().await;
    note("ending: calls under way are finished; asked again, it ends at once");
    tokio::select! {
        () = running.shutdown() => Ok(()),
        () = asked_again() => Err(Failure::Interrupted),
    }
}

fn greeting(running: &RunningCell) -> String {
    let token = running.settings().admin_token_file();
    let server = format!("http://{}", running.address());
    let file = crate::shell::quote(&token.display().to_string());
    let agents = running
        .agents_address()
        .map(|address| format!("agents call https://{address}\n"))
        .unwrap_or_default();
    format!(
        "serving on {server}\n{agents}first token in {}\ntry: bailiwick --server {server} --token-file {file} version",
        token.display()
    )
}

/// The log goes to standard error.
pub(crate) fn start_log(format: LogFormat, filter: &str) -> Outcome {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        crate::errors::problem("config.malformed", format!("the log level {filter:?} is no filter: {error}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder
            .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
            .try_init(),
    };
    started.map_err(|error| Failure::new("runtime", format!("the log cannot be started: {error}")))
}
