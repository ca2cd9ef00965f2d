//! `bailiwick-agent enrol`: makes this host's agent known to its cell, once.

use crate::cell::{self, StateDir};
use crate::error::Error;
use crate::output::{self, Format};
use clap::Args;
use domain::agent::STATE_DIR;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most bytes of a file that holds a token.
const LONGEST_TOKEN: u64 = 4096;

/// Arguments of the command.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent enrol --cell https://cell.example:8461 --token-file token
  ssh admin-host bailiwick agent-token r1-u01 | bailiwick-agent enrol --cell https://cell.example:8461 --token-file -

`bailiwick agent-token MACHINE` makes the token. It is good once; where the answer is lost, for this host again.")]
pub struct EnrolArgs {
    /// Where the cell listens for agents
    #[arg(long, value_name = "URL", env = "BAILIWICK_CELL", hide_env_values = true)]
    cell: String,
    /// File that holds the one-time token; - for standard input
    #[arg(long, value_name = "FILE", env = "BAILIWICK_AGENT_TOKEN_FILE", hide_env_values = true)]
    token_file: PathBuf,
    /// Where the agent keeps its certificate
    #[arg(long, value_name = "DIR", env = "BAILIWICK_STATE_DIR", hide_env_values = true, default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Where the host's /proc and /sys are found, in a container
    #[arg(
        long,
        value_name = "PATH",
        env = "BAILIWICK_HOST_ROOT",
        hide_env_values = true,
        default_value = "/"
    )]
    host_root: PathBuf,
    /// Form of the output
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Format,
}

/// Runs the command.
pub fn run(args: &EnrolArgs) -> Result<(), Error> {
    let token = read_token(&args.token_file)?;
    let dir = StateDir::open(&args.state_dir)?;
    let uuid = gpu::HostRoot::at(&args.host_root).host().system_uuid;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Output)?;
    let enrolled = runtime.block_on(cell::enrol(&dir, &args.cell, token.trim(), uuid));
    let identity = enrolled.map_err(|error| used_here(error, &dir))?;
    match args.output {
        Format::Json => output::json(&serde_json::json!({
            "machine": identity.machine, "cell": identity.cell, "stateDir": args.state_dir,
        })),
        Format::Table => output::text(&format!("This is the agent of {} now.\n", identity.machine)),
    }
}

/// A token that was used before, by this very agent perhaps: no reason to be alarmed.
fn used_here(error: cell::Error, dir: &StateDir) -> cell::Error {
    let cell::Error::Refused { mut problem, retry_after } = error else { return error };
    if problem.code == "agent.token-used"
        && let Ok(identity) = dir.identity()
    {
        problem.hint = Some(format!(
            "This host is enrolled as the agent of {} already: unless `bailiwick-agent run` is refused, nothing needs to be done.",
            identity.machine
        ));
    }
    cell::Error::Refused { problem, retry_after }
}

fn read_token(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LONGEST_TOKEN).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text))
    };
    read.map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    Ok(text)
}
