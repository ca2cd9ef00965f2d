//! Components that can prove what they are (DSP0268 ComponentIntegrity), what they protect, and who their certificates say they
//! are (§8 of the Redfish facts).

use std::collections::BTreeMap;

use domain::inventory::{ComponentCertificate, ComponentIntegrity, LeafCertificate};

use crate::certificate;
use crate::decode::{Node, source_path};
use crate::gpu::Natural;
use crate::reader::Reader;
use crate::walk::{Landscape, Walk};

/// Where a responder's certificate is linked (DSP0268 ComponentIntegrity, `SPDM`).
const RESPONDER: [&str; 3] = ["SPDM", "IdentityAuthentication", "ResponderAuthentication"];

impl<R: Reader> Walk<'_, R> {
    /// Components that can prove what they are.
    pub(crate) async fn component_integrity(&self, landscape: &Landscape) -> Vec<ComponentIntegrity> {
        let Some(uri) = self.node(&landscape.root).link("ComponentIntegrity") else { return Vec::new() };
        let members = self.members(&uri).await;
        let read = members.iter().map(|resource| async { self.component(&self.node(resource)).await });
        let mut by_id: BTreeMap<Natural, ComponentIntegrity> = BTreeMap::new();
        for component in futures_util::future::join_all(read).await {
            by_id.entry(Natural(component.id.clone())).or_insert(component);
        }
        by_id.into_values().collect()
    }

    async fn component(&self, node: &Node<'_>) -> ComponentIntegrity {
        let links = node.child("Links");
        let protected = links.map(|links| links.links("ComponentsProtected")).unwrap_or_default();
        let mut protects: Vec<String> = protected.iter().map(|path| source_path(path).to_owned()).collect();
        protects.sort();
        protects.dedup();
        let mut component = ComponentIntegrity {
            id: node.id(),
            kind: node.text("ComponentIntegrityType"),
            // the literal "unknown" on HGX (§8 of the facts)
            type_version: node.text("ComponentIntegrityTypeVersion"),
            enabled: node.truth("ComponentIntegrityEnabled"),
            target: target(node),
            protects,
            certificate: None,
        };
        if component.kind.as_deref() == Some("SPDM") && component.enabled != Some(false) {
            component.certificate = self.component_certificate(node).await;
        }
        component
    }

    /// A chain that cannot be read costs a diagnostic.
    async fn component_certificate(&self, node: &Node<'_>) -> Option<ComponentCertificate> {
        let uri = node.descend(&RESPONDER)?.link("ComponentCertificate")?;
        let leaf = match self.read(&uri).await {
            Some(resource) => self.leaf(&self.node(&resource)),
            None => None,
        };
        Some(ComponentCertificate { source: source_path(&uri).to_owned(), leaf })
    }

    fn leaf(&self, node: &Node<'_>) -> Option<LeafCertificate> {
        let pem = node.body().get("CertificateString").and_then(serde_json::Value::as_str);
        match certificate::leaf(pem.unwrap_or_default()) {
            Ok(leaf) => Some(leaf),
            Err(why) => {
                let message = format!("the certificate chain cannot be read: {why}");
                self.log.note("redfish.certificate.malformed", source_path(node.path()), message);
                None
            }
        }
    }
}

/// `TargetComponentURI` is a string in the schema; a link is seen as well.
fn target(node: &Node<'_>) -> Option<String> {
    let field = "TargetComponentURI";
    match node.body().get(field) {
        Some(serde_json::Value::Object(_)) => node.link(field),
        _ => node.text(field),
    }
}
