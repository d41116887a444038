//! The operator's settings.

use serde::de::DeserializeOwned;

/// Reads the settings into a struct. Derive `Deserialize` with `#[serde(default, deny_unknown_fields)]`, and a typo in
/// the configuration is an error that names it.
pub fn settings<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| {
        let text = error.to_string();
        // The operator wrote no JSON, so a place in it means nothing.
        text.split(" at line ").next().unwrap_or(&text).to_owned()
    })
}
