//! The admission policies under which only the cell writes what is ours (DESIGN §3.2): the first objects of every output.
//!
//! They guard as far as the API server lets policies: admission policies do not apply to admission policies, so who may change
//! these is a matter of RBAC alone, and the publisher proves that they hold before it writes anything else ([`crate::proof_slice`]).
//! Deletion stays allowed (a kubelet wipes its node's slices when it starts, facts: dra §5), and so does taking the finalizers off
//! an object that is being deleted: refused, it would stay for ever (facts: tenant-bench §4a).
//!
//! A class of somebody else's that selects nothing in particular matches our devices as it matches everybody's; no policy can
//! tell what an arbitrary CEL expression matches. Who may create DeviceClasses is therefore an administrator.

use crate::input::Input;
use crate::object::{Object, metadata};
use crate::{DRIVER, LABEL_OWNER, MANAGER, literal};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
    Validation, Variable,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Name of the policy, and of its binding, that guards ResourceSlices of our driver.
pub const POLICY_SLICES: &str = "bailiwick-slices";
/// Name of the policy, and of its binding, that guards taint rules which reach our devices.
pub const POLICY_TAINT_RULES: &str = "bailiwick-taint-rules";
/// Name of the policy, and of its binding, that guards classes of ours and names of extended resources in our domain.
pub const POLICY_CLASSES: &str = "bailiwick-classes";
/// Name of the policy, and of its binding, that keeps claims from tolerating our taints.
pub const POLICY_CLAIMS: &str = "bailiwick-claims";

struct Guard {
    name: &'static str,
    resources: &'static [&'static str],
    variables: Vec<(&'static str, String)>,
    /// Holds for what others may write.
    allowed: String,
    message: String,
}

/// Policies, each followed by its binding.
pub(crate) fn policies(input: &Input) -> Vec<Object> {
    guards().into_iter().flat_map(|guard| render(input, guard)).collect()
}

fn guards() -> [Guard; 4] {
    let driver = literal::string(DRIVER);
    // What is checked of an object is checked of the one it replaces too: nobody turns ours into theirs.
    let neither = |test: &dyn Fn(&str) -> String| {
        format!("!({}) && (oldObject == null || !({}))", test("object"), test("oldObject"))
    };
    [
        Guard {
            name: POLICY_SLICES,
            resources: &["resourceslices"],
            variables: vec![],
            allowed: neither(&|o| format!("{o}.spec.driver == {driver}")),
            message: format!("only the cell writes ResourceSlices of {DRIVER}"),
        },
        Guard {
            // A rule without a selector matches nothing; a selector that names no driver matches ours with the others.
            name: POLICY_TAINT_RULES,
            resources: &["devicetaintrules"],
            variables: vec![],
            allowed: neither(&|o| {
                format!(
                    "has({o}.spec.deviceSelector) && (!has({o}.spec.deviceSelector.driver) || {o}.spec.deviceSelector.driver == {driver})"
                )
            }),
            message: format!("only the cell writes taint rules that reach devices of {DRIVER}; name another driver in deviceSelector"),
        },
        Guard {
            name: POLICY_CLASSES,
            resources: &["deviceclasses"],
            variables: vec![],
            allowed: neither(&|o| {
                format!(
                    "{o}.metadata.?labels[?{}].hasValue() || {o}.metadata.?labels[?'app.kubernetes.io/managed-by'].orValue('') == {} \
                     || {o}.spec.?extendedResourceName.orValue('').matches({})",
                    literal::string(LABEL_OWNER),
                    literal::string(MANAGER),
                    literal::string(&format!("^([a-z0-9.-]+[.])?{}/", DRIVER.replace('.', "[.]"))),
                )
            }),
            message: format!("only the cell writes DeviceClasses that bear its label or name extended resources of {DRIVER}"),
        },
        Guard {
            // A toleration with an empty key tolerates every taint there is or will be, ours included. Whether a claim can get one
            // of our devices depends on classes, which a policy cannot look up, and a list of our classes written into it would lag
            // behind them; so such tolerations are refused to everybody: name the keys that are meant.
            // Tolerations stand in the request (v1beta1), or in `exactly` and `firstAvailable` (v1beta2, v1): all are read.
            name: POLICY_CLAIMS,
            resources: &["resourceclaims", "resourceclaimtemplates"],
            variables: vec![
                (
                    "requests",
                    "(object.kind == 'ResourceClaimTemplate' ? object.spec.spec : object.spec).?devices.?requests.orValue([])"
                        .to_owned(),
                ),
            ],
            allowed: format!(
                "variables.requests.all(r, (r.?tolerations.orValue([]) + r.?exactly.?tolerations.orValue([])).all(t, {fine}) \
                 && r.?firstAvailable.orValue([]).all(s, s.?tolerations.orValue([]).all(t, {fine})))",
                fine = "t.?key.orValue('') != '' && !t.key.matches('^([a-z0-9.-]+[.])?bailiwick[.]dev/')"
            ),
            message: "claims may not tolerate taints of bailiwick.dev, nor all taints by an empty key; name the keys of other drivers".to_owned(),
        },
    ]
}

fn render(input: &Input, guard: Guard) -> [Object; 2] {
    let strings = |items: &[&str]| Some(items.iter().map(|s| (*s).to_owned()).collect());
    let condition = |name: &str, expression: String| MatchCondition { name: name.to_owned(), expression };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata(&input.cell, guard.name),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                match_policy: Some("Equivalent".to_owned()),
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: strings(&["resource.k8s.io"]),
                    api_versions: strings(&["*"]),
                    operations: strings(&["CREATE", "UPDATE"]),
                    resources: strings(guard.resources),
                    scope: Some("*".to_owned()),
                    ..NamedRuleWithOperations::default()
                }]),
                // The server's defaults, written out so that applying twice changes nothing.
                namespace_selector: Some(LabelSelector::default()),
                object_selector: Some(LabelSelector::default()),
                ..MatchResources::default()
            }),
            match_conditions: Some(vec![
                condition("not-the-cell", format!("request.userInfo.username != {}", literal::string(&input.cell_user))),
                condition(
                    "not-the-end-of-a-deletion",
                    "oldObject == null || !has(object.metadata.deletionTimestamp) || object.spec != oldObject.spec".to_owned(),
                ),
            ]),
            variables: (!guard.variables.is_empty()).then(|| {
                let variable = |(name, expression): (&str, String)| Variable { name: name.to_owned(), expression };
                guard.variables.into_iter().map(variable).collect()
            }),
            validations: Some(vec![Validation {
                expression: guard.allowed,
                message: Some(guard.message),
                reason: Some("Forbidden".to_owned()),
                ..Validation::default()
            }]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: metadata(&input.cell, guard.name),
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: guard.name.to_owned(),
            validation_actions: vec!["Deny".to_owned(), "Audit".to_owned()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    };
    [Object::new(&policy, None), Object::new(&binding, None)]
}
