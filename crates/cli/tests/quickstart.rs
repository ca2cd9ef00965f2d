//! `bailiwick quickstart`, as a newcomer runs it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use support::{Desk, Run, interrupt};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Every file below, with its time and content.
fn files(directory: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let modified = path.metadata().unwrap().modified().unwrap();
            found.insert(path.display().to_string(), (modified, std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn a_first_run_enrols_provisions_and_publishes_and_a_second_changes_nothing() {
    let desk = Desk::new();
    let first = desk.run(&["quickstart", "--once", "--listen", "127.0.0.1:0"]).await.ends(0);
    assert!(first.stdout.contains("Machines (8)") && first.stdout.contains("GPUs (28)"), "{first:?}");
    assert!(first.stdout.contains("TRIAL"), "{first:?}");
    let published = files(&desk.path("bailiwick-data/publish"));
    let slices = published.keys().filter(|name| name.contains("/observed/resourceslice-")).count();
    assert_eq!(slices, 5, "{:?}", published.keys());
    assert!(published.keys().any(|name| name.ends_with("/declared/deviceclass-gpu-eu.yaml")));
    let declared = files(&desk.path("bailiwick-data/inventory"));

    let second = desk.run(&["quickstart", "--once", "--listen", "127.0.0.1:0"]).await.ends(0);
    assert!(
        second.stdout.starts_with("Everything was declared and provisioned before; nothing was changed.\n"),
        "{second:?}"
    );
    assert_eq!(files(&desk.path("bailiwick-data/publish")), published);
    assert_eq!(files(&desk.path("bailiwick-data/inventory")), declared);
}

#[tokio::test]
async fn programs_get_the_result_as_json() {
    let desk = Desk::new();
    let result = desk
        .run(&["quickstart", "--once", "--listen", "127.0.0.1:0", "-o", "json", "--data-dir", "d"])
        .await
        .ends(0)
        .json();
    assert_eq!(result["changed"], true);
    let machines = result["machines"].as_array().unwrap();
    assert!(machines.len() == 8 && machines.iter().all(|machine| machine["state"] == "in-service"));
    let dgx = result["gpus"].as_array().unwrap().iter().filter(|gpu| gpu["machine"] == "r1-u01").count();
    assert_eq!(dgx, 8);
    let again = desk
        .run(&["quickstart", "--once", "--listen", "127.0.0.1:0", "-o", "json", "--data-dir", "d"])
        .await
        .ends(0)
        .json();
    assert_eq!((&again["changed"], &again["gpus"]), (&false.into(), &result["gpus"]));
}

#[tokio::test]
async fn it_keeps_serving_and_the_commands_it_prints_work() {
    let desk = Desk::new();
    let mut command = desk.command(&["quickstart", "--listen", "127.0.0.1:0"]);
    let (mut child, _, _said) = support::serving(command.stdout(Stdio::piped())).await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut steps = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("export ") || !steps.is_empty() {
            steps.push_str(&line);
            steps.push('\n');
        }
        if line.contains(" inspect ") {
            break;
        }
    }
    // As a newcomer pastes them; `apply` finds nothing to change and so does not ask.
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-e", "-c", &steps]).current_dir(desk.dir.path()).env("NO_COLOR", "1").kill_on_drop(true);
    let run = Run::of(shell.output().await.unwrap()).ends(0);
    for part in ["r1-u08", "r1-u01 is in-service for ", "TRIAL", "Nothing to change", "GPUs (8)"] {
        assert!(run.stdout.contains(part), "{part} in {run:?}");
    }
    interrupt(&child);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn two_on_one_data_directory_are_one_too_many() {
    let desk = Desk::new();
    let mut child = desk
        .command(&["quickstart", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    while !said.next_line().await.unwrap().expect("it ended").starts_with("Serving on http://") {}
    // What the first works with: its base cluster's address, and its BMCs'.
    let worked_with = || {
        let files = ["secrets/fra1-official/kubeconfig", "listener.json"];
        files.map(|file| std::fs::read_to_string(desk.path("bailiwick-data/sim").join(file)).unwrap())
    };
    let before = worked_with();
    desk.run(&["quickstart", "--once", "--listen", "127.0.0.1:0"]).await.refuses(1, "quickstart.running");
    assert_eq!(worked_with(), before);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn what_was_decided_since_stays_when_it_is_started_again_even_after_it_was_killed() {
    let desk = Desk::new();
    desk.run(&["quickstart", "--once", "--listen", "127.0.0.1:0"]).await.ends(0);
    let (mut child, server, _said) =
        support::serving(&mut desk.command(&["quickstart", "--listen", "127.0.0.1:0"])).await;
    let token = desk.path("bailiwick-data/admin.token");
    let token = token.display().to_string();
    let release = ["release", "r1-u03", "--yes", "--server", &server, "--token-file", &token];
    desk.run(&release).await.ends(0);
    // What the simulated Ironic knows is kept within a second; nothing is saved at a SIGKILL.
    let line = desk.path("bailiwick-data/sim/line.json");
    let kept = || std::fs::read_to_string(&line).unwrap().matches("\"available\"").count();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while kept() == 0 {
        assert!(std::time::Instant::now() < deadline, "{}", std::fs::read_to_string(&line).unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    child.kill().await.unwrap();

    let again = desk.run(&["quickstart", "--once", "--listen", "127.0.0.1:0"]).await.ends(0);
    let wanted = "nothing was changed, and r1-u03 is available, as was decided since.\n";
    assert!(again.stdout.contains(wanted), "{again:?}");
}

#[tokio::test]
async fn where_the_usual_port_is_taken_it_takes_another_and_says_so() {
    // Whoever holds it, it is taken.
    let holder = std::net::TcpListener::bind("127.0.0.1:8460");
    let run = Desk::new().run(&["quickstart", "--once"]).await.ends(0);
    drop(holder);
    assert!(run.stderr.contains("127.0.0.1:8460 is taken; a free port is used"), "{run:?}");
}

#[tokio::test]
async fn a_publish_directory_that_cannot_be_written_is_told_as_such() {
    let desk = Desk::new();
    desk.write("bailiwick-data/publish", "a file where a directory must be");
    let words = ["quickstart", "--once", "--listen", "127.0.0.1:0"];
    desk.run(&words).await.refuses(1, "publish.directory");
}
