//! The `bailiwick-agent` command.

#![allow(
    clippy::format_push_string,
    reason = "text for people is short; one that reads well counts for more"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::{Error, Exit};
use anstyle::{AnsiColor, Style};
use clap::{Args, Parser, Subcommand};
use domain::Diagnose as _;

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

#[derive(Args, Debug)]
struct ProbeArgs {
    /// The driver's library, where it is not the system's own
    #[arg(long, value_name = "PATH", env = "BAILIWICK_NVML")]
    nvml: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Probe(args) => probe(&args),
    };
    let Err(error) = outcome else { return ExitCode::from(Exit::Ok.code()) };
    report(&error);
    ExitCode::from(error.exit().code())
}

fn probe(args: &ProbeArgs) -> Result<(), Error> {
    let nvml = gpu::Nvml::open(args.nvml.as_deref())?;
    let host = gpu::HostRoot::default();
    let context = gpu::Context { host: &host, now: jiff::Timestamp::now(), previous: None };
    let probe = gpu::probe(&nvml, &context, &mut gpu::Xids::default())?;
    let document = serde_json::to_string_pretty(&probe).map_err(|error| Error::Output(error.into()))?;
    writeln!(anstream::stdout().lock(), "{document}").map_err(Error::Output)
}

/// Tells people on standard error why the command failed.
fn report(error: &Error) {
    if error.exit() == Exit::Ok {
        return;
    }
    let (head, problem) = (Style::new().bold().fg_color(Some(AnsiColor::Red.into())), error.problem());
    let mut text = format!("{head}error[{}]{head:#}: {}\n", problem.code, problem.message);
    if let Some(hint) = problem.hint {
        text += &format!("  hint: {hint}\n");
    }
    // Where even that cannot be written, the exit code has to do.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
