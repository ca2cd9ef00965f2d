//! Values that the tests of several modules begin with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use uuid::Uuid;

use crate::node::Node;
use crate::registration::{Agent, AutomatedClean, Bmc, BootMode, Registration, Trait, VerifyCa};
use crate::secret::{MASK, Secret};

pub(crate) fn registration() -> Registration {
    Registration {
        uuid: Uuid::from_u128(1),
        name: "m1".to_owned(),
        cell: "eu".to_owned(),
        machine: "m1".to_owned(),
        bmc: Bmc::Redfish {
            address: "https://bmc-1.example".to_owned(),
            system_id: Some("/redfish/v1/Systems/1".to_owned()),
            username: "ironic".to_owned(),
            password: Secret::new("hunter2"),
            verify_ca: VerifyCa::File("/etc/ironic/bmc.pem".to_owned()),
        },
        credentials: "v1".to_owned(),
        interfaces: BTreeMap::from([("boot".to_owned(), "redfish-virtual-media".to_owned())]),
        agent: Agent::Iso("https://images.example/agent.iso".to_owned()),
        boot_mode: BootMode::Uefi,
        cpu_arch: Some("x86_64".to_owned()),
        macs: vec!["02:00:00:00:00:01".parse().unwrap()],
        traits: BTreeSet::from([Trait::bailiwick(&["jurisdiction", "fr"])]),
        owner: None,
        automated_clean: AutomatedClean::Set(Some(true)),
    }
}

/// The node that Ironic shows after a registration.
pub(crate) fn registered(registration: &Registration) -> Node {
    let mut body = registration.new_node().body();
    body["provision_state"] = json!("enroll");
    body["driver_info"]["redfish_password"] = json!(MASK);
    body["traits"] = json!(registration.traits);
    serde_json::from_value(body).unwrap()
}
