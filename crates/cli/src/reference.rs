//! `bailiwick reference`: writes `docs/reference/` from the program itself. Hidden: it is for those who work on Bailiwick.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use serde::Serialize;

use crate::args::Cli;
use crate::errors::{Failure, Outcome, note};
use crate::exit::Exit;
use crate::{codes, config};

#[derive(Args, Debug)]
pub(crate) struct ReferenceArgs {
    /// Directory to write into
    #[arg(long, value_name = "DIR", default_value = "docs/reference")]
    dir: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &ReferenceArgs) -> Outcome {
    let pages = [
        ("inventory.schema.json", json(&schemars::schema_for!(domain::Inventory))?),
        ("declarations.schema.json", json(&schemars::schema_for!(domain::Declaration))?),
        ("openapi.json", json(&cell::api::openapi())?),
        ("codes.md", codes::reference()),
        ("cli.md", commands()),
        ("config.md", config::reference()),
        ("exit-codes.md", Exit::reference()),
    ];
    let written = std::fs::create_dir_all(&args.dir)
        .and_then(|()| pages.iter().try_for_each(|(name, text)| write(&args.dir.join(name), text)));
    written.map_err(|error| {
        Failure::new("output.write", format!("{} cannot be written: {error}", args.dir.display()))
    })?;
    note(&format!("{} pages in {}", pages.len(), args.dir.display()));
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}

fn json(value: &impl Serialize) -> Outcome<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new("output.write", format!("a schema cannot be written: {error}")))?;
    Ok(text + "\n")
}

/// `docs/reference/cli.md`: the help of every command.
fn commands() -> String {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut text = "# The `bailiwick` command\n".to_owned();
    describe(&mut root, "bailiwick", &mut text);
    text
}

fn describe(command: &mut Command, name: &str, text: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    let mut below: Vec<&mut Command> =
        command.get_subcommands_mut().filter(|below| !below.is_hide_set()).collect();
    below.retain(|below| below.get_name() != "help");
    for command in below {
        let name = format!("{name} {}", command.get_name());
        describe(command, &name, text);
    }
}
