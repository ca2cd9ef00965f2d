//! `bailiwick firmware check`, with a document of `inspect` and with a cell.

mod support;

use serde_json::Value;
use support::cell::Served;
use support::{Desk, dgx, repository, start};

fn profiles() -> String {
    repository().join("firmware-profiles").display().to_string()
}

/// A desk with the inventory of a simulated DGX H100 as `inspect` printed it.
async fn inspected() -> (Desk, Value) {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let words = ["inspect", &bmc.url(), "--username", "admin", "--password-file", "pw", "--insecure"];
    let inventory = desk.run(&words).await.ends(0).json();
    desk.write("dgx.json", &inventory.to_string());
    (desk, inventory)
}

#[tokio::test]
async fn a_document_of_inspect_passes_the_profile_of_its_model_with_no_cell() {
    let (desk, inventory) = inspected().await;
    let run =
        desk.run(&["firmware", "check", "--inventory", "dgx.json", "--profiles", &profiles()]).await.ends(0);
    assert_eq!(run.stderr, "");
    let serial = inventory["identity"]["serial"].as_str().unwrap();
    let first = run.stdout.lines().nth(1).unwrap();
    assert!(first.starts_with(serial) && first.contains("compliant   nvidia-dgx-h100"), "{first}");
    let lines: Vec<String> = run
        .stdout
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        .collect();
    for told in [
        "bmc pass 23.11.21 23.11.21 or newer /redfish/v1/UpdateService/FirmwareInventory/HostBMC_0",
        "biosAttribute VtdSupport pass Enabled Enable or Enabled /redfish/v1/Systems/DGX/Bios",
    ] {
        assert!(lines.iter().any(|line| line == told), "{told} in {}", run.stdout);
    }
}

#[tokio::test]
async fn an_older_version_ends_with_1_and_shows_found_against_wanted_with_its_source() {
    let (desk, mut inventory) = inspected().await;
    let bmc = inventory["firmware"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .find(|one| one["id"] == "HostBMC_0")
        .unwrap();
    bmc["version"] = "23.9.9".into();
    desk.write("old.json", &inventory.to_string());
    let words = ["firmware", "check", "--inventory", "old.json", "--profiles", &profiles()];
    let run = desk.run(&words).await.ends(1);
    assert!(run.stderr.contains("error[firmware.not-compliant]"), "{}", run.stderr);
    let values: Vec<&str> = run.stdout.lines().skip_while(|line| *line != "Not as wanted").collect();
    assert_eq!(values.len(), 3, "{values:#?}");
    let words: Vec<&str> = values[2].split_whitespace().skip(1).collect();
    let source = "/redfish/v1/UpdateService/FirmwareInventory/HostBMC_0";
    assert_eq!(words, ["bmc", "too-old", "23.9.9", "23.11.21", "or", "newer", source]);

    let compliance = desk.run(&[&words_of(&profiles())[..], &["-o", "json"]].concat()).await.ends(1).json();
    assert_eq!(
        (&compliance["result"], &compliance["profile"]),
        (&"not-compliant".into(), &"nvidia-dgx-h100".into())
    );
}

fn words_of(profiles: &str) -> [&str; 6] {
    ["firmware", "check", "--inventory", "old.json", "--profiles", profiles]
}

#[tokio::test]
async fn a_machine_without_a_profile_says_so_and_does_not_pass() {
    let (desk, _) = inspected().await;
    let other = repository().join("firmware-profiles/dell-poweredge-r750.yaml").display().to_string();
    let run = desk.run(&["firmware", "check", "--inventory", "dgx.json", "--profiles", &other]).await.ends(1);
    assert!(
        run.stdout.contains("no profile")
            && run.stdout.contains("no firmware profile matches NVIDIA DGXH100"),
        "{run:?}"
    );
}

#[tokio::test]
async fn what_is_no_inventory_and_no_profile_is_refused() {
    let (desk, _) = inspected().await;
    desk.write("empty.yaml", "apiVersion: bailiwick.dev/v1alpha1\nkind: FirmwareProfile\nmetadata: {name: x}\nspec: {match: {model: [a]}, source: s}\n");
    let check = |inventory: &'static str, profiles: String| {
        let desk = &desk;
        async move { desk.run(&["firmware", "check", "--inventory", inventory, "--profiles", &profiles]).await }
    };
    check("pw", profiles()).await.refuses(3, "input.unreadable");
    check("dgx.json", "empty.yaml".to_owned()).await.refuses(1, "firmware.profile-invalid");
    desk.run(&["firmware", "check", "--inventory", "dgx.json"]).await.ends(2);
    desk.run(&["firmware", "check", "=x"]).await.ends(2);
}

#[tokio::test]
async fn a_cell_takes_profiles_like_every_kind_and_a_selector_that_fits_nothing_is_told() {
    let served = Served::start().await;
    let profiles = profiles();
    let run = served.run(&["apply", "-f", &profiles, "--yes"]).await.ends(0);
    assert!(run.stdout.contains("FirmwareProfile"), "{run:?}");
    served.run(&["apply", "-f", &profiles, "--yes"]).await.ends(0);
    let listed = served.run(&["get", "firmwareprofiles"]).await.ends(0).stdout;
    assert!(
        listed.contains("lenovo-thinksystem-sr670-v2") && listed.contains("ThinkSystem SR670 V2"),
        "{listed}"
    );
    let run = served.run(&["firmware", "check"]).await.ends(0);
    assert_eq!(run.stdout, "No machines.\n");
    served.run(&["firmware", "check", "r9-*"]).await.refuses(4, "input.not-found");
    let explained = served.run(&["explain", "firmwareprofile"]).await.ends(0).stdout;
    assert!(
        explained.contains("spec.match.manufacturer") && explained.contains("spec.components"),
        "{explained}"
    );
}
