//! The command against a cell that `bailiwick serve` runs, with a simulated BMC behind it.

mod support;

use std::os::unix::fs::PermissionsExt as _;

use std::process::Stdio;

use sim::{CertificateAuthority, CertificateKind, RunningBmc};
use support::cell::Served;
use support::{Desk, PLACES, Run, dgx, interrupt, start};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

const PASSWORD: &str = "hush-hush-7";

const CLASS: &str = "\
---
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: try}
spec: {jurisdiction: eu, requires: [inventoried]}
";

fn places() -> String {
    PLACES.to_owned() + CLASS
}

fn machine(bmc: &RunningBmc) -> String {
    format!(
        "apiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: m1}}\nspec:\n  site: lab\n  bmc: {{address: {}, username: admin, passwordFile: secrets/pw}}\n",
        bmc.address()
    )
}

/// A cell, a BMC, and declarations of both in `inv/`.
async fn lab() -> (Served, RunningBmc) {
    let (served, bmc) = (Served::start().await, start(dgx().credentials("admin", PASSWORD)).await);
    served.desk.write("inv/places.yaml", &places());
    served.desk.write("inv/machines/m1.yaml", &machine(&bmc));
    served.desk.write("inv/machines/secrets/pw", &format!("{PASSWORD}\n"));
    (served, bmc)
}

#[tokio::test]
async fn a_cell_serves_until_it_is_asked_to_end() {
    let served = Served::start().await;
    let mode = std::fs::metadata(&served.token_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let version = served.run(&["version", "-o", "json"]).await.ends(0).json();
    assert_eq!(version["cell"]["jurisdiction"], "eu");
    let (code, said) = served.end().await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_cell_reads_its_file_and_refuses_one_with_an_unknown_key() {
    let desk = Desk::new();
    desk.write("cell.toml", "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n");
    let run = desk.run(&["serve", "--config", "cell.toml"]).await.refuses(3, "config.unknown-key");
    assert!(
        run.stderr.contains("cell.toml:2:1") && run.stderr.contains("did you mean `data-dir`?"),
        "{run:?}"
    );
    desk.write("cell.toml", "listen = \"127.0.0.1:0\"\ndata-dir = \"data\"\n");
    desk.run(&["serve", "--config", "cell.toml"]).await.refuses(3, "cell.jurisdiction-missing");
}

#[tokio::test]
async fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let desk = Desk::new();
    for (at, (flag, variable, expected)) in
        [(Some("eu"), Some("de"), "eu"), (None, Some("de"), "de"), (None, None, "fr")].into_iter().enumerate()
    {
        let data = format!("data{at}");
        desk.write(
            "cell.toml",
            &format!("jurisdiction = \"fr\"\ndata-dir = \"{data}\"\nlisten = \"127.0.0.1:0\"\n"),
        );
        let mut command = desk.command(&["serve", "--config", "cell.toml"]);
        command.args(flag.map(|flag| format!("--jurisdiction={flag}")));
        command.envs(variable.map(|value| ("BAILIWICK_JURISDICTION", value)));
        let served = Served::of(Desk::new(), command, desk.path(&data).join("admin.token")).await;
        assert_eq!(
            served.run(&["version", "-o", "json"]).await.ends(0).json()["cell"]["jurisdiction"],
            expected
        );
    }
}

#[tokio::test]
async fn what_is_declared_is_shown_confirmed_enrolled_and_told() {
    let (served, bmc) = lab().await;
    let unasked = served.run(&["apply", "-f", "inv"]).await.ends(7);
    assert!(
        unasked.stderr.contains("error[plan.unconfirmed]") && unasked.stdout.contains("+ Machine/m1"),
        "{unasked:?}"
    );
    assert_eq!(served.run(&["get", "sites"]).await.ends(0).stdout, "No sites.\n");

    let plan = served.run(&["plan", "-f", "inv"]).await.ends(0).stdout;
    assert!(plan.contains("+ GpuClass/try  TRIAL"), "{plan}");
    let digest = plan.lines().find_map(|line| line.strip_prefix("Digest: ")).unwrap();
    let applied = served.run(&["apply", "--plan", digest]).await.ends(0).stdout;
    assert!(applied.starts_with("Applied: 5 created.\n"), "{applied}");
    let again = served.run(&["apply", "--plan", digest]).await.ends(0).stdout;
    assert!(again.contains("was applied before; nothing was done"), "{again}");
    let same = served.run(&["apply", "-f", "inv", "--yes"]).await.ends(0).stdout;
    assert_eq!(same, "Nothing to change: 5 objects are as declared.\n");

    served.until_enrolled(&["m1"]).await;
    let machine = served.run(&["describe", "machine", "m1"]).await.ends(0).stdout;
    assert!(machine.contains(&bmc.pin()) && machine.contains("GPUs (8)"), "{machine}");
    assert!(served.run(&["why", "m1"]).await.ends(0).stdout.starts_with("m1 is enrolled for "));
    let classes = served.run(&["get", "classes"]).await.ends(0).stdout;
    assert!(classes.contains("TRIAL: on a BMC's word alone"), "{classes}");
    let gpus = served.run(&["get", "gpus", "-o", "json"]).await.ends(0).json();
    let serial = gpus["items"][7]["gpu"]["serial"].as_str().unwrap();
    assert!(served.run(&["describe", "gpu", serial]).await.ends(0).stdout.contains("try (TRIAL)"));
    let site = served.run(&["get", "site", "lab", "-o", "yaml"]).await.ends(0).stdout;
    assert!(site.starts_with("apiVersion: bailiwick.dev/v1alpha1\nkind: Site\n"), "{site}");

    let (_, log) = served.end().await;
    for text in [unasked.stdout, unasked.stderr, plan, applied, again, same, machine, log] {
        assert!(!text.contains(PASSWORD), "a password was printed: {text}");
    }
}

#[tokio::test]
async fn a_plan_is_stale_once_something_else_was_applied() {
    let (served, _bmc) = lab().await;
    let digest = |run: support::Run| run.ends(0).json()["digest"].as_str().unwrap().to_owned();
    let one = digest(served.run(&["plan", "-f", "inv/places.yaml", "-o", "json"]).await);
    served.run(&["apply", "-f", "inv", "--yes"]).await.ends(0);
    let other = format!("{}---\n{}", places(), places().split("---\n").next().unwrap().replace("eu", "fr"));
    served.desk.write("other.yaml", &other);
    let two = digest(served.run(&["plan", "-f", "other.yaml", "-o", "json"]).await);
    served.run(&["delete", "machine", "m1", "--yes"]).await.ends(0);
    for digest in [one, two] {
        served.run(&["apply", "--plan", &digest]).await.refuses(7, "plan.stale");
    }
}

#[tokio::test]
async fn what_others_refer_to_is_not_deleted() {
    let (served, _bmc) = lab().await;
    served.run(&["apply", "-f", "inv", "--yes"]).await.ends(0);
    served.run(&["delete", "site", "lab", "--yes"]).await.refuses(3, "declaration.in-use");
    served.run(&["delete", "machine", "none", "--yes"]).await.refuses(4, "declaration.not-found");
    let gone = served.run(&["delete", "machine", "m1", "--yes"]).await.ends(0).stdout;
    assert!(gone.contains("- Machine/m1") && gone.ends_with("Applied: 1 deleted.\n"), "{gone}");
    served.run(&["describe", "machine", "m1"]).await.refuses(4, "api.not-found");
}

#[tokio::test]
async fn bad_declarations_are_told_with_file_line_and_suggestion() {
    let (served, _bmc) = lab().await;
    served.desk.write("bad.yaml", &places().replace("bmcNetworks", "bmcNetwork"));
    let run = served.run(&["apply", "-f", "bad.yaml", "--yes"]).await.refuses(3, "declaration.unknown-field");
    assert!(
        run.stderr.contains("did you mean `bmcNetworks`?") && run.stderr.contains("bad.yaml:14:"),
        "{run:?}"
    );
    let us = places().split("---\n").next().unwrap().replace("eu", "us");
    served.desk.write(
        "us.yaml",
        &format!("{us}---\n{}", places().replace("jurisdiction: eu, operator", "jurisdiction: us, operator")),
    );
    served.run(&["plan", "-f", "us.yaml"]).await.refuses(3, "jurisdiction.outside-cell");
    std::fs::remove_file(served.desk.path("inv/machines/secrets/pw")).unwrap();
    let run = served.run(&["plan", "-f", "inv"]).await.refuses(3, "input.unreadable");
    assert!(run.stderr.contains("inv/machines/m1.yaml:1"), "{run:?}");
}

#[tokio::test]
async fn the_example_declarations_fit_a_cell_of_the_european_union() {
    let served = Served::start().await;
    for entry in [
        "jurisdictions.yaml",
        "legal-entities.yaml",
        "gpu-classes.yaml",
        "sites/fra1.yaml",
        "sites/fra1-machines.yaml",
    ] {
        let text = std::fs::read_to_string(support::repository().join("inventory").join(entry)).unwrap();
        served.desk.write(&format!("inventory/{entry}"), &text);
    }
    served.desk.write("inventory/secrets/fra1-bmc", PASSWORD);
    let plan = served.run(&["plan", "-f", "inventory"]).await.ends(0).stdout;
    assert!(plan.contains("Plan: 12 to create."), "{plan}");
}

#[tokio::test]
async fn a_token_may_do_what_its_role_may_until_it_is_revoked() {
    let (mut served, _bmc) = lab().await;
    let token = served
        .run(&["token", "create", "grafana", "--role", "viewer", "--expires", "30d"])
        .await
        .ends(0)
        .stdout;
    let list = served.run(&["token", "list"]).await.ends(0).stdout;
    assert!(list.contains("grafana") && !list.contains(token.trim()), "{list}");
    served.desk.write("viewer.token", &token);
    let admin = std::mem::replace(&mut served.token_file, served.desk.path("viewer.token"));
    served.run(&["get", "machines"]).await.ends(0);
    served.run(&["apply", "-f", "inv", "--yes"]).await.refuses(5, "api.forbidden");
    let viewer = std::mem::replace(&mut served.token_file, admin);
    served.run(&["token", "revoke", "grafana"]).await.ends(0);
    served.token_file = viewer;
    served.run(&["get", "machines"]).await.refuses(5, "api.unauthorized");
}

#[tokio::test]
async fn a_context_names_the_cell_and_its_token() {
    let served = Served::start().await;
    let desk = &served.desk;
    let token = served.token_file.to_str().unwrap();
    desk.run(&["context", "set", "lab", "--server", &served.server, "--token-file", token]).await.ends(0);
    desk.run(&["version"]).await.ends(0);
    assert!(desk.run(&["context", "list"]).await.ends(0).stdout.contains('*'));
    let file = desk.path("config/bailiwick/config.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    desk.run(&["--context", "lap", "get", "machines"]).await.refuses(4, "context.unknown");
    // A server named by itself gets no token of a context.
    desk.run(&["--server", &served.server, "get", "machines"]).await.refuses(5, "api.unauthorized");
    desk.run(&["context", "delete", "lab"]).await.ends(0);
}

#[tokio::test]
async fn declarations_come_from_standard_input_too() {
    let served = Served::start().await;
    let mut child = served
        .command(&["apply", "-f", "-", "--yes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(places().as_bytes()).await.unwrap();
    assert!(
        Run::of(child.wait_with_output().await.unwrap()).ends(0).stdout.ends_with("Applied: 4 created.\n")
    );
}

#[tokio::test]
async fn a_list_is_watched_until_interrupted() {
    let served = Served::start().await;
    let mut child = served.command(&["get", "machines", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("NAME"));
    interrupt(&child);
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn over_https_the_server_must_be_signed_by_the_cas_of_the_context() {
    // A BMC stands in for a server with a certificate: what it answers is told as no cell's, once it is trusted.
    let authority = CertificateAuthority::generate("a CA").unwrap();
    let bmc = start(dgx().certificate(CertificateKind::SignedBy(authority.clone()))).await;
    let desk = Desk::new();
    desk.write("ca.pem", authority.pem());
    desk.write("token", "secret-token");
    let url = bmc.url();
    let set = ["context", "set", "far", "--server", &url, "--token-file", "token"];
    desk.run(&set).await.ends(0);
    bmc.record_requests();
    desk.run(&["get", "machines"]).await.refuses(6, "cell.unreachable");
    assert!(bmc.recorded_requests().is_empty(), "the token must not go to a server that nobody vouches for");
    desk.run(&[&set[..], &["--ca-file", "ca.pem"]].concat()).await.ends(0);
    desk.run(&["get", "machines"]).await.refuses(1, "cell.answer");
    assert_eq!(bmc.recorded_requests().len(), 1);
}

#[tokio::test]
async fn where_no_cell_is_the_command_says_how_to_start_one() {
    let desk = Desk::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let run = desk.run(&["--server", &server, "get", "machines"]).await.refuses(6, "cell.unreachable");
    assert!(run.stderr.contains("bailiwick serve"), "{run:?}");
    let version = desk.run(&["--server", &server, "version"]).await.ends(6).stdout;
    assert!(version.starts_with("Client: "), "what is known is told: {version}");
}

#[tokio::test]
async fn a_context_that_every_cell_would_refuse_is_kept_and_says_what_to_do() {
    let desk = Desk::new();
    let set = async |more: &[&str]| {
        let words = ["context", "set", "lab", "--server", "http://127.0.0.1:1"];
        desk.run(&[&words, more].concat()).await.ends(0).stderr
    };
    let command = "`bailiwick context set lab --token-file FILE` names";
    let said = set(&[]).await;
    assert!(said.contains("warning[context.no-token]: context lab has no token file"), "{said}");
    assert!(said.contains(command) && said.contains("admin.token"), "{said}");

    let said = set(&["--token-file", "gone.token"]).await;
    assert!(
        said.contains("warning[input.unreadable]") && said.contains("gone.token cannot be read"),
        "{said}"
    );
    assert!(said.contains(command), "{said}");

    desk.write("empty.token", "\n");
    let said = set(&["--token-file", "empty.token"]).await;
    assert!(said.contains("empty.token is empty") && said.contains(command), "{said}");

    desk.write("lab.token", "bw_1\n");
    let said = set(&["--token-file", "lab.token"]).await;
    assert!(!said.contains("warning"), "{said}");
}
