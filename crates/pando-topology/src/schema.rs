//! The JSON Schema of topologies, made from the types that read them, so that it cannot say what is
//! not so.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::input::TopologyInput;

/// Returns the JSON Schema (draft 2020-12). It knows keys and types; what values mean together
/// (addresses within subnets, names that are unique) only [`crate::parse`] knows.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<TopologyInput>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "pando topology".into());
    }
    schema
}
