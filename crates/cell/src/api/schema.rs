//! Schemas of the domain's types in the API description.
//!
//! `domain` describes its types with schemars and knows no web framework; here each becomes a component of the OpenAPI document.

use serde_json::Value;
use utoipa::openapi::{Ref, RefOr, Schema};

macro_rules! components {
    ($($(#[$doc:meta])* $name:ident = $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}
            impl utoipa::PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    Ref::from_schema_name(stringify!($name)).into()
                }
            }
            impl utoipa::ToSchema for $name {
                fn name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )*
        fn generate(generator: &mut schemars::SchemaGenerator) {
            $(generator.subschema_for::<$type>();)*
        }
    };
}

components! {
    /// [`domain::Kind`].
    Kind = domain::Kind;
    /// [`domain::plan::Plan`].
    Plan = domain::plan::Plan;
    /// [`domain::MachineState`].
    MachineState = domain::MachineState;
    /// [`domain::Waiting`].
    Waiting = domain::Waiting;
    /// [`domain::Problem`].
    Problem = domain::Problem;
    /// [`domain::Inventory`].
    Inventory = domain::Inventory;
    /// [`domain::inventory::Gpu`].
    Gpu = domain::inventory::Gpu;
    /// [`domain::agent::PreparedDevice`].
    PreparedDevice = domain::agent::PreparedDevice;
    /// [`domain::agent::ScrubRecord`].
    ScrubRecord = domain::agent::ScrubRecord;
    /// [`domain::probe::ProbedGpu`].
    ProbedGpu = domain::probe::ProbedGpu;
    /// [`domain::probe::Finding`].
    GpuFinding = domain::probe::Finding;
    /// [`domain::gpu_views::SpdmGpu`].
    SpdmGpu = domain::gpu_views::SpdmGpu;
    /// [`domain::firmware::Compliance`].
    Compliance = domain::firmware::Compliance;
    /// [`domain::probe::Probe`].
    Probe = domain::probe::Probe;
    /// [`domain::declaration::BmcSpec`].
    BmcSpec = domain::declaration::BmcSpec;
    /// [`domain::declaration::RackPosition`].
    RackPosition = domain::declaration::RackPosition;
    /// [`domain::declaration::Zone`].
    Zone = domain::declaration::Zone;
    /// [`domain::declaration::GpuClassSpec`].
    GpuClassSpec = domain::declaration::GpuClassSpec;
    /// [`domain::declaration::Requirement`].
    Requirement = domain::declaration::Requirement;
    /// [`domain::Declaration`]: any of the declared kinds.
    Declaration = domain::Declaration;
}

/// Puts the domain's schemas where the references above point.
pub(super) fn add_domain_schemas(document: &mut Value) {
    let settings = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generate(&mut generator);
    let definitions = generator.take_definitions(true);
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        for (name, schema) in definitions {
            schemas.insert(name, schema);
        }
    }
}
