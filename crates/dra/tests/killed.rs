//! A process that prepares and gives back claims is killed at any moment, again and again. Whatever it had answered holds, and
//! nothing that containers can reach is unknown to the next one.
//!
//! Without the usual harness, for the process to be killed is this program itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is a failed test, in helpers too"
)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "plugin/node.rs"]
mod node;

use node::Host;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Claims `c0` to `c3`; each is for a device of its own, and `r0` to `r3` are for the same devices: two GPUs, and two parts of one.
const DEVICES: usize = 4;
const ROUNDS: u32 = 60;

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, role, directory, seed] = arguments.as_slice()
        && role == "victim"
    {
        victim(Path::new(directory), seed.parse().unwrap()).await;
    }
    // `cargo test NAME` runs the others.
    let filters = arguments[1..].iter().filter(|argument| !argument.starts_with('-')).collect::<Vec<_>>();
    let name = "killed_at_any_moment_nothing_is_lost";
    if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
        killed_at_any_moment_nothing_is_lost().await;
        println!("test {name} ... ok");
    }
}

fn host(directory: &Path) -> Host {
    let host = Host::at(directory);
    for number in 0..DEVICES {
        for rival in ["c", "r"] {
            let device = if number < 2 { format!("gpu-{number}") } else { format!("gpu-7-mig-{number}-1") };
            host.allocate(&format!("{rival}{number}"), &[&device]);
        }
    }
    host
}

/// Says what it begins, does it, and says what came of it; for ever.
async fn victim(directory: &Path, mut seed: u64) -> ! {
    let host = host(directory);
    let say = |what: String| std::io::stdout().lock().write_all(format!("{what}\n").as_bytes()).unwrap();
    loop {
        // Knuth's MMIX generator: the same seed gives the same story.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let choice = (seed >> 33) as usize;
        let claim = format!("{}{}", ["c", "r"][choice & 1], (choice >> 1) % DEVICES);
        say(format!("begin {claim}"));
        let done = if choice & 16 == 0 {
            host.prepare(&claim).await.map_or("refused", |_| "prepared")
        } else {
            host.unprepare(&claim).await.map(|()| "released").unwrap()
        };
        say(format!("{done} {claim}"));
    }
}

async fn killed_at_any_moment_nothing_is_lost() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("cdi")).unwrap();
    // What the killed processes said of each claim, last.
    let mut said = BTreeMap::new();
    let mut answers = 0;
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .arg("victim")
            .arg(files.path())
            .arg(round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut record = |line: String| {
            let (what, claim) = line.split_once(' ').unwrap();
            answers += usize::from(what != "begin");
            // A refusal changed nothing that was said before it began.
            said.entry(claim.to_owned()).or_insert_with(Vec::new).push(what.to_owned());
        };
        // Not before it works, and then at another moment each time.
        for line in lines.by_ref().take(2) {
            record(line.unwrap());
        }
        let until = Instant::now() + Duration::from_micros(u64::from(round) * 700);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        for line in lines {
            record(line.unwrap());
        }
        check(files.path(), &mut said).await;
    }
    assert!(answers > 100, "only {answers} calls were answered");
}

async fn check(directory: &Path, said: &mut BTreeMap<String, Vec<String>>) {
    let host = host(directory);
    host.preparer.restore().await.unwrap();
    let held = host.held().await;
    for number in 0..DEVICES {
        let holders = held.iter().filter(|claim| claim.ends_with(&number.to_string())).count();
        assert!(holders <= 1, "{held:?}");
    }
    for entry in std::fs::read_dir(directory.join("cdi")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Half a file has a name that no runtime reads.
        if let Some(name) = name.strip_suffix(".json") {
            assert!(held.iter().any(|claim| name.ends_with(&format!("_uid-{claim}"))), "{name}, {held:?}");
        }
    }
    for (claim, said) in said {
        if said.last().is_some_and(|last| last == "begin") {
            // It was under way: it may be done, undone, or half given back.
            said.push("unsettled".to_owned());
        }
        let there = (held.contains(claim), host.cdi(claim).exists());
        match said.iter().rev().find(|what| *what != "refused" && *what != "begin").map(String::as_str) {
            Some("prepared") => assert_eq!(there, (true, true), "{claim}: {said:?}"),
            Some("released") => assert_eq!(there, (false, false), "{claim}: {said:?}"),
            _ => {}
        }
    }
}
