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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Wait {
        max_wait_ms: u32,
    }

    #[test]
    fn a_typo_is_named_without_a_place_in_json_the_operator_never_wrote() {
        let error = settings::<Wait>(r#"{"max_wait": 1}"#).unwrap_err();
        assert_eq!(error, "unknown field `max_wait`, expected `max_wait_ms`");
        assert_eq!(settings::<Wait>(r#"{"max_wait_ms": 7}"#).unwrap().max_wait_ms, 7);
    }
}
