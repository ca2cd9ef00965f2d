//! What holds of every BMC: the same tests on `ipmi_sim`, which nobody here wrote, and on our simulated BMC.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bailiwick_ipmi::{
    BootDevice, CipherSuite, Client, Evidence, Power, PowerAction, Privilege, Reading, SelRecord, Severity,
    Target, auth_capabilities, ping, probe,
};
use sim::ipmi::{IpmiBmc, IpmiMachine};
use support::{login, options, target};
use testbed::IpmiSim;

/// A BMC under test, and what is known of it beforehand.
enum Bmc {
    Real(IpmiSim),
    Simulated(IpmiBmc),
}

const PASSWORD: &str = "a-password-of-20-byt";

impl Bmc {
    async fn real() -> Self {
        Self::Real(IpmiSim::start().await.unwrap())
    }

    async fn simulated() -> Self {
        Self::Simulated(IpmiBmc::start(IpmiMachine::new("admin", PASSWORD)).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Real(bmc) => bmc.address(),
            Self::Simulated(bmc) => bmc.address(),
        }
    }

    fn password(&self) -> &str {
        match self {
            Self::Real(bmc) => bmc.password(),
            Self::Simulated(_) => PASSWORD,
        }
    }

    fn serial(&self) -> &'static str {
        match self {
            Self::Real(_) => IpmiSim::SERIAL,
            Self::Simulated(_) => "SIM-5001",
        }
    }

    fn guid(&self) -> [u8; 16] {
        match self {
            Self::Real(bmc) => bmc.guid(),
            Self::Simulated(bmc) => bmc.with(|machine| machine.guid),
        }
    }

    fn mac(&self) -> &'static str {
        match self {
            Self::Real(_) => IpmiSim::MAC,
            Self::Simulated(_) => "02:00:5e:10:00:01",
        }
    }

    fn is_on(&self) -> bool {
        match self {
            Self::Real(bmc) => bmc.is_on().unwrap(),
            Self::Simulated(bmc) => bmc.with(|machine| machine.power() == Power::On),
        }
    }

    fn ignore_orders(&self) {
        match self {
            Self::Real(bmc) => bmc.ignore_orders().unwrap(),
            Self::Simulated(bmc) => bmc.with(|machine| machine.faults.deaf = true),
        }
    }

    async fn login(&self) -> Client {
        login(self.address(), "admin", self.password()).await
    }

    fn target(&self, suites: &[CipherSuite]) -> Target {
        Target { suites: suites.to_vec(), ..target(self.address(), "admin", self.password()) }
    }
}

/// Each of these functions is a test on both.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod real {
            $(#[tokio::test] async fn $name() { super::$name(super::Bmc::real().await).await; })+
        }
        mod simulated {
            $(#[tokio::test] async fn $name() { super::$name(super::Bmc::simulated().await).await; })+
        }
    };
}

on_both!(
    a_ping_is_answered,
    capabilities_are_told_without_login,
    a_probe_finds_it_without_login,
    a_session_stands_with_suite_3,
    a_wrong_password_is_unauthorized,
    an_unknown_user_is_unauthorized,
    who_may_look_may_look,
    identity_comes_from_device_inventory_and_guid,
    power_goes_on_and_off,
    switching_on_what_is_on_sends_nothing,
    a_cycle_is_seen,
    a_reset_leaves_power_on,
    a_host_that_is_off_is_neither_reset_nor_cycled,
    an_order_that_does_nothing_is_noticed,
    a_boot_device_that_does_not_change_is_noticed,
    every_boot_device_is_read_back,
    sensors_have_names_values_and_units,
    the_event_log_is_read_whole_and_in_pages,
    many_tasks_may_ask_at_once,
    a_future_dropped_half_way_disturbs_nothing,
    more_commands_than_sequence_numbers,
);

async fn a_ping_is_answered(bmc: Bmc) {
    let presence = ping(bmc.address(), Duration::from_secs(3)).await.unwrap();
    assert!(presence.ipmi);
    assert_eq!(presence.address, bmc.address());
}

async fn capabilities_are_told_without_login(bmc: Bmc) {
    let found = auth_capabilities(bmc.address(), &options()).await.unwrap();
    assert!(found.ipmi_2_0 && !found.anonymous && !found.key_set);
    assert_eq!(found.channel, 1);
}

async fn a_probe_finds_it_without_login(bmc: Bmc) {
    let found = probe(bmc.address(), Duration::from_secs(3)).await.unwrap();
    assert_eq!((found.pong, found.version()), (true, Some("2.0")));
    assert!(found.speaks_ipmi_2_0().is_ok());
}

async fn a_session_stands_with_suite_3(bmc: Bmc) {
    let client = Client::connect(bmc.target(&[CipherSuite::Suite3]), options()).await.unwrap();
    assert_eq!(client.suite().await, Some(CipherSuite::Suite3));
    assert_eq!(client.power().await.unwrap(), Power::Off);
    client.close().await;
}

async fn a_wrong_password_is_unauthorized(bmc: Bmc) {
    let error = Client::connect(target(bmc.address(), "admin", "wrong"), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unauthorized");
}

async fn an_unknown_user_is_unauthorized(bmc: Bmc) {
    let error =
        Client::connect(target(bmc.address(), "nobody", bmc.password()), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unauthorized");
}

async fn who_may_look_may_look(bmc: Bmc) {
    let username = match &bmc {
        Bmc::Real(bmc) => bmc.reader(),
        Bmc::Simulated(bmc) => {
            bmc.with(|machine| machine.privilege = Privilege::User);
            "admin"
        }
    };
    let modest = Target { privilege: Privilege::User, ..target(bmc.address(), username, bmc.password()) };
    let client = Client::connect(modest, options()).await.unwrap();
    assert_eq!(client.power().await.unwrap(), Power::Off);
}

async fn identity_comes_from_device_inventory_and_guid(bmc: Bmc) {
    let identity = bmc.login().await.identity().await.unwrap();
    assert_eq!(identity.serial(), Some(bmc.serial()));
    assert_eq!(identity.model(), Some("Eight GPUs"));
    assert_eq!(identity.guid.unwrap().0, bmc.guid());
    assert_eq!(identity.mac.as_deref(), Some(bmc.mac()));
    assert_eq!(identity.device.firmware, "2.17");
    assert_eq!(identity.device.version, "2.0");
    assert_eq!(identity.problems, []);
}

async fn power_goes_on_and_off(bmc: Bmc) {
    let client = bmc.login().await;
    let on = client.set_power(PowerAction::On).await.unwrap();
    assert_eq!((on.before, on.after, on.evidence), (Power::Off, Power::On, Evidence::Seen));
    assert!(bmc.is_on());
    let off = client.set_power(PowerAction::Off).await.unwrap();
    assert_eq!((off.before, off.after, off.evidence), (Power::On, Power::Off, Evidence::Seen));
    assert!(!bmc.is_on());
    client.set_power(PowerAction::On).await.unwrap();
    let soft = client.set_power(PowerAction::SoftOff).await.unwrap();
    assert_eq!((soft.after, bmc.is_on()), (Power::Off, false));
}

async fn switching_on_what_is_on_sends_nothing(bmc: Bmc) {
    let client = bmc.login().await;
    client.set_power(PowerAction::On).await.unwrap();
    bmc.ignore_orders();
    assert_eq!(client.set_power(PowerAction::On).await.unwrap().evidence, Evidence::NotNeeded);
}

async fn a_cycle_is_seen(bmc: Bmc) {
    let client = bmc.login().await;
    client.set_power(PowerAction::On).await.unwrap();
    let cycle = client.set_power(PowerAction::Cycle).await.unwrap();
    assert_eq!((cycle.before, cycle.after, cycle.evidence), (Power::On, Power::On, Evidence::Seen));
}

async fn a_reset_leaves_power_on(bmc: Bmc) {
    let client = bmc.login().await;
    client.set_power(PowerAction::On).await.unwrap();
    let reset = client.set_power(PowerAction::Reset).await.unwrap();
    assert_eq!((reset.after, reset.evidence), (Power::On, Evidence::Agreed));
    match &bmc {
        Bmc::Real(bmc) => assert_eq!(bmc.orders().unwrap().last().unwrap(), "set reset 1"),
        Bmc::Simulated(bmc) => assert_eq!(bmc.with(|machine| machine.counters.resets), 1),
    }
}

async fn a_host_that_is_off_is_neither_reset_nor_cycled(bmc: Bmc) {
    let client = bmc.login().await;
    for action in [PowerAction::Cycle, PowerAction::Reset] {
        assert_eq!(client.set_power(action).await.unwrap_err().code(), "ipmi.host-off");
    }
    match &bmc {
        Bmc::Real(bmc) => assert_eq!(bmc.orders().unwrap(), Vec::<String>::new()),
        Bmc::Simulated(bmc) => assert_eq!(bmc.with(|machine| machine.counters.power_orders), 0),
    }
}

async fn an_order_that_does_nothing_is_noticed(bmc: Bmc) {
    let options = bailiwick_ipmi::Options { power_within: Duration::from_millis(300), ..options() };
    let client = Client::connect(target(bmc.address(), "admin", bmc.password()), options).await.unwrap();
    bmc.ignore_orders();
    let error = client.set_power(PowerAction::On).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.power-unchanged");
}

async fn a_boot_device_that_does_not_change_is_noticed(bmc: Bmc) {
    let client = bmc.login().await;
    bmc.ignore_orders();
    let error = client.set_boot_device(BootDevice::Pxe, false, true).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.boot-device-unchanged");
}

async fn every_boot_device_is_read_back(bmc: Bmc) {
    let client = bmc.login().await;
    let names = [
        (BootDevice::Pxe, "pxe"),
        (BootDevice::Cdrom, "cdrom"),
        (BootDevice::Bios, "bios"),
        (BootDevice::Disk, "default"),
        (BootDevice::None, "none"),
    ];
    for (device, name) in names {
        let flags = client.set_boot_device(device, true, true).await.unwrap();
        assert_eq!(flags.device, device);
        assert_eq!(client.boot_device().await.unwrap(), flags);
        match &bmc {
            Bmc::Real(bmc) => assert_eq!(bmc.boot_device().unwrap(), name),
            Bmc::Simulated(bmc) => {
                assert!(bmc.with(|machine| machine.boot.device == device && machine.boot.kept));
                assert!(flags.persistent && flags.uefi && flags.valid == (device != BootDevice::None));
            }
        }
    }
}

async fn sensors_have_names_values_and_units(bmc: Bmc) {
    let listing = bmc.login().await.sensors().await.unwrap();
    assert_eq!(listing.problems, []);
    let value = |name: &str| {
        let sensor = listing.items.iter().find(|sensor| sensor.record.name == name).unwrap();
        let Reading::Value { value: Some(value), severity, .. } = sensor.reading else {
            panic!("{name} reads {:?}", sensor.reading)
        };
        (value, severity, sensor.record.unit.to_string())
    };
    assert_eq!(value("PSU1 Out"), (12.2, Severity::Ok, "Volts".to_owned()));
    let (temperature, severity, unit) = value("Inlet Temp");
    assert!((20.0..30.0).contains(&temperature), "{temperature}");
    assert_eq!((severity, unit.as_str()), (Severity::Ok, "degrees C"));
    assert_eq!(value("Fan 1a").2, "RPM");
}

async fn the_event_log_is_read_whole_and_in_pages(bmc: Bmc) {
    let client = bmc.login().await;
    let whole = client.sel().await.unwrap();
    assert_eq!(usize::from(client.sel_info().await.unwrap().entries), whole.items.len());
    let SelRecord::Event { sensor_kind, asserted, .. } = whole.items[0].record else {
        panic!("{:?}", whole.items[0])
    };
    assert_eq!((sensor_kind, asserted), (1, true));

    let (mut paged, mut from) = (Vec::new(), None);
    loop {
        let page = client.sel_page(from, 1).await.unwrap();
        assert!(page.entries.len() <= 1);
        paged.extend(page.entries);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(paged, whole.items);
}

async fn many_tasks_may_ask_at_once(bmc: Bmc) {
    let client = std::sync::Arc::new(bmc.login().await);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move { client.power().await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Power::Off);
    }
}

async fn a_future_dropped_half_way_disturbs_nothing(bmc: Bmc) {
    let client = bmc.login().await;
    for _ in 0..10 {
        // Polled once: the command is on its way, and nobody waits for its answer.
        let mut asked = Box::pin(client.boot_device());
        assert!(futures_poll(&mut asked).await);
        drop(asked);
        assert_eq!(client.power().await.unwrap(), Power::Off);
    }
}

/// Polls once; whether it is still under way.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

async fn more_commands_than_sequence_numbers(bmc: Bmc) {
    let client = bmc.login().await;
    for _ in 0..150 {
        client.power().await.unwrap();
    }
}
