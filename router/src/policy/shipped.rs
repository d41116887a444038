//! The policies that come with the router, built from `policies/` and part of the binary.

use serde::{Deserialize, Serialize};

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

    /// The component.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::ModelAffinity => include_bytes!(concat!(env!("OUT_DIR"), "/policies/model-affinity.wasm")),
            Self::LeastLoaded => include_bytes!(concat!(env!("OUT_DIR"), "/policies/least-loaded.wasm")),
            Self::FairShare => include_bytes!(concat!(env!("OUT_DIR"), "/policies/fair-share.wasm")),
            Self::Guard => include_bytes!(concat!(env!("OUT_DIR"), "/policies/guard.wasm")),
        }
    }
}
