//! Which host is the machine's.

use crate::address::same_machine;
use crate::error::problem;
use crate::host::BareMetalHost;
use crate::registration::Registration;
use crate::{KIND_HOST, LABEL_MACHINE, LABEL_OWNER};
use domain::Problem;

/// Finds the machine's host among all of a namespace: by our label, by name, or by the address of its BMC or the MAC address
/// that it boots from; a host found the last way is taken over under its own name. It is a problem when several are found, or
/// when the one of its name is another machine's.
pub fn find<'a>(
    registration: &Registration,
    hosts: &'a [BareMetalHost],
) -> Result<Option<&'a BareMetalHost>, Problem> {
    let machine = registration.machine.as_str();
    let labelled: Vec<_> = hosts.iter().filter(|host| is_labelled(registration, host)).collect();
    let alike = |host: &&BareMetalHost| is_same(registration, host);
    let found: Vec<_> = if labelled.is_empty() {
        hosts.iter().filter(|host| host.name == machine || alike(host)).collect()
    } else {
        labelled
    };
    let host = match found.as_slice() {
        [] => return Ok(None),
        [host] => *host,
        several => {
            let names: Vec<_> = several.iter().map(|host| host.name.as_str()).collect();
            let message = format!("several hosts are Machine/{machine}");
            return Err(problem("metal3.ambiguous", message).difference(names.join(", "), "one"));
        }
    };
    if let Some(owner) = host.labels.get(LABEL_OWNER)
        && owner != registration.cell.as_str()
    {
        let message = format!("{KIND_HOST}/{} belongs to another cell", host.name);
        return Err(problem("metal3.other-cell", message).difference(owner, registration.cell.as_str()));
    }
    let other = host.labels.get(LABEL_MACHINE).filter(|other| *other != machine);
    if other.is_some() || !(is_labelled(registration, host) || alike(&host)) {
        let found = other.map_or(host.spec.bmc.address.clone(), |other| format!("Machine/{other}"));
        let message = format!("{KIND_HOST}/{} is another machine than Machine/{machine}", host.name);
        let expected = format!("Machine/{machine} at {}", registration.address);
        return Err(problem("metal3.name-taken", message).difference(found, expected));
    }
    Ok(Some(host))
}

fn is_labelled(registration: &Registration, host: &BareMetalHost) -> bool {
    host.labels.get(LABEL_MACHINE).is_some_and(|machine| machine == registration.machine.as_str())
        && host.labels.get(LABEL_OWNER).is_none_or(|owner| owner == registration.cell.as_str())
}

fn is_same(registration: &Registration, host: &BareMetalHost) -> bool {
    let mac = registration.boot_mac.as_ref();
    mac.is_some_and(|mac| mac.eq_ignore_ascii_case(&host.spec.boot_mac_address))
        || same_machine(registration.address.as_str(), &host.spec.bmc.address)
}
