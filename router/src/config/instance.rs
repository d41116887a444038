//! One ComfyUI server as the operator names it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use crate::model::id::InstanceId;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    pub name: InstanceId,
    pub url: Url,
    /// Shown to policies; free text.
    pub labels: BTreeMap<String, String>,
    /// Which GPU it computes on; absent: found from the process that listens on its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Attempts it may run at once. ComfyUI runs one; more only makes sense for servers that do.
    pub slots: u32,
    /// Attempts it may hold waiting besides.
    pub ahead: u32,
    /// Program and arguments that restart it; run when it does not let go of an attempt or has stopped answering, when a policy
    /// orders it, and when the operator does. Empty: nothing restarts it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// Its process is the router's own.
    #[serde(skip)]
    pub launched: bool,
}

impl Instance {
    /// There is a way to restart it.
    pub fn is_supervised(&self) -> bool {
        self.launched || !self.restart.is_empty()
    }

    /// An instance with a name made from its address, and every default.
    pub fn at(url: Url) -> Self {
        Self {
            name: url.default_name(),
            url,
            labels: BTreeMap::new(),
            gpu: None,
            slots: 1,
            ahead: 0,
            restart: Vec::new(),
            launched: false,
        }
    }
}

/// A GPU by its driver index or its UUID (`GPU-…`, `MIG-…`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "a GPU index such as 0, or a UUID such as \"GPU-3f2a…\"")]
pub enum Gpu {
    Index(u32),
    Uuid(String),
}

/// Where an instance listens: `http`, a host and a port; no path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Url {
    host: String,
    port: u16,
}

impl Url {
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` as a `Host` header wants it.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// `host-port`, with whatever a name may not hold made a dash.
    pub fn default_name(&self) -> InstanceId {
        let safe = |c: char| if is_name_char(c) { c } else { '-' };
        let host: String = self.host.chars().map(safe).take(MAX_NAME - 6).collect();
        InstanceId::from(format!("{}-{}", host.trim_matches('-'), self.port).as_str())
    }
}

const MAX_NAME: usize = 64;

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Names appear in paths, labels and logs: letters, digits, `.`, `_` and `-`, 64 at most, and not only dots.
pub fn is_safe_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(is_name_char)
        && name.chars().any(|c| c.is_ascii_alphanumeric())
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}` {why}; write it as http://127.0.0.1:8188"));
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Ok(uri) = Uri::from_str(&with_scheme) else { return wrong("is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return wrong("is not a URL");
        };
        if scheme != "http" {
            return wrong("does not start with http://, the only scheme that instances are reached by");
        }
        if authority.as_str().contains('@') {
            return wrong("holds a user name, which ComfyUI has no use for");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return wrong("holds a path, but an instance is a host and a port");
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() || authority.port_u16() == Some(0) {
            return wrong("has no host or no usable port");
        }
        Ok(Self::new(host, authority.port_u16().unwrap_or(80)))
    }
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.to_string()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_a_host_and_a_port() {
        for (text, shown, name) in [
            ("http://127.0.0.1:8188", "http://127.0.0.1:8188", "127.0.0.1-8188"),
            ("http://gpu.lan/", "http://gpu.lan:80", "gpu.lan-80"),
            ("localhost:8190", "http://localhost:8190", "localhost-8190"),
            ("http://[::1]:8188", "http://[::1]:8188", "1-8188"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.default_name().as_str(), name);
            assert!(is_safe_name(name));
        }
        for wrong in [
            "https://a:1",
            "http://a:1/comfy",
            "http://me@a:1",
            "http://",
            "",
            "http://a:0",
            "a b",
            "ws://a:1",
        ] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn names_are_safe_in_paths_and_labels() {
        assert!(is_safe_name("gpu-0.left_B"));
        for wrong in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(!is_safe_name(wrong), "{wrong:?} was taken");
        }
    }
}
