//! `bailiwick-agent completions`: what shells need to complete commands.

use crate::Error;
use crate::output;
use clap::{Args, Command};
use clap_complete::Shell;

/// Arguments of the command.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent completions bash > /etc/bash_completion.d/bailiwick-agent
  bailiwick-agent completions zsh > \"${fpath[1]}/_bailiwick-agent\"
  bailiwick-agent completions fish > ~/.config/fish/completions/bailiwick-agent.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command; `program` is the whole of it.
pub fn run(args: &CompletionsArgs, mut program: Command) -> Result<(), Error> {
    let (mut script, name) = (Vec::new(), program.get_name().to_owned());
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
