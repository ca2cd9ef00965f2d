//! GPU classes as DeviceClasses: the selector is the gate, which a claim cannot bypass (DESIGN §5.6).

use crate::device::attribute;
use crate::nvidia::Foreign;
use crate::object::{Object, annotated};
use crate::{DRIVER, TRIAL, literal, nvidia};
use domain::declaration::{GpuClassSpec, Requirement};
use domain::{Containment, Name, Problem};
use k8s_openapi::api::resource::v1::{CELDeviceSelector, DeviceClass, DeviceClassSpec, DeviceSelector};

/// Longest CEL expression of a selector, in bytes (facts: dra §3).
const MAX_EXPRESSION: usize = 10 * 1024;

/// The class, or why there is none.
pub(crate) fn class(
    cell: &Name,
    name: &Name,
    spec: &GpuClassSpec,
    order: &Containment,
    foreign: &[Foreign<'_>],
    problems: &mut Vec<Problem>,
) -> Result<Object, Box<Problem>> {
    let ours = selector(name, spec, order)?;
    let theirs = nvidia::Selector::of(spec, order, foreign);
    // As many of theirs as there is room for: a class that is full gives out what it names, and tells what it does not.
    let room = MAX_EXPRESSION.saturating_sub(either(&ours, "").len());
    let (theirs, left_out) = theirs.within(room);
    if !left_out.is_empty() {
        problems.push(full(name, &left_out));
    }
    let expression = theirs.map_or(ours.clone(), |theirs| either(&ours, &theirs));
    let mut annotations = vec![("bailiwick.dev/requires", requires(spec))];
    if spec.is_trial() {
        annotations.push((TRIAL, "true".to_owned()));
        annotations.push((
            "bailiwick.dev/description",
            format!(
                "Trial only: its GPUs are given out without all of [probed, attested] (requires: [{}])",
                requires(spec)
            ),
        ));
    }
    let mut metadata = annotated(cell, name.as_str(), &annotations);
    if spec.is_trial() {
        metadata.labels.get_or_insert_default().insert(TRIAL.to_owned(), "true".to_owned());
    }
    let selectors = vec![DeviceSelector { cel: Some(CELDeviceSelector { expression }) }];
    let class = DeviceClass {
        metadata,
        spec: DeviceClassSpec {
            selectors: Some(selectors),
            extended_resource_name: spec.extended_resource.then(|| extended_resource(name)),
            ..DeviceClassSpec::default()
        },
    };
    Ok(Object::new(&class, None))
}

/// The extended resource of a class that has one. Such names hold for a whole cluster, and of two classes with the same one the newer
/// wins (`k8s.io/api` resource/v1, `DeviceClassSpec`): made of the class's own name, no two are the same, and each is a qualified
/// name as a DNS label is one.
pub fn extended_resource(class: &Name) -> String {
    format!("{DRIVER}/{class}")
}

fn either(ours: &str, theirs: &str) -> String {
    format!("({ours}) || ({theirs})")
}

fn full(name: &Name, left_out: &[&Name]) -> Problem {
    let mut machines: Vec<_> = left_out.to_vec();
    machines.dedup();
    let shown: Vec<_> = machines.iter().take(8).map(|machine| machine.as_str()).collect();
    let more = if machines.len() > shown.len() { ", …" } else { "" };
    let place = format!("GpuClass/{name}");
    let message = format!(
        "{place} does not give out {} GPUs of NVIDIA's driver: its selector has no room to name them",
        left_out.len()
    );
    Problem::new("dra.class.full", message)
        .difference(
            format!("left out in {}{more}", shown.join(", ")),
            format!("at most {MAX_EXPRESSION} bytes"),
        )
        .hint("declare several classes, by model, zone or jurisdiction")
        .at(place)
}

/// The selector of a class: our driver, then each condition guarded by `has()`, since an unknown field aborts allocation
/// (facts: dra §3). A zone without handling marking means machines without one: a marking narrows who may use a machine.
pub fn selector(name: &Name, spec: &GpuClassSpec, order: &Containment) -> Result<String, Box<Problem>> {
    let place = format!("GpuClass/{name}");
    let inside = order.descendants(&spec.jurisdiction);
    if inside.is_empty() {
        return Err(Problem::new(
            "dra.class.unknown-jurisdiction",
            format!("{place} is not published: its jurisdiction {} is not declared", spec.jurisdiction),
        )
        .hint(format!("declare Jurisdiction/{}, or correct `spec.jurisdiction`", spec.jurisdiction))
        .at(place)
        .into());
    }
    if spec.requires.is_empty() {
        return Err(Problem::new(
            "class.requires-nothing",
            format!("{place} is not published: it requires nothing of its GPUs"),
        )
        .hint("leave `requires` out for [probed, attested], or write [inventoried] for a trial")
        .at(place)
        .into());
    }
    let guarded = |field: &str, condition: &str| {
        let field = attribute(field);
        format!("has({field}) && {field} {condition}")
    };
    let mut terms = vec![
        format!("device.driver == '{DRIVER}'"),
        guarded("jurisdiction", &format!("in {}", literal::list(inside.iter().map(Name::as_str)))),
        guarded("inventoried", "== true"),
    ];
    // Neither a whole GPU nor a partition is given to who asks for the other.
    match &spec.partition {
        None => terms.push(guarded("type", "== 'gpu'")),
        Some(profile) => {
            terms.push(guarded("type", "== 'mig'"));
            terms.push(guarded("profile", &format!("== {}", literal::string(profile))));
        }
    }
    if !spec.models.is_empty() {
        let mut models: Vec<&str> = spec.models.iter().map(String::as_str).collect();
        models.sort_unstable();
        models.dedup();
        terms.push(guarded("productName", &format!("in {}", literal::list(models))));
    }
    if let Some(zone) = &spec.zone {
        terms.push(guarded("zoneTier", &format!("== {}", literal::string(zone.tier.as_str()))));
        terms.push(match zone.handling {
            Some(handling) => guarded("zoneHandling", &format!("== {}", literal::string(handling.as_str()))),
            None => format!("!has({})", attribute("zoneHandling")),
        });
    }
    if spec.requires.contains(&Requirement::Probed) {
        terms.push(guarded("probed", "== true"));
    }
    if spec.requires.contains(&Requirement::Attested) {
        terms.push(guarded("attestation", "== 'affirming'"));
    }
    within_limit(name, terms.join(" && "))
}

fn within_limit(name: &Name, expression: String) -> Result<String, Box<Problem>> {
    let place = format!("GpuClass/{name}");
    if expression.len() > MAX_EXPRESSION {
        return Err(Problem::new(
            "dra.class.too-long",
            format!("{place} is not published: its selector is too long"),
        )
        .difference(format!("{} bytes", expression.len()), format!("at most {MAX_EXPRESSION} bytes"))
        .hint("name fewer models, or a jurisdiction that contains fewer others")
        .at(place)
        .into());
    }
    Ok(expression)
}

fn requires(spec: &GpuClassSpec) -> String {
    let mut words = spec.requires.clone();
    words.sort_unstable();
    words.dedup();
    words.into_iter().map(Requirement::as_str).collect::<Vec<_>>().join(",")
}
