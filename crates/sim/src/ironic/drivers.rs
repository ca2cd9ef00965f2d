//! Hardware types and the interfaces that each of them may have.

use serde_json::{Map, Value};

/// One kind of interface: its default and all that are enabled.
pub(crate) struct Choice {
    /// Such as `deploy`.
    pub(crate) kind: &'static str,
    /// The default first.
    pub(crate) enabled: &'static [&'static str],
}

/// A hardware type.
pub(crate) struct HardwareType {
    pub(crate) name: &'static str,
    pub(crate) choices: &'static [Choice],
}

const fn choice(kind: &'static str, enabled: &'static [&'static str]) -> Choice {
    Choice { kind, enabled }
}

/// What the endpoint offers: what facts' test set-up of the real one offers too.
pub(crate) const HARDWARE_TYPES: &[HardwareType] = &[
    HardwareType {
        name: "fake-hardware",
        choices: &[
            choice("bios", &["fake", "no-bios"]),
            choice("boot", &["fake"]),
            choice("console", &["fake", "no-console"]),
            choice("deploy", &["fake", "direct", "ramdisk", "custom-agent"]),
            choice("firmware", &["fake", "no-firmware"]),
            choice("inspect", &["fake", "agent", "no-inspect"]),
            choice("management", &["fake"]),
            choice("network", &["noop"]),
            choice("power", &["fake"]),
            choice("raid", &["fake", "no-raid"]),
            choice("rescue", &["fake", "no-rescue"]),
            choice("storage", &["noop", "fake"]),
            choice("vendor", &["fake", "no-vendor"]),
        ],
    },
    HardwareType {
        name: "ipmi",
        choices: &[
            choice("bios", &["no-bios"]),
            choice("boot", &["ipxe", "pxe"]),
            choice("console", &["no-console"]),
            choice("deploy", &["direct", "ramdisk", "custom-agent"]),
            choice("firmware", &["no-firmware"]),
            choice("inspect", &["agent", "no-inspect"]),
            choice("management", &["ipmitool", "noop"]),
            choice("network", &["noop"]),
            choice("power", &["ipmitool"]),
            choice("raid", &["no-raid", "agent"]),
            choice("rescue", &["no-rescue"]),
            choice("storage", &["noop"]),
            choice("vendor", &["ipmitool", "no-vendor"]),
        ],
    },
    HardwareType {
        name: "redfish",
        choices: &[
            choice("bios", &["redfish", "no-bios"]),
            choice("boot", &["ipxe", "redfish-virtual-media", "pxe"]),
            choice("console", &["no-console"]),
            choice("deploy", &["direct", "ramdisk", "custom-agent"]),
            choice("firmware", &["redfish", "no-firmware"]),
            choice("inspect", &["redfish", "agent", "no-inspect"]),
            choice("management", &["redfish", "noop"]),
            choice("network", &["noop"]),
            choice("power", &["redfish"]),
            choice("raid", &["redfish", "agent", "no-raid"]),
            choice("rescue", &["no-rescue"]),
            choice("storage", &["noop"]),
            choice("vendor", &["redfish", "no-vendor"]),
        ],
    },
];

/// A hardware type by name.
pub(crate) fn hardware_type(name: &str) -> Option<&'static HardwareType> {
    HARDWARE_TYPES.iter().find(|hardware| hardware.name == name)
}

impl HardwareType {
    fn choice(&self, kind: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.kind == kind)
    }

    /// Checks the interfaces of a node's record and sets the default where none is given.
    pub(crate) fn complete(&self, record: &mut Map<String, Value>) -> Result<(), String> {
        for choice in self.choices {
            let key = format!("{}_interface", choice.kind);
            match record.get(&key).and_then(Value::as_str) {
                None => {
                    let default = choice.enabled.first().copied().unwrap_or_default();
                    record.insert(key, Value::from(default));
                }
                Some(asked) => self.check(choice.kind, asked)?,
            }
        }
        Ok(())
    }

    fn check(&self, kind: &str, asked: &str) -> Result<(), String> {
        let Some(choice) = self.choice(kind) else { return Ok(()) };
        if choice.enabled.contains(&asked) {
            return Ok(());
        }
        let mut valid: Vec<_> = choice.enabled.iter().map(|name| format!("'{name}'")).collect();
        valid.sort();
        Err(format!(
            "Could not find the following interface in the 'ironic.hardware.interfaces.{kind}' entrypoint: {asked}. \
             Valid interfaces are [{}].",
            valid.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gets_the_defaults_of_its_hardware_type() {
        let mut record = Map::from_iter([("deploy_interface".to_owned(), Value::from("ramdisk"))]);
        hardware_type("redfish").unwrap().complete(&mut record).unwrap();
        assert_eq!(record["deploy_interface"], "ramdisk");
        assert_eq!(record["inspect_interface"], "redfish");
    }

    #[test]
    fn an_interface_that_the_hardware_type_lacks_is_refused() {
        let mut record = Map::from_iter([("deploy_interface".to_owned(), Value::from("nah"))]);
        let sentence = hardware_type("redfish").unwrap().complete(&mut record).unwrap_err();
        assert!(
            sentence.ends_with("Valid interfaces are ['custom-agent', 'direct', 'ramdisk']."),
            "{sentence}"
        );
    }
}
