//! The image that `manifests/agent/Containerfile` describes, made without a registry and without a builder of images.

use crate::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As an OCI image layout in a tar. On its base is what the Containerfile says that the agent needs there, and nothing else.
pub(crate) fn image_of_agent(name: &str, directory: &Path) -> PathBuf {
    let recipe = Recipe::read(&manifests().join("Containerfile"));
    assert!(recipe.base.starts_with("debian:"), "{}", recipe.base);
    let content = directory.join("content");
    let agent = Path::new(env!("CARGO_BIN_EXE_bailiwick-agent"));
    for program in ["/bin/sh", "/usr/sbin/chroot"] {
        root::install(&content, program);
    }
    root::libraries_of(&content, agent);
    for (built, from, to) in &recipe.copies {
        let from = if *built { agent.with_file_name(from) } else { manifests().join(from) };
        root::copy(&from, &content.join(to.trim_start_matches('/')).join(from.file_name().unwrap()));
    }
    let packed = directory.join("agent.tar");
    let made = Command::new("python3")
        .arg(testbed::repository_root().join("hack/testbed/node/image.py"))
        .args([name, content.to_str().unwrap(), &recipe.entrypoint])
        .stdout(std::fs::File::create(&packed).unwrap())
        .status();
    assert!(made.unwrap().success());
    packed
}

fn manifests() -> PathBuf {
    testbed::repository_root().join("manifests/agent")
}

struct Recipe {
    base: String,
    /// Whether it is of what cargo has built, its name, and the directory that it comes into.
    copies: Vec<(bool, String, String)>,
    entrypoint: String,
}

impl Recipe {
    /// A recipe with nothing in it that is not known here.
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (mut base, mut copies, mut entrypoint) = (None, Vec::new(), None);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["ARG", argument] => base = argument.strip_prefix("BASE=").map(str::to_owned),
                ["FROM", "${BASE}"] => {}
                ["COPY", "--from=built", from, to] => copies.push((true, from.to_owned(), to.to_owned())),
                ["COPY", from, to] => copies.push((false, from.to_owned(), to.to_owned())),
                ["ENTRYPOINT", program] => {
                    let [program]: [String; 1] = serde_json::from_str(program).unwrap();
                    entrypoint = Some(program);
                }
                _ => panic!("how is this done: {line}"),
            }
        }
        Self { base: base.unwrap(), copies, entrypoint: entrypoint.unwrap() }
    }
}
