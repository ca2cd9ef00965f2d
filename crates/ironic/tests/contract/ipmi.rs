//! A machine without Redfish: real Ironic drives `ipmi_sim` with its `ipmi` hardware type, and we drive Ironic.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bailiwick_ironic::{Bmc, Power, PowerState, Registration, Secret, Wish};
use sim::ironic::IronicEndpoint;
use testbed::IpmiSim;

use crate::site::{self, Site, bring, reach, task, until};

/// As a cell registers it: the interfaces are Ironic's own choice.
fn machine(bmc: SocketAddr, password: &str) -> Registration {
    Registration {
        bmc: Bmc::Ipmi {
            address: bmc.ip().to_string(),
            port: Some(bmc.port()),
            username: "admin".to_owned(),
            password: Secret::new(password),
            cipher_suite: None,
        },
        interfaces: BTreeMap::new(),
        ..site::machine()
    }
}

#[tokio::test]
async fn real_ironic_reads_and_switches_the_power_of_a_machine_without_redfish() {
    let bmc = IpmiSim::start().await.unwrap();
    let (_turn, ironic) = (crate::TURN.lock().await, crate::real().await);
    let site = Site::new(ironic.url());
    let node = bring(&site, &machine(bmc.address(), bmc.password()), Wish::Registered).await;
    assert_eq!((node.driver.as_str(), node.interface("power")), ("ipmi", Some("ipmitool")));
    until(&site, node.uuid, |node| node.power_state == Some(PowerState::Off)).await;
    site.client().power(node.uuid, Power::On, None).await.unwrap();
    until(&site, node.uuid, |node| {
        node.power_state == Some(PowerState::On) && node.target_power_state.is_none()
    })
    .await;
    assert!(bmc.is_on().unwrap());
}

#[tokio::test]
async fn real_ironic_tells_that_a_bmc_refuses_its_password() {
    let bmc = IpmiSim::start().await.unwrap();
    let (_turn, ironic) = (crate::TURN.lock().await, crate::real().await);
    let site = Site::new(ironic.url());
    let error = reach(&site, &task(&machine(bmc.address(), "wrong"), Wish::Registered)).await.unwrap_err();
    assert!(error.code().starts_with("ironic."), "{error}");
}

#[tokio::test]
async fn simulated_ironic_takes_a_machine_without_redfish_as_the_real_one_does() {
    let ironic = IronicEndpoint::builder().automated_clean(false).start().unwrap();
    let site = Site::new(ironic.url());
    let node = bring(&site, &machine(([127, 0, 0, 1], 623).into(), "secret"), Wish::Registered).await;
    assert_eq!((node.driver.as_str(), node.interface("power")), ("ipmi", Some("ipmitool")));
}
