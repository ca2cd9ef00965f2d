//! What the benchmarks declare.

use bailiwick_store::Zeroizing;
use domain::plan::Wish;
use domain::{Name, Plan};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

const SITE: &str = "apiVersion: bailiwick.dev/v1alpha1
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
";

/// One site with machines.
pub(crate) struct Rack {
    pub plan: Plan,
    pub passwords: BTreeMap<Name, Zeroizing<String>>,
}

/// A rack of so many machines, to be declared.
pub(crate) fn rack(machines: u32) -> Result<Rack, Box<dyn Error>> {
    let mut yaml = SITE.to_owned();
    for number in 0..machines {
        write!(
            yaml,
            "---\napiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: m{number}}}\n\
             spec: {{site: fra1, bmc: {{address: 10.0.0.5, username: root, passwordFile: pw}}}}\n"
        )?;
    }
    let read = domain::manifest::read("rack", &yaml).map_err(|problems| format!("{problems:?}"))?;
    let apply = read.into_iter().map(|located| located.declaration).collect();
    let plan = Plan::make(&[], &Wish { apply, ..Wish::default() }, None)
        .map_err(|problems| format!("{problems:?}"))?;
    let passwords = (0..machines)
        .map(|number| Ok((Name::new(format!("m{number}"))?, "hunter2".to_owned().into())))
        .collect::<Result<_, Box<dyn Error>>>()?;
    Ok(Rack { plan, passwords })
}
