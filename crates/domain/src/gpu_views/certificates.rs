//! Which of a machine's certificates speak of its GPUs.

use super::SpdmGpu;
use crate::inventory::{ComponentIntegrity, Gpu};

/// The certificates that speak of GPUs, of all that a BMC shows: those of a part that is, or protects, a resource that tells of a
/// GPU, and those whose subject is one. What protects switches, the BMC or the BIOS is none of them.
pub fn certificates(components: &[ComponentIntegrity], gpus: &[Gpu]) -> Vec<SpdmGpu> {
    let proves = |part: &&ComponentIntegrity| {
        part.kind.as_deref() == Some("SPDM") && part.enabled != Some(false) && part.certificate.is_some()
    };
    let certificates = components.iter().filter(proves).map(of_component);
    certificates.filter(|certificate| gpus.iter().any(|gpu| speaks_of(certificate, gpu))).collect()
}

fn of_component(part: &ComponentIntegrity) -> SpdmGpu {
    let leaf = part.certificate.as_ref().and_then(|certificate| certificate.leaf.as_ref());
    let serial = leaf.and_then(|leaf| leaf.serial.clone());
    let subject = leaf.and_then(|leaf| leaf.subject.clone());
    let uuid = [&serial, &subject].into_iter().flatten().find(|text| is_uuid(text)).cloned();
    SpdmGpu {
        component: part.target.clone().unwrap_or_default(),
        protects: part.protects.clone(),
        uuid,
        subject,
        serial,
        sha256: leaf.map(|leaf| leaf.sha256),
    }
}

fn speaks_of(certificate: &SpdmGpu, gpu: &Gpu) -> bool {
    let same = |one: &Option<String>, other: &Option<String>| {
        one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
    };
    let mut paths = std::iter::once(&certificate.component).chain(&certificate.protects);
    paths.any(|path| gpu.sources.contains(path))
        || same(&certificate.serial, &gpu.serial)
        || same(&certificate.uuid, &gpu.uuid)
}

/// 8-4-4-4-12 (RFC 9562 §4).
fn is_uuid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
