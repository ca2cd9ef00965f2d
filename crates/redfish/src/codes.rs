//! The one list of this crate's codes, apart from those of single fields (`decode`).

/// Every code of the transport: code, meaning, hint. `docs/reference/codes.md` is written from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "bmc.account-no-effect",
        "The BMC took the change of an account, but does not show it.",
        "Look at the BMC's account settings; restart the BMC.",
    ),
    ("bmc.account-no-slot", "All of the BMC's account slots are taken.", "Free a slot on the BMC."),
    (
        "bmc.account-not-found",
        "The BMC has no account of that name, or shows none.",
        "Check the user name and the account's privileges.",
    ),
    (
        "bmc.account-own",
        "The account to be taken away is the one in use.",
        "Log in with another account to do that.",
    ),
    (
        "bmc.action-missing",
        "The BMC does not offer the action.",
        "Update the BMC's firmware; check the account's privileges.",
    ),
    (
        "bmc.address-invalid",
        "The address is not an https URL of a BMC.",
        "Write https://HOST[:PORT]; IPv6 addresses in brackets.",
    ),
    (
        "bmc.address-outside-networks",
        "The address is outside the networks that BMC connections may go to.",
        "Correct the address, or add its network to the site's spec.bmcNetworks.",
    ),
    (
        "bmc.boot-no-effect",
        "The BMC took the boot override, but does not show it.",
        "Look for settings that forbid it (lockdown mode); restart the BMC.",
    ),
    (
        "bmc.boot-unsupported",
        "The BMC does not offer that boot device.",
        "Choose one of those that it offers.",
    ),
    ("bmc.busy", "The BMC answers that it is busy, also after several attempts.", "Try again later."),
    (
        "bmc.ca-invalid",
        "The CA file given cannot be used.",
        "Give PEM certificates of the CA that signed the BMC's certificate.",
    ),
    (
        "bmc.certificate.expired",
        "The BMC's certificate is outside its validity period. With a pin this is only a diagnostic.",
        "Renew the certificate on the BMC, check its clock, or pin its key.",
    ),
    (
        "bmc.certificate.malformed",
        "What the BMC shows is not a certificate.",
        "Create a new certificate on the BMC.",
    ),
    (
        "bmc.certificate.unsupported-key",
        "The key of the BMC's certificate is of a kind that is not supported.",
        "Create a certificate with an RSA key of 2048 to 8192 bits, a P-256, P-384 or an Ed25519 key on the BMC.",
    ),
    (
        "bmc.certificate.unsupported-signature",
        "The BMC's certificate is signed with an algorithm that is not accepted, such as SHA-1.",
        "Create a certificate signed with SHA-256 or better, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.untrusted",
        "None of the CAs given has signed the BMC's certificate.",
        "Give the right CA, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.weak-key",
        "The BMC's certificate has an RSA key of fewer than 2048 bits.",
        "Create a new key of at least 2048 bits on the BMC.",
    ),
    (
        "bmc.certificate.wrong-name",
        "The BMC's certificate is for another name. With a pin this is only a diagnostic.",
        "Use the name in the certificate, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.x509-v1",
        "The BMC shows an X.509 version 1 certificate, which is not accepted.",
        "Create a version 3 certificate on the BMC; many firmware updates do.",
    ),
    (
        "bmc.clock-no-effect",
        "The BMC took the time, but does not show it.",
        "Set up NTP on the BMC; look for settings that forbid setting the time.",
    ),
    (
        "bmc.clock-ntp",
        "The BMC's clock is wrong although it follows NTP servers.",
        "Check that the BMC reaches its NTP servers and that these are right.",
    ),
    ("bmc.clock-read-only", "The BMC's clock cannot be set.", "Set up NTP on the BMC."),
    (
        "bmc.clock-unknown",
        "The BMC does not tell the time, or not in a form that can be read.",
        "Set the time on the BMC.",
    ),
    (
        "bmc.credentials-superseded",
        "The password given was replaced by another one.",
        "Use the present password; a restart of the cell reads it.",
    ),
    ("bmc.deadline", "Reading took longer than it may.", "Raise the deadline, or see why the BMC is slow."),
    (
        "bmc.fenced",
        "The BMC is closed to everybody else while its credentials are changed.",
        "Nothing to do; the request goes through once the change is over.",
    ),
    (
        "bmc.host-ambiguous",
        "Several systems behind this BMC look like the host; none is acted on.",
        "Declare the machine's serial number.",
    ),
    (
        "bmc.host-not-found",
        "The BMC shows no system that could be the host.",
        "Wait until the BMC has read the host; restart the BMC.",
    ),
    (
        "bmc.locked-out",
        "The BMC has locked the account.",
        "Unlock it on the BMC or wait until it unlocks itself, then correct the password.",
    ),
    (
        "bmc.login-unrecorded",
        "A login is not tried, because it cannot be recorded before it is sent.",
        "See why the database cannot be written; without a record a crash could lock the account.",
    ),
    (
        "bmc.login-withheld",
        "Logins failed lately, and another one might lock the account; none is tried for now.",
        "Correct the credentials, or wait.",
    ),
    (
        "bmc.not-redfish",
        "Something answers, but not with a Redfish service root.",
        "Check the address, and that Redfish is enabled on the BMC.",
    ),
    (
        "bmc.password-change-required",
        "The BMC demands that the password is changed before anything else.",
        "Change the factory password on the BMC and give the new one.",
    ),
    (
        "bmc.password-unacceptable",
        "The BMC does not accept the new password.",
        "Choose one that keeps the BMC's rules: length, characters, no earlier password.",
    ),
    (
        "bmc.pin-mismatch",
        "The BMC shows another key than the one pinned.",
        "If the BMC's key was changed on purpose, give the new pin; otherwise somebody may be in between.",
    ),
    (
        "bmc.power-no-effect",
        "The BMC took the command, but the power state did not become what was asked for.",
        "Look at the machine; lift a lockdown mode on the BMC; restart the BMC.",
    ),
    (
        "bmc.power-refused",
        "The BMC refuses every way to bring the machine into that power state.",
        "See the message; look at the machine's console and the BMC's log.",
    ),
    (
        "bmc.power-unknown",
        "The BMC does not tell the machine's power state.",
        "Update the BMC's firmware; check the account's privileges.",
    ),
    (
        "bmc.reading-too-large",
        "The BMC sent more than one reading may receive.",
        "Report the BMC's model and firmware; raise the limit if the amount is genuine.",
    ),
    (
        "bmc.reset-no-effect",
        "The BMC took the command to restart, but did not restart.",
        "Lift a lockdown mode on the BMC; cut its power.",
    ),
    (
        "bmc.reset-not-back",
        "The BMC restarted and does not answer consistently since.",
        "Wait; look at the BMC's network and power.",
    ),
    (
        "bmc.rotation-no-effect",
        "The BMC took the new password, but still wants the old one.",
        "Look for settings that forbid it (lockdown mode); restart the BMC.",
    ),
    (
        "bmc.rotation-unsettled",
        "Whether the new password is in force could not be found out.",
        "Wait; both passwords are kept, and it is tried again.",
    ),
    (
        "bmc.sessions-exhausted",
        "The BMC has no session left; requests go with Basic authentication instead.",
        "Close leaked sessions on the BMC.",
    ),
    (
        "bmc.timeout",
        "The BMC takes the connection but does not answer in time.",
        "Try again; restart the BMC.",
    ),
    (
        "bmc.tls",
        "What answers does not speak TLS 1.2 or 1.3 with a cipher suite that is accepted.",
        "Check the port; update the BMC's firmware.",
    ),
    (
        "bmc.unauthorized",
        "The BMC refuses the user name or password.",
        "Check the user name and the password file.",
    ),
    (
        "bmc.unreachable",
        "Nothing answers at the BMC's address.",
        "Check address, cabling and the route to the BMC network.",
    ),
    ("bmc.unresolved", "The BMC's name does not resolve.", "Check the name, or give an address."),
    (
        "redfish.body.empty",
        "The BMC answers without a body where there must be one.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.error",
        "The BMC answers with success, but the body is an error.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.not-json",
        "The BMC answers with something else than a JSON object, such as an HTML page.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.not-utf8",
        "Bytes of the BMC's answer that are not UTF-8 were replaced. The rest was read.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.too-deep",
        "The BMC's answer is nested deeper than 127 levels.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.too-large",
        "The BMC's answer is larger than is accepted.",
        "Report the BMC's model and firmware; raise the limit if the size is genuine.",
    ),
    (
        "redfish.body.truncated",
        "The BMC's answer ends early, twice.",
        "Try again; report the BMC's model and firmware.",
    ),
    ("redfish.redirects", "The BMC redirects from page to page.", "Report the BMC's model and firmware."),
    (
        "redfish.resource.connection-lost",
        "The BMC drops the connection whenever this resource is read.",
        "Try again; report the BMC's model and firmware.",
    ),
    (
        "redfish.resource.forbidden",
        "The account may not read this resource.",
        "Give the account the privileges to read (role ReadOnly or better).",
    ),
    (
        "redfish.resource.not-found",
        "The resource does not exist, though a link leads to it.",
        "Nothing to do; the BMC's links are stale.",
    ),
    (
        "redfish.resource.refused",
        "The BMC refuses to give this resource.",
        "See the status and the message; report the BMC's model and firmware.",
    ),
    (
        "redfish.resource.timeout",
        "This resource did not come in time.",
        "Try again; some resources are slow while the BMC is busy.",
    ),
    (
        "redfish.resource.unauthorized",
        "The BMC refuses the credentials for this resource, though it takes them elsewhere.",
        "Try again; if it stays, give the account the privileges to read.",
    ),
    (
        "redfish.uri.cross-origin",
        "The BMC links to another host. The link was not followed: it would take the credentials there.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.write.conflict",
        "The BMC refuses the change in its present state.",
        "Wait for what is under way; see the message.",
    ),
    (
        "redfish.write.not-writable",
        "The property cannot be written on this BMC.",
        "See whether it belongs to other settings, or to none.",
    ),
    (
        "redfish.write.precondition",
        "The BMC refuses every form of precondition for this change.",
        "Report the BMC's model and firmware.",
    ),
    ("redfish.write.refused", "The BMC refuses the change.", "See the status and the message."),
    (
        "redfish.write.unsupported",
        "The BMC does not support this change at all.",
        "Update the BMC's firmware.",
    ),
    (
        "redfish.write.unsure",
        "The connection was lost before the answer came; the change may have been made.",
        "Nothing to do; the state is read again before anything else is done.",
    ),
    (
        "redfish.write.value",
        "The BMC does not accept a value.",
        "See the property named; compare with what the BMC allows.",
    ),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::Diagnose;
    use jiff::SignedDuration;

    use crate::accounts::AccountError;
    use crate::boot::{BootError, BootOverride, BootTarget};
    use crate::clock::ClockError;
    use crate::host::HostError;
    use crate::manager::ResetError;
    use crate::power::{PowerError, PowerState};
    use crate::rotation::RotationError;
    use crate::write::{Fault, PropertyProblem, WriteError};

    #[test]
    fn every_error_of_acting_has_a_code_of_the_list() {
        let (text, after, skew) = (String::new, Duration::ZERO, SignedDuration::ZERO);
        let property = |fault| WriteError::Property {
            uri: text(),
            problems: vec![PropertyProblem { property: None, fault }],
        };
        let boot = BootOverride { target: None, enabled: None, mode: None, offered: Vec::new() };
        let expected = PowerState::On;
        let errors: Vec<Box<dyn Diagnose>> = vec![
            Box::new(property(Fault::NotWritable)),
            Box::new(property(Fault::Value)),
            Box::new(WriteError::Conflict { uri: text(), message_id: None }),
            Box::new(WriteError::Precondition { uri: text() }),
            Box::new(WriteError::Unsupported { uri: text() }),
            Box::new(WriteError::Refused { uri: text(), status: 400, message_id: None }),
            Box::new(WriteError::Unsure { uri: text(), reason: text() }),
            Box::new(HostError::Ambiguous { systems: Vec::new() }),
            Box::new(HostError::NotFound { serial: None }),
            Box::new(PowerError::NoEffect { command: "On", found: PowerState::Off, expected, after }),
            Box::new(PowerError::Refused { expected, source: WriteError::Unsupported { uri: text() } }),
            Box::new(PowerError::Unknown),
            Box::new(PowerError::NoAction { expected }),
            Box::new(BootError::NotOffered { target: BootTarget::Cd, offered: Vec::new() }),
            Box::new(BootError::NoEffect { found: boot }),
            Box::new(ClockError::Unknown),
            Box::new(ClockError::NtpManaged { skew }),
            Box::new(ClockError::ReadOnly { skew }),
            Box::new(ClockError::NoEffect { skew }),
            Box::new(ResetError::NoAction),
            Box::new(ResetError::NoEffect { after }),
            Box::new(ResetError::NotBack { after }),
            Box::new(AccountError::NotFound { username: text() }),
            Box::new(AccountError::NoSlot),
            Box::new(AccountError::PasswordUnacceptable),
            Box::new(AccountError::Own { username: text() }),
            Box::new(AccountError::NoEffect { username: text() }),
            Box::new(RotationError::OldRefused),
            Box::new(RotationError::NoEffect { after }),
            Box::new(RotationError::Unsettled { reason: "" }),
        ];
        for error in errors {
            let problem = error.problem();
            assert!(problem.hint.is_some() && !problem.message.is_empty(), "{problem:?}");
        }
    }
}
