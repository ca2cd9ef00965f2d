//! `bailiwick agent-token`: lets the agent of one machine in.

use cell::api::types::AgentTokenRequest;
use clap::Args;
use domain::Name;

use crate::apply::parse_name;
use crate::args::Global;
use crate::client::Client;
use crate::errors::{Outcome, note};
use crate::output::{self, Format};
use crate::span::Span;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick agent-token r1-u01 > token
  bailiwick agent-token r1-u01 --expires 10m -o json

On the machine: bailiwick-agent enrol --cell https://CELL:8461 --token-file token
The token is good once, for this machine and this cell. A new one takes the place of one that was not used.")]
pub(crate) struct AgentTokenArgs {
    /// The machine
    #[arg(value_parser = parse_name)]
    machine: Name,
    /// How long it is good for, at most 7d [default: 1h]
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Form of the output [default: the bare token]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &AgentTokenArgs) -> Outcome {
    let request =
        AgentTokenRequest { expires_in_seconds: args.expires.map(|span| span.duration().as_secs()) };
    let token = Client::of(global)?.agent_token(&args.machine, &request).await?;
    let format = args.output.unwrap_or(Format::Table);
    if format == Format::Table {
        note(&format!("good once, for the agent of {}, for {} s", token.machine, token.expires_in_seconds));
    }
    // The secret is the output: it is shown this once and can be put into a file.
    output::value(format, &token, |token| format!("{}\n", token.token.0))
}
