//! `bailiwick completions`: what shells need to complete commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::errors::{Failure, Outcome};
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick completions bash > ~/.local/share/bash-completion/completions/bailiwick
  bailiwick completions zsh > \"${fpath[1]}/_bailiwick\"
  bailiwick completions fish > ~/.config/fish/completions/bailiwick.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bailiwick", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| Failure::new("output.write", format!("the script is not text: {error}")))?;
    output::text(&script)
}
