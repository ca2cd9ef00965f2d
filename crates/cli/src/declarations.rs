//! Declarations from files, directories and standard input, with the passwords that they point at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cell::api::types::Secret;
use domain::manifest::{self, Located};
use domain::{Declaration, Name, Problem, Spec};

use crate::errors::{Failure, Outcome, problem};
use crate::files;

/// What was read.
#[derive(Default)]
pub(crate) struct Declarations {
    pub(crate) objects: Vec<Declaration>,
    pub(crate) passwords: BTreeMap<Name, Secret>,
    places: BTreeMap<String, Vec<String>>,
}

impl Declarations {
    /// Puts before each problem that tells of an object the file and line of that object.
    pub(crate) fn locate(places: &BTreeMap<String, Vec<String>>, failure: Failure) -> Failure {
        let Failure::Problems { problems, exit } = failure else { return failure };
        let located = problems.into_iter().map(|mut problem| {
            let at = problem.at.unwrap_or_default();
            let object = at.split(' ').next().unwrap_or_default();
            problem.at = match places.get(object) {
                Some(files) => Some(format!("{} ({at})", files.join(", "))),
                None => Some(at).filter(|at| !at.is_empty()),
            };
            problem
        });
        Failure::Problems { problems: located.collect(), exit }
    }

    /// Where each object stands: `file:line`, by its reference.
    pub(crate) fn places(&mut self) -> BTreeMap<String, Vec<String>> {
        std::mem::take(&mut self.places)
    }
}

/// Reads all that is given. Every mistake in every file is told at once.
pub(crate) async fn read(paths: &[PathBuf]) -> Outcome<Declarations> {
    let paths = paths.to_vec();
    files::apart(move || read_all(&paths)).await
}

fn read_all(paths: &[PathBuf]) -> Outcome<Declarations> {
    let mut found = Declarations::default();
    let mut problems = Vec::new();
    for file in expand(paths)? {
        let name =
            if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
        match manifest::read(&name, &files::read_text(&file)?) {
            Ok(located) => {
                for Located { declaration, at } in located {
                    match password_of(&declaration, &file) {
                        Ok(Some(password)) => {
                            found.passwords.insert(declaration.name().clone(), password);
                        }
                        Ok(None) => {}
                        Err(failure) => problems.extend(at_line(failure, &at)),
                    }
                    found.places.entry(declaration.reference()).or_default().push(at);
                    found.objects.push(declaration);
                }
            }
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::all(problems));
    }
    if found.objects.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new("input.empty", format!("nothing is declared in {}", names.join(", "))));
    }
    Ok(found)
}

/// The files, in the order given; directories give their YAML files, also those of directories below, sorted.
fn expand(paths: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            walk(path, &mut files)?;
            if files.len() == before {
                return Err(Failure::new("input.empty", format!("{} holds no YAML file", path.display())));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let unreadable = |error: std::io::Error| {
        Failure::new("input.unreadable", format!("{} cannot be read: {error}", directory.display()))
    };
    let mut entries = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
        })
        .map_err(unreadable)?;
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = entry.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if hidden {
            continue;
        }
        // Linked files are read, linked directories are not: they may lead in circles.
        let is_link = entry.is_symlink();
        if entry.is_dir() && !is_link {
            walk(&entry, files)?;
        } else if yaml && !entry.is_dir() {
            files.push(entry);
        }
    }
    Ok(())
}

/// The password that a machine's `passwordFile` holds; the path is relative to the declaration's file.
fn password_of(declaration: &Declaration, file: &Path) -> Outcome<Option<Secret>> {
    let Spec::Machine(spec) = &declaration.spec else { return Ok(None) };
    let Some(password_file) = &spec.bmc.password_file else { return Ok(None) };
    let base = if file == Path::new("-") { Path::new("") } else { file.parent().unwrap_or(Path::new("")) };
    let path = base.join(password_file);
    if path == Path::new("-") {
        return Err(Failure::new(
            "input.password",
            "a passwordFile is a file; standard input is for declarations",
        ));
    }
    files::read_password(&path).map(|password| Some(password.into_secret()))
}

fn at_line(failure: Failure, at: &str) -> Vec<Problem> {
    match failure {
        Failure::Problems { problems, .. } => problems.into_iter().map(|problem| problem.at(at)).collect(),
        Failure::BrokenPipe | Failure::Interrupted => {
            vec![problem("input.unreadable", "reading was interrupted")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "apiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {name: m1}\nspec: {site: s, bmc: {address: 10.0.0.1, username: u, passwordFile: secrets/pw}}\n";
    const EU: &str =
        "apiVersion: bailiwick.dev/v1alpha1\nkind: Jurisdiction\nmetadata: {name: eu}\nspec: {}\n";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn a_directory_is_read_with_all_below_it_and_passwords_beside_each_file() {
        let dir = tree(&[
            ("b/m.yml", MACHINE),
            ("b/secrets/pw", "hush\n"),
            ("a.yaml", EU),
            (".git/x.yaml", "no"),
            ("notes.txt", "no"),
        ]);
        let found = read_all(&[dir.path().to_path_buf()]).unwrap_or_else(|failure| panic!("{failure:?}"));
        let names: Vec<_> = found.objects.iter().map(Declaration::reference).collect();
        assert_eq!(names, ["Jurisdiction/eu", "Machine/m1"]);
        assert_eq!(found.passwords.values().next().unwrap().0, "hush");
    }

    #[test]
    fn mistakes_of_several_files_are_told_at_once_with_their_lines() {
        let dir = tree(&[("m.yaml", MACHINE), ("n.yaml", &EU.replace("spec", "sepc"))]);
        let Err(Failure::Problems { problems, exit }) = read_all(&[dir.path().to_path_buf()]) else {
            panic!("read")
        };
        let codes: Vec<_> = problems.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(codes, ["input.unreadable", "declaration.unknown-field"]);
        assert!(problems[0].at.as_ref().unwrap().ends_with("m.yaml:1"));
        assert_eq!(exit, crate::exit::Exit::BadInput);
    }

    #[test]
    fn an_empty_directory_is_a_mistake() {
        let dir = tree(&[("notes.txt", "")]);
        assert!(read_all(&[dir.path().to_path_buf()]).is_err());
    }
}
