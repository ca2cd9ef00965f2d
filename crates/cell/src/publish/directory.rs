//! The directory sink: `declared/` for Git, `observed/` for inspection (DESIGN §6).
//!
//! Every file is written whole under another name and then renamed, so a reader never sees half of one. A manifest of what is
//! ours is written before the files and again after them: whatever the moment of a crash, the next run knows which files it
//! may overwrite and prune. Files that are in line are not touched.

use super::Written;
use crate::error::coded;
use domain::{Digest, Problem};
use dra::{Object, Output, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What is ours: the manifest's name.
const MANIFEST: &str = ".bailiwick-published.json";

/// Names of files that are not finished begin with this.
const UNFINISHED: &str = ".bailiwick-unfinished-";

/// First lines of what only a cell may write.
const OBSERVED_NOTE: &str =
    "# Observed by the cell, for inspection. Do not apply: only a cell may write this.\n";

/// Objects in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Identity of the cell, which goes with its database.
    cell: String,
    /// Slices as they were read last, by path and digest of the file: parsing is what a look costs most.
    parsed: BTreeMap<String, (Digest, Value)>,
}

/// Files that are ours, by path under the root, with the digest of their content.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Manifest {
    /// The cell that wrote them.
    #[serde(default)]
    cell: String,
    files: BTreeMap<String, String>,
}

impl Directory {
    pub(super) fn new(root: PathBuf, cell: &str) -> Self {
        Self { root, cell: cell.to_owned(), parsed: BTreeMap::new() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Brings the directory in line.
    pub(super) fn write(&mut self, output: &Output) -> Result<Written, Problem> {
        for folder in ["declared", "observed"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|error| failed(&path, &error))?;
        }
        self.sweep()?;
        let before = self.manifest()?;
        // A lost or emptied database must not prune what the cell before it published.
        if !before.files.is_empty() && before.cell != self.cell {
            let message = format!("{} holds what another cell published", self.root.display());
            let problem = coded("publish.other-cell", message).at(self.root.display().to_string());
            return Err(problem.difference(before.cell, self.cell.clone()));
        }
        let wanted = self.wanted(output, &before)?;
        let mut left_out = output.diagnostics.clone();
        let mut after = Manifest { cell: self.cell.clone(), ..Manifest::default() };
        let mut todo = Vec::new();
        for (path, text) in wanted {
            let there = self.read(&path)?;
            let digest = Digest::of(text.as_bytes()).to_string();
            if there.as_deref() == Some(&text) {
                after.files.insert(path, digest);
            } else if there.is_some_and(|there| !before.files.contains_key(&path) && !is_ours(&there)) {
                let place = self.root.join(&path).display().to_string();
                left_out.push(coded("publish.foreign-file", format!("{place} is not this cell's")).at(place));
            } else {
                after.files.insert(path.clone(), digest);
                todo.push((path, text));
            }
        }
        let gone: Vec<_> =
            before.files.keys().filter(|path| !after.files.contains_key(*path)).cloned().collect();
        if !todo.is_empty() || !gone.is_empty() {
            let mut both = Manifest { cell: self.cell.clone(), files: before.files.clone() };
            both.files.extend(after.files.clone());
            self.keep(&both, &before)?;
        }
        for (path, text) in &todo {
            self.replace(path, text)?;
        }
        let mut pruned = 0;
        for path in &gone {
            match fs::remove_file(self.root.join(path)) {
                Ok(()) => pruned += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&self.root.join(path), &error)),
            }
        }
        if !todo.is_empty() || !gone.is_empty() {
            for folder in ["declared", "observed"] {
                sync_folder(&self.root.join(folder))?;
            }
        }
        let current = self.manifest()?;
        self.keep(&after, &current)?;
        Ok(Written {
            objects: after.files.len(),
            written: todo.len(),
            pruned,
            left_out,
            ..Written::default()
        })
    }

    /// The files as they shall be, in the order in which to write them: policies first.
    fn wanted(&mut self, output: &Output, before: &Manifest) -> Result<Vec<(String, String)>, Problem> {
        let mut files = Vec::new();
        for object in &output.declared {
            files.push((path_of("declared", object), render(&object.json(), "")?));
        }
        let (slices, rules): (Vec<_>, Vec<_>) =
            output.observed.iter().partition(|object| object.kind == "ResourceSlice");
        for object in rules {
            files.push((path_of("observed", object), render(&object.json(), OBSERVED_NOTE)?));
        }
        files.extend(self.slices(&slices, before)?);
        Ok(files)
    }

    /// Slices keep the generation that their file has unless their pool changed.
    fn slices(&mut self, slices: &[&Object], before: &Manifest) -> Result<Vec<(String, String)>, Problem> {
        let mut existing = BTreeMap::new();
        for path in before.files.keys().filter(|path| path.starts_with("observed/resourceslice-")) {
            let Some(text) = self.read(path)? else { continue };
            let digest = Digest::of(text.as_bytes());
            let known = self.parsed.remove(path).filter(|(known, _)| *known == digest);
            let slice = known.map(|(_, slice)| slice).or_else(|| serde_saphyr::from_str(&text).ok());
            if let Some(slice) = slice {
                existing.insert(path.clone(), (digest, slice));
            }
        }
        let there: Vec<Value> = existing.values().map(|(_, slice)| slice.clone()).collect();
        let mut applied = BTreeMap::new();
        for step in dra::reconcile(&there, slices.iter().copied()) {
            if let Step::Apply(object) = step {
                applied.insert(object.name.clone(), object.json());
            }
        }
        let files = slices.iter().map(|object| {
            let path = path_of("observed", object);
            let there = existing.get(&path).map(|(_, slice)| slice);
            let text = match applied.get(&object.name).or(there) {
                Some(json) => render(json, OBSERVED_NOTE)?,
                None => render(&object.json(), OBSERVED_NOTE)?,
            };
            Ok((path, text))
        });
        let files = files.collect();
        self.parsed = existing;
        files
    }

    fn manifest(&self) -> Result<Manifest, Problem> {
        let text = self.read(MANIFEST)?;
        // A manifest that cannot be read makes every file foreign; ours are known by their label.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    fn keep(&self, manifest: &Manifest, before: &Manifest) -> Result<(), Problem> {
        if manifest == before && self.root.join(MANIFEST).exists() {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| coded("api.internal", error.to_string()))?;
        self.replace(MANIFEST, &(text + "\n"))?;
        sync_folder(&self.root)
    }

    fn read(&self, path: &str) -> Result<Option<String>, Problem> {
        let path = self.root.join(path);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Not text, so not ours and not what is wanted.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    fn replace(&self, path: &str, text: &str) -> Result<(), Problem> {
        let target = self.root.join(path);
        let (folder, name) = (target.parent().unwrap_or(&self.root), target.file_name().unwrap_or_default());
        let unfinished = folder.join(format!("{UNFINISHED}{}", name.to_string_lossy()));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &target)
        };
        write().map_err(|error: io::Error| {
            let _ = fs::remove_file(&unfinished);
            failed(&target, &error)
        })
    }

    /// Removes what a crash left unfinished.
    fn sweep(&self) -> Result<(), Problem> {
        for folder in [self.root.clone(), self.root.join("declared"), self.root.join("observed")] {
            let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, &error))?;
            for entry in entries.filter_map(Result::ok) {
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    fs::remove_file(entry.path()).map_err(|error| failed(&entry.path(), &error))?;
                }
            }
        }
        Ok(())
    }
}

/// Known by its label where the manifest was lost.
fn is_ours(text: &str) -> bool {
    let object: Value = serde_saphyr::from_str(text).unwrap_or_default();
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == dra::MANAGER
}

fn path_of(folder: &str, object: &Object) -> String {
    format!("{folder}/{}-{}.yaml", object.kind.to_ascii_lowercase(), object.name)
}

/// YAML with every string quoted: what YAML 1.1 readers such as Kubernetes' take for a number or a truth value stays text.
fn render(json: &Value, note: &str) -> Result<String, Problem> {
    let options = serde_saphyr::ser_options! { quote_all: true };
    let text = serde_saphyr::to_string_with_options(json, options)
        .map_err(|error| coded("api.internal", error.to_string()))?;
    Ok(format!("{note}{text}"))
}

fn sync_folder(path: &Path) -> Result<(), Problem> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    coded("publish.directory", format!("cannot bring {} in line: {error}", path.display()))
        .at(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Name;
    use dra::Input;

    fn output() -> Output {
        dra::publish(&Input::new(Name::new("eu").unwrap(), "bailiwick-cell"))
    }

    fn first_file(root: &Path) -> PathBuf {
        root.join(path_of("declared", &output().declared[0]))
    }

    #[test]
    fn a_second_write_of_the_same_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        let second = Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        assert_eq!((first.written, second.written, second.objects), (first.objects, 0, first.objects));
    }

    #[test]
    fn a_foreign_file_of_our_name_is_left_alone_and_told() {
        let root = tempfile::tempdir().unwrap();
        let mine = first_file(root.path());
        fs::create_dir_all(mine.parent().unwrap()).unwrap();
        fs::write(&mine, "kind: Mine\n").unwrap();
        let written = Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        assert_eq!(written.left_out[0].code, "publish.foreign-file");
        assert_eq!(fs::read_to_string(mine).unwrap(), "kind: Mine\n");
    }

    #[test]
    fn a_lost_manifest_and_an_edited_file_are_put_right() {
        let root = tempfile::tempdir().unwrap();
        Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        fs::remove_file(root.path().join(MANIFEST)).unwrap();
        let edited = first_file(root.path());
        let text = fs::read_to_string(&edited).unwrap();
        fs::write(&edited, format!("{text}# edited\n")).unwrap();
        let written = Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        assert_eq!((written.written, written.left_out.len()), (1, 0));
        assert_eq!(fs::read_to_string(edited).unwrap(), text);
    }

    #[test]
    fn a_cell_with_another_database_prunes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let files = Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap().objects;
        let problem = Directory::new(root.path().to_owned(), "c2").write(&Output::default()).unwrap_err();
        assert_eq!(problem.code, "publish.other-cell");
        assert_eq!(Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap().objects, files);
    }

    #[test]
    fn what_a_crash_left_unfinished_is_swept() {
        let root = tempfile::tempdir().unwrap();
        Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        let unfinished = root.path().join("declared").join(format!("{UNFINISHED}x.yaml"));
        fs::write(&unfinished, "half").unwrap();
        Directory::new(root.path().to_owned(), "c1").write(&output()).unwrap();
        assert!(!unfinished.exists());
    }
}
