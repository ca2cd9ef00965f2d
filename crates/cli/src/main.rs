//! The `bailiwick` command.

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "text for people is short; one that reads well counts for more than an allocation"
)]

mod accept;
mod agent_token;
mod apply;
mod args;
mod assign;
mod bmc_password;
mod client;
mod codes;
mod completions;
mod config;
mod context;
mod declarations;
mod describe;
mod discover;
mod errors;
mod exit;
mod explain;
mod files;
mod firmware;
mod get;
mod history;
mod inspect;
mod inspect_ipmi;
mod inventory_table;
mod leases;
mod line;
mod output;
mod plan;
mod progress;
mod quickstart;
mod rack;
mod reference;
mod render;
mod serve;
mod shell;
mod signals;
mod sim;
mod span;
mod targets;
mod token;
mod version;

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::Parser as _;

use crate::args::{Cli, Colour, Command, Global};
use crate::errors::{Failure, Outcome};
use crate::output::Format;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.global.color {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    }
    .write_global();
    let json = cli.command.output() == Some(Format::Json);
    let outcome = start(cli);
    if let Err(failure) = &outcome {
        failure.report(json);
    }
    ExitCode::from(outcome.map_or_else(|failure| failure.exit(), |()| exit::Exit::Ok).code())
}

fn start(cli: Cli) -> Outcome {
    // One provider of cryptography in the process (docs/decisions/0002); there is none before, so this cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new("runtime", format!("the program cannot start: {error}")))?;
    let outcome = runtime.block_on(run(cli));
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

async fn run(cli: Cli) -> Outcome {
    signals::listen()?;
    let Cli { global, command } = cli;
    match command {
        // These end what they began when they are interrupted.
        Command::Inspect(args) => Box::pin(inspect::run(&args)).await,
        Command::Quickstart(args) => Box::pin(quickstart::run(&args)).await,
        Command::Serve(args) => Box::pin(serve::run(*args)).await,
        Command::Sim(args) => Box::pin(sim::run(&args)).await,
        command => signals::interruptible(Box::pin(simple(&global, command))).await,
    }
}

/// Commands that leave nothing behind wherever they stop.
async fn simple(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Discover(args) => discover::run(&args).await,
        Command::Get(args) => get::run(global, &args).await,
        Command::Apply(args) => apply::run(global, &args).await,
        Command::Delete(args) => apply::delete(global, &args).await,
        Command::Plan(args) => plan::run(global, &args).await,
        Command::Describe(args) => describe::run(global, &args).await,
        Command::Why(args) => describe::why(global, &args).await,
        Command::History(args) => history::run(global, &args).await,
        Command::Refresh(args) => history::refresh(global, &args).await,
        Command::Provision(args) => assign::provision(global, &args).await,
        Command::Drain(args) => assign::drain(global, &args).await,
        Command::Release(args) => assign::release(global, &args).await,
        Command::Retire(args) => assign::retire(global, &args).await,
        Command::Quarantine(args) => assign::quarantine(global, &args).await,
        Command::Unquarantine(args) => assign::unquarantine(global, &args).await,
        Command::Render(args) => render::run(global, &args).await,
        Command::Firmware(args) => firmware::run(global, &args).await,
        Command::Explain(args) => explain::run(&args),
        Command::Token(args) => token::run(global, &args).await,
        Command::Accept(args) => accept::run(global, &args).await,
        Command::AgentToken(args) => agent_token::run(global, &args).await,
        Command::BmcPassword(args) => bmc_password::run(&args).await,
        Command::Context(args) => context::run(global, &args),
        Command::Version(args) => version::run(global, &args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Reference(args) => reference::run(&args),
        Command::Inspect(_) | Command::Quickstart(_) | Command::Serve(_) | Command::Sim(_) => Ok(()),
    }
}
