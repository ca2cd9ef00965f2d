//! The command line as a whole.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::accept::AcceptArgs;
use crate::agent_token::AgentTokenArgs;
use crate::apply::{ApplyArgs, DeleteArgs};
use crate::assign::{DrainArgs, ProvisionArgs, QuarantineArgs, ReleaseArgs, RetireArgs, UnquarantineArgs};
use crate::bmc_password::BmcPasswordArgs;
use crate::completions::CompletionsArgs;
use crate::context::ContextArgs;
use crate::describe::{DescribeArgs, WhyArgs};
use crate::discover::DiscoverArgs;
use crate::exit::Exit;
use crate::explain::ExplainArgs;
use crate::firmware::FirmwareArgs;
use crate::get::GetArgs;
use crate::history::{HistoryArgs, RefreshArgs};
use crate::inspect::InspectArgs;
use crate::output::Format;
use crate::plan::PlanArgs;
use crate::quickstart::QuickstartArgs;
use crate::reference::ReferenceArgs;
use crate::render::RenderArgs;
use crate::serve::ServeArgs;
use crate::sim::SimArgs;
use crate::token::TokenArgs;
use crate::version::VersionArgs;

/// Turns racks of GPU servers into GPUs that tenants of one jurisdiction can claim
#[derive(Debug, Parser)]
#[command(
    name = "bailiwick",
    version,
    max_term_width = 100,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = Exit::help(),
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Context to use, of those that `bailiwick context list` shows
    #[arg(
        long,
        global = true,
        env = "BAILIWICK_CONTEXT",
        hide_env_values = true,
        value_name = "NAME",
        help_heading = "Which cell"
    )]
    pub(crate) context: Option<String>,
    /// Address of the cell, such as http://127.0.0.1:8460; goes before the context's
    #[arg(
        long,
        global = true,
        env = "BAILIWICK_SERVER",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Which cell"
    )]
    pub(crate) server: Option<String>,
    /// File that holds the token; goes before the context's
    #[arg(
        long,
        global = true,
        env = "BAILIWICK_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Which cell"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Colours
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN", hide = true)]
    pub(crate) color: Colour,
}

/// When to use colours; `auto` obeys `NO_COLOR`, `CLICOLOR` and whether a terminal is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try everything at once: a simulated rack, enrolled, provisioned and published, in one process
    Quickstart(QuickstartArgs),
    /// Read the whole inventory of one BMC, with no cell and no database
    Inspect(InspectArgs),
    /// Find what answers as a BMC, by Redfish or IPMI, without credentials
    Discover(DiscoverArgs),
    /// Run a cell: API, reconciler, publishers
    Serve(Box<ServeArgs>),
    /// Make objects as declared: shows the plan and asks
    Apply(ApplyArgs),
    /// Show what would change, and keep it under its digest
    Plan(PlanArgs),
    /// Take objects away: shows the plan and asks
    Delete(DeleteArgs),
    /// List machines, GPUs, classes, base clusters, and what else there is
    Get(GetArgs),
    /// Show all that is known of one machine, GPU or class
    Describe(DescribeArgs),
    /// Tell what a machine waits for, and why its GPUs cannot be claimed
    Why(WhyArgs),
    /// Show what happened to a machine, step by step
    History(HistoryArgs),
    /// Have machines read again, and what they wait for tried again, now
    Refresh(RefreshArgs),
    /// Make machines nodes of a base cluster
    Provision(ProvisionArgs),
    /// Move the pods of machines away
    Drain(DrainArgs),
    /// Take machines out of service and erase them
    Release(ReleaseArgs),
    /// Erase machines and take them from the provisioning service
    Retire(RetireArgs),
    /// Set machines aside until somebody has looked at them
    Quarantine(QuarantineArgs),
    /// Let machines back in: they are checked and erased anew
    Unquarantine(UnquarantineArgs),
    /// Make objects for a GitOps repository from what is declared
    Render(RenderArgs),
    /// Hold machines against the firmware profiles of their models
    Firmware(FirmwareArgs),
    /// List the fields of a kind of declaration
    Explain(ExplainArgs),
    /// Make, list and revoke tokens of the cell
    Token(TokenArgs),
    /// Accept GPUs that were moved, exchanged or repaired
    Accept(AcceptArgs),
    /// Make a one-time token for the agent of a machine
    AgentToken(AgentTokenArgs),
    /// Show the passwords that the cell has made for a machine's BMC
    BmcPassword(BmcPasswordArgs),
    /// Choose between cells
    Context(ContextArgs),
    /// Print this program's version and the cell's
    Version(VersionArgs),
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Run a simulated site: BMCs over real HTTPS on loopback
    Sim(SimArgs),
    /// Write the reference pages
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

impl Command {
    /// The form of output asked for, if any; errors follow it.
    pub(crate) fn output(&self) -> Option<Format> {
        match self {
            Self::Inspect(args) => args.output,
            Self::Discover(args) => args.output,
            Self::Apply(args) => args.output,
            Self::Plan(args) => args.output,
            Self::Delete(args) => args.output,
            Self::Get(args) => args.output,
            Self::Describe(args) => args.output,
            Self::Why(args) => args.output,
            Self::History(args) => args.output,
            Self::Refresh(args) => args.output,
            Self::Provision(args) => args.target.output,
            Self::Drain(args) => args.target.output,
            Self::Release(args) => args.target.output,
            Self::Retire(args) => args.target.output,
            Self::Quarantine(args) => args.target.output,
            Self::Unquarantine(args) => args.target.output,
            Self::Render(args) => args.output(),
            Self::Firmware(args) => args.output(),
            Self::Token(args) => args.output(),
            Self::Accept(args) => args.output(),
            Self::AgentToken(args) => args.output,
            Self::BmcPassword(args) => args.output,
            Self::Context(args) => args.output(),
            Self::Version(args) => args.output,
            Self::Quickstart(args) => args.output,
            Self::Sim(args) => args.output,
            Self::Serve(_) | Self::Explain(_) | Self::Completions(_) | Self::Reference(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
