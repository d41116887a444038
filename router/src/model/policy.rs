//! Words about policies that the configuration and the policy host share.

use serde::{Deserialize, Serialize};

use super::decision::Hook;

/// The policies that come with the router, by the names they are configured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shipped {
    /// Where the models are, waiting a bounded time for that.
    #[default]
    ModelAffinity,
    /// Where the fewest jobs are.
    LeastLoaded,
    /// Tenants and clients share by weight.
    FairShare,
    /// For housekeeping: drains hot instances, frees unused models.
    Guard,
}

impl Shipped {
    pub const ALL: [Self; 4] = [Self::ModelAffinity, Self::LeastLoaded, Self::FairShare, Self::Guard];

    pub fn name(self) -> &'static str {
        match self {
            Self::ModelAffinity => "model-affinity",
            Self::LeastLoaded => "least-loaded",
            Self::FairShare => "fair-share",
            Self::Guard => "guard",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shipped| shipped.name() == name)
    }
}

/// The interfaces of the WIT that a component of its own may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    Admission,
    Priority,
    Timeouts,
    Routing,
    Placement,
    Recovery,
    Housekeeping,
    Feedback,
}

impl Interface {
    pub const ALL: [Self; 8] = [
        Self::Admission,
        Self::Priority,
        Self::Timeouts,
        Self::Routing,
        Self::Placement,
        Self::Recovery,
        Self::Housekeeping,
        Self::Feedback,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Priority => "priority",
            Self::Timeouts => "timeouts",
            Self::Routing => "routing",
            Self::Placement => "placement",
            Self::Recovery => "recovery",
            Self::Housekeeping => "housekeeping",
            Self::Feedback => "feedback",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interface| interface.as_str() == name)
    }

    pub(crate) fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Admission => &[Hook::Admit],
            Self::Priority => &[Hook::Prioritize],
            Self::Timeouts => &[Hook::LimitsFor, Hook::OnTimeout],
            Self::Routing => &[Hook::Route],
            Self::Placement => &[Hook::Place],
            Self::Recovery => &[Hook::OnFailure],
            Self::Housekeeping => &[Hook::Tick],
            Self::Feedback => &[Hook::Observe],
        }
    }
}
