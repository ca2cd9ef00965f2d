//! The `bailiwick-agent` command.

use std::process::ExitCode;

use agent::output::{self, Format};
use agent::probe::{self, ProbeArgs};
use agent::{Error, Exit};
use clap::{Parser, Subcommand};

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
}

impl Command {
    fn format(&self) -> Format {
        match self {
            Self::Probe(args) => args.output,
        }
    }

    fn run(&self) -> Result<(), Error> {
        match self {
            Self::Probe(args) => probe::run(args),
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = command.run();
    if let Err(error) = &outcome {
        output::report(error, command.format());
    }
    ExitCode::from(outcome.map_or_else(|error| error.exit(), |()| Exit::Ok).code())
}
