//! What keeps declared objects from standing together.

use crate::address::is_bmc_address;
use crate::assignment::AssignmentSpec;
use crate::base_cluster::{BaseClusterSpec, ControlPlane, Image};
use crate::declaration::{Declaration, GpuClassSpec, Kind, MachineSpec, SiteSpec, Spec, Tier, Zone};
use crate::jurisdiction::Containment;
use crate::manifest::near;
use crate::name::Name;
use crate::plan::{Key, Objects};
use crate::problem::Problem;

/// So many names are told to whoever gave another one.
const FEW: usize = 5;

/// Every reason why these objects may not stand together.
pub(crate) fn check(objects: &Objects, deleted: &[Key], home: Option<&Name>) -> Vec<Problem> {
    let nested = objects.values().filter_map(|d| match &d.spec {
        Spec::Jurisdiction(spec) => Some((d.name().clone(), spec.within.clone())),
        _ => None,
    });
    let mut check = Check { objects, deleted, home, order: None, problems: Vec::new() };
    match Containment::new(nested) {
        Ok(order) => check.order = Some(order),
        Err(error) => check.problems.push(
            Problem::new("jurisdiction.not-nested", error.to_string())
                .hint("mend `within` of the jurisdictions named"),
        ),
    }
    for declaration in objects.values() {
        check.declaration(declaration);
    }
    check.problems
}

struct Check<'a> {
    objects: &'a Objects,
    deleted: &'a [Key],
    home: Option<&'a Name>,
    /// `None` where the jurisdictions are no order: then nothing is said of what lies in which.
    order: Option<Containment>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn declaration(&mut self, declaration: &'a Declaration) {
        match &declaration.spec {
            Spec::Jurisdiction(_) => {}
            Spec::LegalEntity(spec) => {
                if let Some(parent) = &spec.ultimate_parent {
                    self.refers(declaration, Kind::LegalEntity, parent, "spec.ultimateParent");
                }
            }
            Spec::Site(spec) => self.site(declaration, spec),
            Spec::Machine(spec) => {
                self.refers(declaration, Kind::Site, &spec.site, "spec.site");
                self.problems.extend(check_bmc(declaration, spec));
                self.ipmi(declaration, spec);
            }
            Spec::BaseCluster(spec) => self.base_cluster(declaration, spec),
            Spec::Assignment(spec) => self.assignment(declaration, spec),
            Spec::GpuClass(spec) => self.class(declaration, spec),
            Spec::FirmwareProfile(spec) => self.problems.extend(spec.problems(&declaration.reference())),
        }
    }

    fn problem(&mut self, declaration: &Declaration, code: &str, message: &str, hint: &str) {
        let message = format!("{} {message}", declaration.reference());
        self.problems.push(Problem::new(code, message).hint(hint).at(declaration.reference()));
    }

    /// Whether the object that is referred to is declared.
    fn refers(&mut self, from: &Declaration, kind: Kind, name: &Name, field: &str) -> bool {
        let found = self.objects.contains_key(&(kind, name.clone()));
        let reference = from.reference();
        let at = format!("{reference} {field}");
        if !found && self.deleted.iter().any(|(gone, other)| (*gone, other) == (kind, name)) {
            let message = format!("{kind}/{name} cannot go: {reference} refers to it");
            let hint = format!("delete {reference} too, or first");
            self.problems.push(Problem::new("declaration.in-use", message).hint(hint).at(at));
        } else if !found {
            let message = format!("{reference} refers to {kind}/{name}, which is not declared");
            let hint = self.instead(kind, name, field);
            self.problems.push(Problem::new("declaration.dangling", message).hint(hint).at(at));
        }
        found
    }

    /// What to do about a reference to what is not declared.
    fn instead(&self, kind: Kind, name: &Name, field: &str) -> String {
        let known: Vec<&str> =
            self.objects.keys().filter(|(of, _)| *of == kind).map(|(_, known)| known.as_str()).collect();
        match (near(name.as_str(), &known), known.as_slice()) {
            (Some(word), _) => {
                format!("did you mean `{word}`? Else declare {kind}/{name}, or correct `{field}`")
            }
            (None, [_, ..]) if known.len() <= FEW => {
                format!("declare {kind}/{name}, or correct `{field}` (there is {})", known.join(", "))
            }
            _ => format!("declare {kind}/{name}, or correct `{field}`"),
        }
    }

    fn site_spec(&self, name: &Name) -> Option<&'a SiteSpec> {
        match self.objects.get(&(Kind::Site, name.clone())).map(|found| &found.spec) {
            Some(Spec::Site(spec)) => Some(spec),
            _ => None,
        }
    }

    fn site(&mut self, declaration: &Declaration, spec: &SiteSpec) {
        self.refers(declaration, Kind::LegalEntity, &spec.operator, "spec.operator");
        if spec.bmc_networks.is_empty() {
            self.problem(
                declaration,
                "site.no-networks",
                "names no BMC network",
                "the cell connects to no address outside `spec.bmcNetworks`; list at least one",
            );
        }
        if self.refers(declaration, Kind::Jurisdiction, &spec.jurisdiction, "spec.jurisdiction") {
            self.inside_the_cell(declaration, &spec.jurisdiction);
        }
    }

    /// What IPMI cannot do is not asked of it: it has no key to pin, and its passwords are not replaced. Where a password must
    /// not get out it is not spoken: RAKP gives a salted hash of it to whoever asks (CVE-2013-4786).
    fn ipmi(&mut self, declaration: &Declaration, spec: &MachineSpec) {
        if spec.bmc.ipmi().is_none() {
            return;
        }
        if spec.bmc.pin.is_some() {
            self.problem(
                declaration,
                "machine.ipmi-pin",
                "pins a key and is reached by IPMI, which shows none",
                "leave `bmc.pin` out, or declare the address of its Redfish service",
            );
        }
        if spec.bmc.rotate {
            self.problem(
                declaration,
                "machine.ipmi-rotate",
                "is reached by IPMI, and its passwords are to be replaced",
                "leave `bmc.rotate` out: the cell replaces passwords over Redfish alone",
            );
        }
        let of_site = self.site_spec(&spec.site).and_then(|site| site.zone.as_ref());
        if let Some(zone) = spec.zone.as_ref().or(of_site).filter(|zone| zone.tier > Tier::Official) {
            let message =
                format!("{} is reached by IPMI in a zone that does not allow it", declaration.reference());
            self.problems.push(
                Problem::new("machine.ipmi-zone", message)
                    .difference(zone.to_string(), Tier::Official.as_str())
                    .hint("declare the address of its Redfish service; IPMI tells a hash of the password to whoever asks")
                    .at(format!("{} spec.bmc.address", declaration.reference())),
            );
        }
    }

    fn inside_the_cell(&mut self, declaration: &Declaration, jurisdiction: &Name) {
        let (Some(home), Some(order)) = (self.home, &self.order) else { return };
        if order.contains(home, jurisdiction) {
            return;
        }
        let message = format!("{} lies outside the jurisdiction of this cell", declaration.reference());
        self.problems.push(
            Problem::new("jurisdiction.outside-cell", message)
                .difference(jurisdiction.as_str(), format!("{home} or one that it contains"))
                .hint("declare it in a cell of its own jurisdiction; a cell never reaches over its border"),
        );
    }

    fn class(&mut self, declaration: &Declaration, spec: &GpuClassSpec) {
        self.refers(declaration, Kind::Jurisdiction, &spec.jurisdiction, "spec.jurisdiction");
        if spec.requires.is_empty() {
            self.problem(
                declaration,
                "class.requires-nothing",
                "requires nothing of its GPUs",
                "leave `requires` out for [probed, attested], or write [inventoried] for a trial",
            );
        }
    }

    fn base_cluster(&mut self, declaration: &Declaration, spec: &BaseClusterSpec) {
        let jurisdiction =
            self.refers(declaration, Kind::Jurisdiction, &spec.jurisdiction, "spec.jurisdiction");
        if jurisdiction {
            self.inside_the_cell(declaration, &spec.jurisdiction);
        }
        if self.refers(declaration, Kind::Site, &spec.site, "spec.site")
            && jurisdiction
            && let (Some(site), Some(order)) = (self.site_spec(&spec.site), &self.order)
            && !order.contains(&spec.jurisdiction, &site.jurisdiction)
        {
            let message = format!("the site of {} lies outside its jurisdiction", declaration.reference());
            self.problems.push(
                Problem::new("basecluster.outside-jurisdiction", message)
                    .difference(
                        site.jurisdiction.as_str(),
                        format!("{} or one that it contains", spec.jurisdiction),
                    )
                    .hint("correct `spec.site` or `spec.jurisdiction`")
                    .at(declaration.reference()),
            );
        }
        for (wrong, code, message, hint) in base_cluster_faults(spec) {
            if wrong {
                self.problem(declaration, code, message, hint);
            }
        }
    }

    fn assignment(&mut self, declaration: &Declaration, spec: &AssignmentSpec) {
        let machine = declaration.name();
        if !self.refers(declaration, Kind::Machine, machine, "metadata.name") {
            return;
        }
        if spec.quarantine.as_ref().is_some_and(|quarantine| quarantine.reason.trim().is_empty()) {
            self.problem(
                declaration,
                "assignment.no-reason",
                "quarantines a machine without saying why",
                "write a reason that the next person understands",
            );
        }
        if spec.lost.as_ref().is_some_and(|lost| lost.reason.trim().is_empty()) {
            self.problem(
                declaration,
                "assignment.no-reason",
                "gives a machine up as lost without saying why",
                "write what became of it: the record of its erasure says so of every part",
            );
        }
        let contradictory = (spec.drain && spec.base_cluster.is_none())
            || (spec.retire && spec.base_cluster.is_some())
            || (spec.lost.is_some() && !spec.retire);
        if contradictory {
            self.problem(
                declaration,
                "assignment.contradictory",
                "asks for two things that exclude each other",
                "`drain` needs a `baseCluster`, `retire` none; `lost` needs `retire`",
            );
        }
        let Some(cluster) = &spec.base_cluster else { return };
        if !self.refers(declaration, Kind::BaseCluster, cluster, "spec.baseCluster") {
            return;
        }
        let machine = self.objects.get(&(Kind::Machine, machine.clone())).map(|found| &found.spec);
        let cluster = self.objects.get(&(Kind::BaseCluster, cluster.clone())).map(|found| &found.spec);
        if let (Some(Spec::Machine(machine)), Some(Spec::BaseCluster(cluster))) = (machine, cluster) {
            self.fits(declaration, machine, cluster);
        }
    }

    /// A machine becomes a node of a base cluster of its own site and zone, or of none.
    fn fits(&mut self, declaration: &Declaration, machine: &MachineSpec, cluster: &BaseClusterSpec) {
        if cluster.uses_cluster_api() {
            self.problem(
                declaration,
                "assignment.cluster-api",
                "names a base cluster that takes its machines by Cluster API",
                "apply what `bailiwick render basecluster` gives; its templates choose among available machines by label",
            );
        }
        if machine.site != cluster.site {
            let message = format!("{} names a base cluster of another site", declaration.reference());
            self.problems.push(
                Problem::new("assignment.other-site", message)
                    .difference(cluster.site.as_str(), machine.site.as_str())
                    .hint("choose a base cluster of the machine's own site"),
            );
            return;
        }
        let of_site = self.site_spec(&machine.site).and_then(|site| site.zone.as_ref());
        let wanted = machine.zone.as_ref().or(of_site);
        let found = cluster.zone.as_ref().or(of_site);
        if wanted != found {
            let words = |zone: Option<&Zone>| zone.map_or_else(|| "none".to_owned(), ToString::to_string);
            let message = format!("{} names a base cluster of another zone", declaration.reference());
            self.problems.push(
                Problem::new("assignment.other-zone", message)
                    .difference(words(found), words(wanted))
                    .hint("choose a base cluster of the machine's own zone"),
            );
        }
    }
}

type Fault = (bool, &'static str, &'static str, &'static str);

/// What is wrong with a base cluster by itself.
fn base_cluster_faults(spec: &BaseClusterSpec) -> [Fault; 6] {
    let by_machines = matches!(spec.control_plane, ControlPlane::Machines { .. });
    let even = matches!(spec.control_plane, ControlPlane::Machines { count } if count % 2 == 0 || count > 9);
    let image = match &spec.image {
        Image::Live { iso } => is_http(iso),
        Image::Disk { url, checksum, .. } => is_http(url) && Image::hash_algorithm(checksum).is_some(),
    };
    [
        (
            !is_version(&spec.kubernetes_version),
            "basecluster.version-malformed",
            "has no Kubernetes version",
            "write `kubernetesVersion` as in \"1.36.3\"",
        ),
        (
            !spec.endpoint.strip_prefix("https://").is_some_and(is_bmc_address),
            "basecluster.endpoint-malformed",
            "has no endpoint that a node could reach",
            "write `endpoint` as https://host:port",
        ),
        (
            spec.kubeconfig.is_none() && !spec.uses_cluster_api(),
            "basecluster.no-kubeconfig",
            "gives the cell no way in",
            "add `kubeconfig: {name: …, key: …}`, a secret in the cell's secrets directory",
        ),
        (
            by_machines && !spec.uses_cluster_api(),
            "basecluster.control-plane",
            "has a control plane of machines and no Cluster API to set it up",
            "write `join: cluster-api`, or `controlPlane: external`",
        ),
        (
            even,
            "basecluster.even-control-plane",
            "has a control plane of an even number of machines, or of more than nine",
            "choose 1, 3, 5, 7 or 9",
        ),
        (
            !image || !(1..=1440).contains(&spec.token_minutes),
            "basecluster.image",
            "has an image without an http(s) URL or a SHA-256 or SHA-512 checksum, or tokens that live longer than a day",
            "correct `image` and `tokenMinutes`",
        ),
    ]
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.chars().any(char::is_whitespace))
}

fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 3 && parts[0] == "1" && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

fn check_bmc(declaration: &Declaration, spec: &MachineSpec) -> Option<Problem> {
    if !is_bmc_address(&spec.bmc.address) {
        let message = format!("{} has no address that a BMC can be reached at", declaration.reference());
        return Some(
            Problem::new("machine.address-malformed", message)
                .difference(
                    spec.bmc.address.clone(),
                    "host, host:port, [v6]:port, https://host:port or ipmi://host:port",
                )
                .hint("correct `bmc.address`")
                .at(format!("{} spec.bmc.address", declaration.reference())),
        );
    }
    match (&spec.bmc.password_file, &spec.bmc.secret_ref) {
        (Some(_), None) | (None, Some(_)) => None,
        (None, None) => Some(
            Problem::new(
                "machine.no-credentials",
                format!("{} names no credentials", declaration.reference()),
            )
            .hint("add `bmc.passwordFile` or `bmc.secretRef`"),
        ),
        (Some(_), Some(_)) => Some(
            Problem::new(
                "machine.two-credentials",
                format!("{} names both a passwordFile and a secretRef", declaration.reference()),
            )
            .hint("keep one of the two"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: de}
spec: {within: [eu]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: acme}
spec: {legalName: Acme, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra1}
spec: {jurisdiction: de, operator: acme, country: DE, bmcNetworks: [10.0.0.0/24], zone: {tier: official}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra2}
spec: {jurisdiction: de, operator: acme, country: DE, bmcNetworks: [10.0.1.0/24]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Machine
metadata: {name: m1}
spec: {site: fra1, bmc: {address: 10.0.0.5, username: root, passwordFile: pw}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: BaseCluster
metadata: {name: pool}
spec:
  jurisdiction: de
  site: fra1
  kubernetesVersion: 1.36.3
  controlPlane: external
  endpoint: https://10.0.2.1:6443
  kubeconfig: {name: pool, key: kubeconfig}
  join: kubeadm
  image: {live: {iso: https://images.example/node.iso}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Assignment
metadata: {name: m1}
spec: {baseCluster: pool}
";

    fn codes(text: &str) -> Vec<String> {
        problems(text).into_iter().map(|problem| problem.code).collect()
    }

    fn problems(text: &str) -> Vec<Problem> {
        let home = Name::new("eu").unwrap();
        let wish = crate::plan::Wish {
            apply: crate::manifest::read("w", text).unwrap().into_iter().map(|l| l.declaration).collect(),
            ..crate::plan::Wish::default()
        };
        crate::Plan::make(&[], &wish, Some(&home)).err().unwrap_or_default()
    }

    #[test]
    fn a_machine_is_assigned_to_a_base_cluster_of_its_own_site_and_zone() {
        assert_eq!(codes(WORLD), Vec::<String>::new());
        let elsewhere = WORLD.replace("site: fra1\n  kub", "site: fra2\n  kub");
        assert_eq!(codes(&elsewhere), ["assignment.other-site"]);
        let secret = WORLD.replace("  kubernetesVersion", "  zone: {tier: secret}\n  kubernetesVersion");
        assert_eq!(codes(&secret), ["assignment.other-zone"]);
    }

    #[test]
    fn ipmi_is_taken_where_its_weakness_may_be_borne_and_asked_for_nothing_that_it_lacks() {
        let ipmi = WORLD.replace("address: 10.0.0.5,", "address: \"ipmi://10.0.0.5\",");
        assert_eq!(codes(&ipmi), Vec::<String>::new());
        let pin = format!("passwordFile: pw, pin: sha256:{}", "0".repeat(64));
        for (from, to, code) in [
            ("zone: {tier: official}", "zone: {tier: secret}", "machine.ipmi-zone"),
            ("{site: fra1, bmc", "{site: fra1, zone: {tier: top-secret}, bmc", "machine.ipmi-zone"),
            ("passwordFile: pw", pin.as_str(), "machine.ipmi-pin"),
            ("passwordFile: pw", "passwordFile: pw, rotate: true", "machine.ipmi-rotate"),
        ] {
            let found = codes(&ipmi.replace(from, to));
            assert_eq!(found.first().map(String::as_str), Some(code), "{found:?}");
            let redfish = codes(&WORLD.replace(from, to));
            assert!(redfish.iter().all(|code| !code.contains("ipmi")), "{redfish:?}");
        }
    }

    #[test]
    fn a_base_cluster_lies_where_its_site_does() {
        let beyond = WORLD
            .replace("kind: Jurisdiction\nmetadata: {name: de}", "kind: Jurisdiction\nmetadata: {name: fr}\nspec: {within: [eu]}\n---\napiVersion: bailiwick.dev/v1alpha1\nkind: Jurisdiction\nmetadata: {name: de}")
            .replace("  jurisdiction: de\n  site", "  jurisdiction: fr\n  site");
        assert_eq!(codes(&beyond), ["basecluster.outside-jurisdiction"]);
    }

    #[test]
    fn each_fault_of_a_base_cluster_has_its_own_code() {
        for (from, to, code) in [
            ("1.36.3", "latest", "basecluster.version-malformed"),
            ("https://10.0.2.1:6443", "10.0.2.1", "basecluster.endpoint-malformed"),
            ("  kubeconfig: {name: pool, key: kubeconfig}\n", "", "basecluster.no-kubeconfig"),
            ("controlPlane: external", "controlPlane: {machines: {count: 3}}", "basecluster.control-plane"),
            ("https://images.example/node.iso", "node.iso", "basecluster.image"),
        ] {
            assert_eq!(codes(&WORLD.replace(from, to)), [code]);
        }
    }

    #[test]
    fn an_assignment_asks_for_one_thing_of_a_machine_that_there_is() {
        for (to, code) in [
            ("{baseCluster: none}", "declaration.dangling"),
            ("{drain: true}", "assignment.contradictory"),
            ("{baseCluster: pool, retire: true}", "assignment.contradictory"),
            ("{quarantine: {reason: \" \"}}", "assignment.no-reason"),
        ] {
            assert_eq!(codes(&WORLD.replace("{baseCluster: pool}", to)), [code]);
        }
        let hint = |name: &str| {
            let problems =
                problems(&WORLD.replace("{baseCluster: pool}", &format!("{{baseCluster: {name}}}")));
            problems.into_iter().next().unwrap().hint.unwrap()
        };
        assert!(hint("pol").starts_with("did you mean `pool`? "), "{}", hint("pol"));
        assert!(hint("else").ends_with("correct `spec.baseCluster` (there is pool)"), "{}", hint("else"));
        let orphan =
            WORLD.replace("kind: Assignment\nmetadata: {name: m1}", "kind: Assignment\nmetadata: {name: m2}");
        assert_eq!(codes(&orphan), ["declaration.dangling"]);
    }
}
