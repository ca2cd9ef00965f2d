//! `bailiwick-agent reference`: writes its page of `docs/reference/` from the program itself. Hidden: it is for those who work on
//! Bailiwick.

use crate::Error;
use clap::{Args, Command};
use std::path::PathBuf;

/// The page's file.
const PAGE: &str = "agent-cli.md";

/// Arguments of the command.
#[derive(Args, Debug)]
pub struct ReferenceArgs {
    /// Directory to write into
    #[arg(long, value_name = "DIR", default_value = "docs/reference")]
    dir: PathBuf,
}

/// Runs the command; `program` is the whole of it.
pub fn run(args: &ReferenceArgs, program: Command) -> Result<(), Error> {
    std::fs::create_dir_all(&args.dir).map_err(Error::Output)?;
    std::fs::write(args.dir.join(PAGE), page(program)).map_err(Error::Output)
}

/// The help of every command.
fn page(program: Command) -> String {
    let mut program = program.term_width(100);
    program.build();
    let mut text = "# The `bailiwick-agent` command\n".to_owned();
    let name = program.get_name().to_owned();
    describe(&mut program, &name, &mut text);
    text
}

fn describe(command: &mut Command, name: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    let below =
        command.get_subcommands_mut().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    for command in below {
        let name = format!("{name} {}", command.get_name());
        describe(command, &name, text);
    }
}
