//! An open store in a place of its own, and a small world to declare in it.

use bailiwick_store::{Applied, Store, StoreError, StoreOptions, Zeroizing};
use domain::inventory::{Gpu, Identity};
use domain::plan::Wish;
use domain::{Declaration, Digest, Inventory, Name, Plan, fact};
use jiff::Timestamp;
use sqlx::{AnyConnection, Connection as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use testbed::Postgres;

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) options: StoreOptions,
    pub(crate) directory: tempfile::TempDir,
    _server: Option<Arc<Postgres>>,
}

impl Bench {
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("cell/bailiwick.db").display());
        Self::open(directory, url, None).await
    }

    pub(crate) async fn postgres(server: Arc<Postgres>, database: &str) -> Self {
        server.create_database(database).await.unwrap();
        let url = server.url(database);
        Self::open(tempfile::tempdir().unwrap(), url, Some(server)).await
    }

    async fn open(directory: tempfile::TempDir, url: String, server: Option<Arc<Postgres>>) -> Self {
        let key_file = directory.path().join("cell/key");
        let options = StoreOptions { url, key_file, max_connections: 4 };
        let store = Store::open(options.clone()).await.unwrap();
        Self { store, options, directory, _server: server }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.options.url.starts_with("postgres")
    }

    /// Closes the store and opens the same database again.
    pub(crate) async fn reopen(mut self) -> Self {
        self.store.close().await;
        self.store = Store::open(self.options.clone()).await.unwrap();
        self
    }

    /// Closes the store and opens it in another way, which has to fail.
    pub(crate) async fn fail_to_reopen(&self, change: impl FnOnce(&mut StoreOptions)) -> StoreError {
        self.store.close().await;
        let mut options = self.options.clone();
        change(&mut options);
        Store::open(options).await.unwrap_err()
    }

    /// A connection that knows nothing of the store's rules.
    pub(crate) async fn raw(&self) -> AnyConnection {
        AnyConnection::connect(&self.options.url).await.unwrap()
    }

    /// Plans and applies documents; gives what came of it.
    pub(crate) async fn apply(&self, yaml: &str, passwords: &[(&str, &str)]) -> Applied {
        let plan = self.plan(&declared(yaml), &[], passwords).await;
        self.save_and_apply(&plan, passwords).await
    }

    pub(crate) async fn save_and_apply(&self, plan: &Plan, passwords: &[(&str, &str)]) -> Applied {
        self.store.save_plan(plan, &secrets(passwords), "ada").await.unwrap();
        self.store.apply_plan(&plan.digest, "bob").await.unwrap()
    }

    pub(crate) async fn plan(
        &self,
        apply: &[Declaration],
        delete: &[(domain::Kind, Name)],
        passwords: &[(&str, &str)],
    ) -> Plan {
        let mut new_passwords = BTreeMap::new();
        for (machine, password) in passwords {
            if !self.store.password_equals(&name(machine), password).await.unwrap() {
                new_passwords.insert(name(machine), domain::Digest::of(password.as_bytes()).to_string());
            }
        }
        let wish = Wish { apply: apply.to_vec(), delete: delete.to_vec(), new_passwords };
        Plan::make(&self.store.declarations().await.unwrap(), &wish, None).unwrap()
    }

    /// A world of these machines, each with a password.
    pub(crate) async fn declare(&self, machines: &[&str]) {
        let yaml = world(machines);
        let passwords: Vec<_> = machines.iter().map(|machine| (*machine, "hunter2")).collect();
        self.apply(&yaml, &passwords).await;
    }

    pub(crate) async fn generation(&self, machine: &str) -> i64 {
        self.store.machine(&name(machine)).await.unwrap().unwrap().generation
    }

    pub(crate) async fn discover(&self, machine: &str) {
        let generation = self.generation(machine).await;
        self.store.record_discovery(&name(machine), generation, &pin(1)).await.unwrap();
    }

    pub(crate) async fn enrol(
        &self,
        machine: &str,
        inventory: &Inventory,
        at: Timestamp,
    ) -> Result<bailiwick_store::Enrolment, StoreError> {
        let generation = self.generation(machine).await;
        let facts = fact::from_inventory(inventory, at);
        self.store.record_enrolment(&name(machine), generation, inventory, &facts, at).await
    }

    /// Kinds of the events after a number.
    pub(crate) async fn kinds(&self, after: i64) -> Vec<String> {
        self.store.events(after, 1000).await.unwrap().into_iter().map(|event| event.kind).collect()
    }

    pub(crate) async fn last(&self) -> i64 {
        self.store.last_event().await.unwrap()
    }
}

pub(crate) fn world(machines: &[&str]) -> String {
    let mut yaml = String::from(
        "apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: acme}
spec: {legalName: Acme, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra1}
spec: {jurisdiction: eu, operator: acme, country: DE, bmcNetworks: [10.0.0.0/24]}
",
    );
    for machine in machines {
        yaml.push_str(&machine_document(machine, "10.0.0.5", ""));
    }
    yaml
}

pub(crate) fn machine_document(machine: &str, address: &str, more: &str) -> String {
    format!(
        "---
apiVersion: bailiwick.dev/v1alpha1
kind: Machine
metadata: {{name: {machine}}}
spec: {{site: fra1, bmc: {{address: {address}, username: root, passwordFile: pw}}{more}}}
"
    )
}

pub(crate) fn declared(yaml: &str) -> Vec<Declaration> {
    domain::manifest::read("world", yaml).unwrap().into_iter().map(|located| located.declaration).collect()
}

pub(crate) fn secrets(passwords: &[(&str, &str)]) -> BTreeMap<Name, Zeroizing<String>> {
    passwords.iter().map(|(machine, text)| (name(machine), Zeroizing::new((*text).to_owned()))).collect()
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn pin(number: u8) -> Digest {
    Digest::of(&[number])
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A server with these GPUs.
pub(crate) fn server(serial: &str, gpus: &[&str]) -> Inventory {
    let gpu = |serial: &&str| Gpu {
        model: Some("H100".into()),
        serial: Some((*serial).to_owned()),
        sources: vec!["/redfish/v1/Systems/1/Processors/GPU".into()],
        ..Gpu::default()
    };
    Inventory {
        identity: Identity {
            manufacturer: Some("Acme".into()),
            serial: Some(serial.to_owned()),
            uuid: Some(format!("00000000-0000-0000-0000-{serial:0>12}")),
            ..Identity::default()
        },
        gpus: gpus.iter().map(gpu).collect(),
        memory_gib: Some(64),
        ..Inventory::default()
    }
}
