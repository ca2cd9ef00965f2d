//! Contexts: which cell, and with which token (`$XDG_CONFIG_HOME/bailiwick/config.toml`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cell::api::types::Secret;
use clap::{Args, Subcommand};
use domain::Problem;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::errors::{Failure, Outcome, note, problem, warn};
use crate::files;
use crate::output::{self, Format, shown};

/// Where a cell is looked for when nothing names one.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8460";

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick context set eu --server https://cell.eu.example --token-file ~/.config/bailiwick/eu.token
  bailiwick context use eu
  bailiwick --context eu get machines

Contexts are kept in $XDG_CONFIG_HOME/bailiwick/config.toml (else ~/.config), which holds no secrets, only paths of them.
With --server and no --context, no context is used: its token never goes to another cell.")]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all contexts; `*` marks the one in use
    List {
        /// Form of the output [default: table]
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Use a context from now on
    Use {
        /// Its name
        name: String,
    },
    /// Make or change a context, with --server and --token-file
    Set {
        /// Its name
        name: String,
        /// PEM file of the CAs that signed the certificate of an https server; the system's where absent
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
    /// Forget a context
    Delete {
        /// Its name
        name: String,
    },
}

impl ContextArgs {
    pub(crate) fn output(&self) -> Option<Format> {
        match &self.action {
            Action::List { output } => *output,
            _ => None,
        }
    }
}

/// The file of contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Context {
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
}

/// Where a cell is and what opens it.
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) token: Option<Secret>,
    pub(crate) ca: Option<Vec<u8>>,
}

/// What flags, environment and contexts say together.
pub(crate) fn place(global: &Global) -> Outcome<Place> {
    let context = chosen(global, || load(&path()?))?.unwrap_or_default();
    let server =
        global.server.clone().or_else(|| Some(context.server.clone()).filter(|server| !server.is_empty()));
    let token_file = global.token_file.as_ref().or(context.token_file.as_ref());
    Ok(Place {
        server: server.unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
        token: token_file.map(|file| read_token(file)).transpose()?,
        ca: context.ca_file.as_ref().map(|file| files::read(file)).transpose()?,
    })
}

/// The context to use, if any. A server named by itself takes no context's token along.
fn chosen(global: &Global, load: impl FnOnce() -> Outcome<Contexts>) -> Outcome<Option<Context>> {
    if global.server.is_some() && global.context.is_none() {
        return Ok(None);
    }
    let mut known = load()?;
    let Some(name) = global.context.clone().or(known.current.take()) else { return Ok(None) };
    known.contexts.remove(&name).map(Some).ok_or_else(|| unknown(&name, &known))
}

fn read_token(file: &Path) -> Outcome<Secret> {
    let text = Secret(files::read_text(file)?);
    Ok(Secret(text.0.trim().to_owned()))
}

/// The file of contexts.
fn path() -> Outcome<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|directory| directory.join("bailiwick").join("config.toml"))
        .ok_or_else(|| Failure::new("context.write", "neither XDG_CONFIG_HOME nor HOME names a directory"))
}

fn load(path: &Path) -> Outcome<Contexts> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            problem("context.malformed", format!("{} cannot be read: {}", path.display(), error.message()))
                .into()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(error) => {
            Err(Failure::new("context.malformed", format!("{} cannot be read: {error}", path.display())))
        }
    }
}

fn save(path: &Path, contexts: &Contexts) -> Outcome {
    let failed =
        |why: String| Failure::new("context.write", format!("{} cannot be written: {why}", path.display()));
    let text = toml::to_string(contexts).map_err(|error| failed(error.to_string()))?;
    files::write_private(path, &text).map_err(|error| failed(error.to_string()))
}

fn unknown(name: &str, contexts: &Contexts) -> Failure {
    let names: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
    let mut problem = problem("context.unknown", format!("there is no context {name:?}"));
    if !names.is_empty() {
        problem = problem.hint(domain::manifest::suggestion(name, &names));
    }
    problem.into()
}

/// Runs the command.
pub(crate) fn run(global: &Global, args: &ContextArgs) -> Outcome {
    let file = path()?;
    let mut contexts = load(&file)?;
    match &args.action {
        Action::List { output } => return list(&contexts, output.unwrap_or(Format::Table)),
        Action::Use { name } => {
            if !contexts.contexts.contains_key(name) {
                return Err(unknown(name, &contexts));
            }
            contexts.current = Some(name.clone());
            save(&file, &contexts)?;
            note(&format!("using context {name}"));
        }
        Action::Set { name, ca_file } => {
            let entry = contexts.contexts.entry(name.clone()).or_default();
            if let Some(server) = global.server.clone() {
                entry.server = server;
            } else if entry.server.is_empty() {
                DEFAULT_SERVER.clone_into(&mut entry.server);
            }
            entry.token_file = absolute(global.token_file.as_ref())?.or(entry.token_file.take());
            entry.ca_file = absolute(ca_file.as_ref())?.or(entry.ca_file.take());
            let useless = useless(name, entry.token_file.as_deref());
            contexts.current.get_or_insert_with(|| name.clone());
            save(&file, &contexts)?;
            note(&format!("context {name} kept in {}", file.display()));
            useless.iter().for_each(warn);
        }
        Action::Delete { name } => {
            if contexts.contexts.remove(name).is_none() {
                return Err(unknown(name, &contexts));
            }
            contexts.current.take_if(|current| current == name);
            save(&file, &contexts)?;
            note(&format!("context {name} forgotten"));
        }
    }
    Ok(())
}

/// Why a cell would refuse every call with this context. It is kept all the same: the file may come later.
fn useless(name: &str, token_file: Option<&Path>) -> Option<Problem> {
    let command = format!("`bailiwick context set {} --token-file FILE`", crate::shell::quote(name));
    let Some(file) = token_file else {
        let problem = Problem::new(
            "context.no-token",
            format!("context {name} has no token file: a cell refuses its calls"),
        );
        return Some(problem.hint(format!(
            "{command} names one; the first token of a cell is `admin.token` in its data directory, and `bailiwick token create` makes others"
        )));
    };
    let why = match files::read_text(file) {
        Ok(text) if text.trim().is_empty() => "is empty".to_owned(),
        Err(Failure::Problems { problems, .. }) => {
            return problems.into_iter().next().map(|problem| {
                problem.hint(format!("Check the path and its permissions; {command} names another."))
            });
        }
        Ok(_) | Err(_) => return None,
    };
    let problem = Problem::new("context.no-token", format!("the token file {} {why}", file.display()));
    Some(problem.hint(format!("{command} names another.")))
}

/// Contexts are used from any directory.
fn absolute(path: Option<&PathBuf>) -> Outcome<Option<PathBuf>> {
    path.map(|path| {
        std::path::absolute(path)
            .map_err(|error| Failure::new("input.unreadable", format!("{}: {error}", path.display())))
    })
    .transpose()
}

fn list(contexts: &Contexts, format: Format) -> Outcome {
    output::value(format, contexts, |contexts| {
        let rows = contexts.contexts.iter().map(|(name, context)| {
            let mark = if contexts.current.as_deref() == Some(name) { "*" } else { " " };
            vec![
                mark.to_owned(),
                name.clone(),
                context.server.clone(),
                shown(context.token_file.as_ref().map(|file| file.display().to_string()).as_ref()),
            ]
        });
        output::table(&["", "NAME", "SERVER", "TOKEN FILE"], rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Colour;

    fn global(context: Option<&str>, server: Option<&str>) -> Global {
        let own = |text: &str| text.to_owned();
        Global { context: context.map(own), server: server.map(own), token_file: None, color: Colour::Auto }
    }

    #[allow(clippy::unnecessary_wraps, reason = "it stands in for reading the file")]
    fn known() -> Outcome<Contexts> {
        let context =
            |server: &str| Context { server: server.into(), token_file: Some("/t".into()), ca_file: None };
        Ok(Contexts {
            current: Some("a".into()),
            contexts: [("a".to_owned(), context("http://a")), ("b".to_owned(), context("http://b"))].into(),
        })
    }

    #[test]
    fn the_context_named_goes_before_the_one_in_use() {
        assert_eq!(chosen(&global(None, None), known).unwrap().unwrap().server, "http://a");
        assert_eq!(chosen(&global(Some("b"), None), known).unwrap().unwrap().server, "http://b");
        assert!(chosen(&global(Some("c"), None), known).is_err());
    }

    #[test]
    fn a_server_named_by_itself_gets_no_contexts_token() {
        assert_eq!(chosen(&global(None, Some("http://elsewhere")), known).unwrap(), None);
    }
}
