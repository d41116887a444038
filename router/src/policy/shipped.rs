//! The policies that come with the router, built from `policies/` and part of the binary.

pub use crate::model::policy::Shipped;

impl Shipped {
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
