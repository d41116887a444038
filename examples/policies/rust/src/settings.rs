//! What the operator may set.

use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// GPU seconds a tenant may use in a window; 0 is no quota.
    pub quota_s: f64,
    pub quota_window_s: f64,
    /// Points a waiting job gains in a second; a class is 100 points.
    pub ageing_per_second: f64,
    /// The most a job waits for a better instance while another is free.
    pub max_extra_wait_ms: f64,
    /// A card this hot gets no new jobs until it is at `cool_c` again.
    pub hot_c: f64,
    pub cool_c: f64,
    /// Taken for a load nothing is known about.
    pub assumed_load_ms: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quota_s: 0.0,
            quota_window_s: 3_600.0,
            ageing_per_second: 1.0,
            max_extra_wait_ms: 15_000.0,
            hot_c: 83.0,
            cool_c: 75.0,
            assumed_load_ms: 8_500.0,
        }
    }
}

impl Settings {
    pub fn parse(json: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let not_negative = [
            ("quota_s", settings.quota_s),
            ("ageing_per_second", settings.ageing_per_second),
            ("max_extra_wait_ms", settings.max_extra_wait_ms),
            ("assumed_load_ms", settings.assumed_load_ms),
        ];
        if let Some((name, _)) = not_negative.iter().find(|(_, value)| *value < 0.0) {
            return Err(format!("{name} must not be negative"));
        }
        if settings.quota_window_s < 1.0 {
            return Err("quota_window_s must be at least 1".to_owned());
        }
        if settings.cool_c >= settings.hot_c {
            return Err("cool_c must be below hot_c".to_owned());
        }
        Ok(settings)
    }

    pub fn quota_window_ms(&self) -> u32 {
        (self.quota_window_s * 1000.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_the_default_and_mistakes_are_named() {
        assert_eq!(Settings::parse("{}"), Ok(Settings::default()));
        for (json, said) in [
            (r#"{"hott_c": 80}"#, "hott_c"),
            (r#"{"hot_c": "warm"}"#, "invalid type"),
            (r#"{"quota_s": -1}"#, "quota_s must not be negative"),
            (r#"{"hot_c": 70}"#, "cool_c must be below hot_c"),
        ] {
            let error = Settings::parse(json).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
