//! From the generated interfaces to the traits, and the macro that ties a policy to them.

use crate::bindings::{
    admission, feedback, housekeeping, lifecycle, placement, priority, recovery, routing, timeouts, types,
};
use crate::hooks::{
    Admission, Feedback, Housekeeping, Lifecycle, Placement, Priority, Recovery, Routing, Timeouts,
};

/// The one value of a policy that lives in a guest. Implemented by [`export!`](crate::export).
pub trait Exported: 'static {
    type Policy: 'static;

    fn with<T>(act: impl FnOnce(&mut Self::Policy) -> T) -> T;
}

impl<E: Exported<Policy: Lifecycle>> lifecycle::Guest for E {
    fn configure(settings: String) -> Result<(), String> {
        let configured = <E::Policy as Lifecycle>::configure(&settings)?;
        E::with(|policy| *policy = configured);
        Ok(())
    }
}

impl<E: Exported<Policy: Admission>> admission::Guest for E {
    fn admit(job: types::Job, load: types::Load) -> admission::AdmissionDecision {
        E::with(|policy| policy.admit(&job, &load))
    }
}

impl<E: Exported<Policy: Priority>> priority::Guest for E {
    fn prioritize(job: types::Job) -> priority::PriorityDecision {
        E::with(|policy| policy.prioritize(&job))
    }
}

impl<E: Exported<Policy: Timeouts>> timeouts::Guest for E {
    fn limits_for(job: types::Job) -> timeouts::Limits {
        E::with(|policy| policy.limits_for(&job))
    }

    fn on_timeout(
        job: types::Job,
        which: timeouts::Limit,
        progress: timeouts::Progress,
    ) -> timeouts::TimeoutDecision {
        E::with(|policy| policy.on_timeout(&job, which, &progress))
    }
}

impl<E: Exported<Policy: Routing>> routing::Guest for E {
    fn route(job: types::Job, candidates: Vec<types::Candidate>) -> routing::RouteDecision {
        E::with(|policy| policy.route(&job, &candidates))
    }
}

impl<E: Exported<Policy: Placement>> placement::Guest for E {
    fn place(
        jobs: Vec<types::Job>,
        seats: Vec<placement::Seat>,
        offers: Vec<placement::Offer>,
    ) -> placement::PlacementDecision {
        E::with(|policy| policy.place(&jobs, &seats, &offers))
    }
}

impl<E: Exported<Policy: Recovery>> recovery::Guest for E {
    fn on_failure(job: types::Job, failure: recovery::Failure) -> recovery::RecoveryDecision {
        E::with(|policy| policy.on_failure(&job, &failure))
    }
}

impl<E: Exported<Policy: Housekeeping>> housekeeping::Guest for E {
    fn tick(instances: Vec<types::InstanceState>) -> Vec<housekeeping::Order> {
        E::with(|policy| policy.tick(&instances))
    }
}

impl<E: Exported<Policy: Feedback>> feedback::Guest for E {
    fn observe(outcomes: Vec<feedback::Outcome>) {
        E::with(|policy| policy.observe(&outcomes));
    }
}

/// Makes a type that implements `Default` the policy of this component, with the hooks named:
/// `export!(MyPolicy: lifecycle, routing, priority);`
///
/// The hooks are `lifecycle`, `admission`, `priority`, `timeouts`, `routing`, `placement`, `recovery`, `housekeeping`,
/// `feedback`, and the type must implement the trait of each one named.
#[macro_export]
macro_rules! export {
    ($policy:ty: $($hook:ident),+ $(,)?) => {
        // Only a component has exports; natively the names could not even be linked.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static POLICY: ::std::cell::RefCell<$policy> = ::std::cell::RefCell::default();
            }

            struct Guest;

            impl $crate::__private::Exported for Guest {
                type Policy = $policy;

                fn with<T>(act: impl FnOnce(&mut $policy) -> T) -> T {
                    POLICY.with_borrow_mut(act)
                }
            }

            $($crate::__export_hook!($hook);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    ($hook:ident) => {
        #[allow(unsafe_code, clippy::all)]
        const _: () = {
    $crate::__private::worlds::$hook::export!(Guest with_types_in $crate::__private::worlds::$hook);
        };
    };
}
