//! What wit-bindgen makes of `wit/policy.wit`.
//!
//! Every hook is a world of its own with an export macro of its own. A component is described by the worlds whose
//! macros were invoked and the imports that are called, so a policy exports what it names and nothing else. One world
//! with every hook would demand every hook.

pub(crate) use types_world::comfy_router::policy::types;
pub(crate) use worlds::admission::exports::comfy_router::policy::admission;
pub(crate) use worlds::feedback::exports::comfy_router::policy::feedback;
pub(crate) use worlds::housekeeping::exports::comfy_router::policy::housekeeping;
pub(crate) use worlds::lifecycle::exports::comfy_router::policy::lifecycle;
pub(crate) use worlds::placement::exports::comfy_router::policy::placement;
pub(crate) use worlds::priority::exports::comfy_router::policy::priority;
pub(crate) use worlds::recovery::exports::comfy_router::policy::recovery;
pub(crate) use worlds::routing::exports::comfy_router::policy::routing;
pub(crate) use worlds::timeouts::exports::comfy_router::policy::timeouts;

#[allow(unsafe_code, unreachable_pub, clippy::all)]
mod types_world {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package comfy-router:sdk; world words { import comfy-router:policy/types@0.1.1; }",
        additional_derives: [PartialEq],
        generate_all,
    });
}

#[allow(unsafe_code, unreachable_pub, dead_code, clippy::all)]
pub(crate) mod host_world {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "comfy-router:policy/host",
        with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
        additional_derives: [PartialEq],
        generate_all,
    });
}

/// One world for each hook, for `export!`.
pub mod worlds {
    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod lifecycle {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world lifecycle { export comfy-router:policy/lifecycle@0.1.1; }",
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod admission {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world admission { export comfy-router:policy/admission@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod priority {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world priority { export comfy-router:policy/priority@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod timeouts {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world timeouts { export comfy-router:policy/timeouts@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod routing {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world routing { export comfy-router:policy/routing@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod placement {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world placement { export comfy-router:policy/placement@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod recovery {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world recovery { export comfy-router:policy/recovery@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod housekeeping {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world housekeeping { export comfy-router:policy/housekeeping@0.1.1; }",
            with: { "comfy-router:policy/types@0.1.1": crate::bindings::types },
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }

    #[allow(unsafe_code, unreachable_pub, missing_debug_implementations, clippy::all)]
    pub mod feedback {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "package comfy-router:sdk; world feedback { export comfy-router:policy/feedback@0.1.1; }",
            generate_all,
            additional_derives: [PartialEq],
            pub_export_macro: true,
        });
    }
}
