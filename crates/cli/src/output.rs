//! The one writer of standard output: JSON, YAML or tables; colours only where a person reads.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::errors::{Failure, Outcome};

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// For people.
    Table,
}

/// Marks a class that gives GPUs out on a BMC's word alone.
pub(crate) const TRIAL: &str = "TRIAL";

/// Writes text to standard output. Colours in it are left out where they are not wanted (`NO_COLOR`, `CLICOLOR`, no terminal).
pub(crate) fn text(text: &str) -> Outcome {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// Writes one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let document = serde_json::to_string_pretty(value).map_err(unwritable)?;
    text(&(document + "\n"))
}

/// Writes one YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> Outcome {
    text(&to_yaml(value)?)
}

/// A value as YAML.
pub(crate) fn to_yaml(value: &impl Serialize) -> Outcome<String> {
    let mut document = serde_saphyr::to_string(value).map_err(unwritable)?;
    if !document.ends_with('\n') {
        document.push('\n');
    }
    Ok(document)
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::new("output.write", format!("the result cannot be written: {error}"))
}

/// Writes a value in the form asked for; `table` is made only if needed.
pub(crate) fn value<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) -> Outcome {
    match format {
        Format::Json => json(value),
        Format::Yaml => yaml(value),
        Format::Table => text(&table(value)),
    }
}

/// Text of others, a BMC's for one, without what a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
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
        table.add_row(
            row.as_ref().iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(cell) }),
        );
    }
    let last = header.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { 3 }));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let bold = Style::new().bold();
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text += &if at == 0 { format!("{bold}{line}{bold:#}\n") } else { format!("{}\n", paint(line)) };
    }
    text
}

/// Words that a reader's eye should find. Done after the layout, so that columns stay in line.
fn paint(line: &str) -> String {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    line.replace(TRIAL, &format!("{yellow}{TRIAL}{yellow:#}"))
}

/// `name: value` lines, values in one column.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let bold = Style::new().bold();
    pairs
        .iter()
        .map(|(name, value)| {
            let value = if value.is_empty() { "-".to_owned() } else { clean(value) };
            let label = format!("{name}:");
            format!("{bold}{label:<width$}{bold:#} {}\n", paint(&value))
        })
        .collect()
}

/// A heading over a part of a description.
pub(crate) fn heading(title: &str) -> String {
    let bold = Style::new().bold().underline();
    format!("\n{bold}{title}{bold:#}\n")
}

/// What is known, or nothing.
pub(crate) fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_keeps_its_columns_in_line_and_shows_what_is_unknown() {
        let rows = [["a", ""], ["longer", "TRIAL"]].map(|row| row.map(str::to_owned));
        assert_eq!(plain(&table(&["NAME", "NOTE"], rows)), "NAME     NOTE\na        -\nlonger   TRIAL\n");
    }

    #[test]
    fn what_a_bmc_says_cannot_move_the_cursor() {
        let text = table(&["NAME"], [["\u{1b}[2J\u{9b}31mroot\r\n"]].map(|row| row.map(str::to_owned)));
        assert!(plain(&text).ends_with("\n\u{fffd}[2J\u{fffd}31mroot\u{fffd}\u{fffd}\n"), "{text:?}");
        assert!(!fields(&[("Name", "a\u{7}".to_owned())]).contains('\u{7}'));
    }

    #[test]
    fn fields_stand_in_one_column() {
        let pairs = [("Name", "x".to_owned()), ("Longer", String::new())];
        assert_eq!(plain(&fields(&pairs)), "Name:   x\nLonger: -\n");
    }
}
