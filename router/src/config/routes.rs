//! Where requests go whose paths are not ComfyUI's own: `[[route]]`.

use serde::{Deserialize, Serialize};

/// One prefix of paths, and where its requests go. The longest prefix that fits counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Begins and ends with a slash; also meant under `/api`.
    pub prefix: String,
    pub to: RouteTo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTo {
    /// The first instance that is up.
    #[default]
    Home,
    /// Every instance that is up; the home instance's answer is the client's.
    Broadcast,
    /// Always the same instance for one client, as long as it is up.
    ByClient,
    /// Nowhere: 403.
    Deny,
}

impl Default for Route {
    fn default() -> Self {
        Self { prefix: String::new(), to: RouteTo::Home }
    }
}

impl Route {
    /// What is wrong with it, for the operator.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let prefix = &self.prefix;
        if !prefix.starts_with('/') || !prefix.ends_with('/') {
            return Some("a prefix begins and ends with a slash, such as \"/etn/\"");
        }
        let odd = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
        let inner = prefix.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        // The prefix of everything is a single slash.
        if inner.is_some_and(|inner| inner.split('/').any(odd)) || prefix.contains(['%', '?', '#', '\\']) {
            return Some("write the path as it is, without `%`, `?`, `#` and empty or dotted parts");
        }
        if prefix.starts_with("/api/") {
            return Some("leave `/api` out: what holds for a path holds under `/api` too");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_path() {
        let flaw = |prefix: &str| Route { prefix: prefix.into(), to: RouteTo::Home }.flaw();
        for good in ["/etn/", "/", "/a/b.c/"] {
            assert_eq!(flaw(good), None, "{good}");
        }
        for bad in ["", "etn/", "/etn", "/a//b/", "/../", "/a/./b/", "/a%2f/", "/api/etn/", "//"] {
            assert!(flaw(bad).is_some(), "{bad}");
        }
    }
}
