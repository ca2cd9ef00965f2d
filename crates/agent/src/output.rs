//! The one writer of standard output and of failures; colours only where a person reads.

use crate::Error;
use crate::error::Exit;
use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use domain::Diagnose as _;
use serde::Serialize;
use std::io::Write as _;

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For programs.
    Json,
    /// For people.
    #[default]
    Table,
}

/// Writes text. Colours in it are left out where they are not wanted (`NO_COLOR`, `CLICOLOR`, no terminal).
pub fn text(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}

/// Writes one JSON document.
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let document = serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?;
    text(&(document + "\n"))
}

/// Tells on standard error why the command failed: as text, or as one JSON object where the user asked for JSON.
pub fn report(error: &Error, format: Format) {
    if error.exit() == Exit::Ok {
        return;
    }
    let problem = error.problem();
    let text = if format == Format::Json {
        format!("{:#}\n", serde_json::json!({ "problems": [problem], "exitCode": error.exit().code() }))
    } else {
        let head = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let dim = Style::new().dimmed();
        let mut text = format!("{head}error[{}]{head:#}: {}\n", problem.code, clean(&problem.message));
        if let Some(hint) = problem.hint {
            text += &format!("  {dim}hint:{dim:#} {hint}\n");
        }
        text
    };
    // Where even that cannot be written, the exit code has to do.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Text of others, a GPU's for one, without what a terminal would obey.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A table without lines, as kubectl prints them. Empty cells show `-`.
pub(crate) fn table<R: AsRef<[String]>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        let cells = row.as_ref().iter();
        table.add_row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(cell) }));
    }
    let last = header.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { 3 }));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let bold = Style::new().bold();
    let lines = table.lines().enumerate().map(|(at, line)| {
        let line = line.trim_end();
        if at == 0 { format!("{bold}{line}{bold:#}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

/// `name: value` lines, values in one column.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let bold = Style::new().bold();
    let lines = pairs.iter().map(|(name, value)| {
        let value = if value.is_empty() { "-".to_owned() } else { clean(value) };
        let label = format!("{name}:");
        format!("{bold}{label:<width$}{bold:#} {value}\n")
    });
    lines.collect()
}

/// A heading over a part.
pub(crate) fn heading(title: &str) -> String {
    let bold = Style::new().bold().underline();
    format!("\n{bold}{title}{bold:#}\n")
}
