//! `bailiwick explain`: the fields of a kind, from its schema.

use clap::Args;
use domain::Kind;
use domain::assignment::AssignmentSpec;
use domain::base_cluster::BaseClusterSpec;
use domain::declaration::{GpuClassSpec, JurisdictionSpec, LegalEntitySpec, MachineSpec, SiteSpec};
use domain::firmware::FirmwareProfileSpec;
use schemars::schema_for;
use serde_json::Value;

use crate::errors::Outcome;
use crate::output::{self, heading, table};
use crate::plan::parse_kind;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick explain machine
  bailiwick explain class")]
pub(crate) struct ExplainArgs {
    /// jurisdiction, legalentity, site, machine, basecluster, assignment, class or firmwareprofile
    #[arg(value_parser = parse_kind)]
    kind: Kind,
}

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> Outcome {
    output::text(&explain(args.kind))
}

fn explain(kind: Kind) -> String {
    let schema = match kind {
        Kind::Jurisdiction => schema_for!(JurisdictionSpec),
        Kind::LegalEntity => schema_for!(LegalEntitySpec),
        Kind::Site => schema_for!(SiteSpec),
        Kind::Machine => schema_for!(MachineSpec),
        Kind::BaseCluster => schema_for!(BaseClusterSpec),
        Kind::Assignment => schema_for!(AssignmentSpec),
        Kind::GpuClass => schema_for!(GpuClassSpec),
        Kind::FirmwareProfile => schema_for!(FirmwareProfileSpec),
    };
    let root = schema.as_value();
    let mut rows = Vec::new();
    collect(root, root, "spec", &mut rows);
    let about = root.get("description").and_then(Value::as_str).unwrap_or_default();
    let head = format!(
        "apiVersion: {}\nkind: {kind}\nmetadata: {{name: …, labels: {{…}}}}\n",
        domain::declaration::API_VERSION
    );
    format!("{about}\n\n{head}{}{}", heading("Fields"), table(&["FIELD", "TYPE", "MEANING"], rows))
}

/// One row for each field, those of nested objects too. `*` marks what must be given.
fn collect(root: &Value, schema: &Value, path: &str, rows: &mut Vec<Vec<String>>) {
    let schema = resolve(root, schema);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in properties {
        let inner = resolve(root, property);
        let meaning = [property, inner].iter().find_map(|schema| schema.get("description")?.as_str());
        let mark = if required.contains(&name.as_str()) { "*" } else { "" };
        let path = format!("{path}.{name}");
        rows.push(vec![
            format!("{path}{mark}"),
            type_of(root, property),
            meaning.unwrap_or_default().replace('\n', " "),
        ]);
        collect(root, inner, &path, rows);
    }
}

/// Follows `$ref`, and of `anyOf` the branch that is not null.
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'))
    {
        return root.pointer(pointer).map_or(schema, |found| resolve(root, found));
    }
    let branches = schema.get("anyOf").and_then(Value::as_array);
    match branches
        .and_then(|all| all.iter().find(|branch| branch.get("type").is_none_or(|kind| kind != "null")))
    {
        Some(branch) => resolve(root, branch),
        None => schema,
    }
}

fn type_of(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    if let Some(branches) = schema.get("oneOf").and_then(Value::as_array) {
        return branches
            .iter()
            .filter_map(|branch| branch.get("const")?.as_str())
            .collect::<Vec<_>>()
            .join(" | ");
    }
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("any")
        }
        _ => "any",
    };
    match (name, schema.get("items")) {
        ("array", Some(items)) => format!("[{}]", type_of(root, items)),
        (name, _) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_explained_down_to_nested_fields() {
        let text = anstream::adapter::strip_str(&explain(Kind::Machine)).to_string();
        for line in ["spec.site*", "spec.bmc.address*", "spec.bmc.secretRef.name*", "spec.zone.tier*"] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
        }
        assert!(text.contains("official | secret | top-secret"), "{text}");
        for kind in Kind::ALL {
            assert!(explain(kind).contains("FIELD"), "{kind}");
        }
    }
}
