//! The `bailiwick-agent` command.

use std::process::ExitCode;

use agent::completions::{self, CompletionsArgs};
use agent::enrol::{self, EnrolArgs};
use agent::output::{self, Format};
use agent::probe::{self, ProbeArgs};
use agent::reference::{self, ReferenceArgs};
use agent::run::{ReadyArgs, RunArgs};
use agent::{Error, Exit};
use clap::{CommandFactory as _, Parser, Subcommand};

/// The node agent of Bailiwick
#[derive(Parser, Debug)]
#[command(name = "bailiwick-agent", version, after_help = Exit::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Tell what the driver knows of this host's GPUs
    Probe(ProbeArgs),
    /// Make this host's agent known to its cell, by a one-time token
    Enrol(EnrolArgs),
    /// Hand out this host's GPUs to pods, as far as the cell permits
    Run(RunArgs),
    /// Tell whether this host's agent has its plugin registered, where it needs to be
    Ready(ReadyArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Write the page of docs/reference/ that tells of this program
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Probe(args) => args.output,
            Self::Enrol(args) => args.output,
            Self::Run(_) | Self::Ready(_) | Self::Completions(_) | Self::Reference(_) => Format::Table,
        }
    }

    fn run(&self) -> Result<(), Error> {
        match self {
            Self::Probe(args) => probe::run(args),
            Self::Enrol(args) => enrol::run(args),
            Self::Run(args) => {
                log();
                args.run()
            }
            Self::Ready(args) => args.run(),
            Self::Completions(args) => completions::run(args, Cli::command()),
            Self::Reference(args) => reference::run(args, Cli::command()),
        }
    }
}

/// One JSON object a line on standard error, for whoever collects logs.
fn log() {
    let level = tracing_subscriber::EnvFilter::try_from_env("BAILIWICK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(level).with_writer(std::io::stderr).init();
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = command.run();
    if let Err(error) = &outcome {
        output::report(error, command.format());
    }
    ExitCode::from(outcome.map_or_else(|error| error.exit(), |()| Exit::Ok).code())
}
