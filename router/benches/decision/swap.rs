//! The question alone, as in `policy`, while the loading thread is at work: while it compiles a component of 2 MB over and
//! over, and while versions are exchanged ten times a second.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use comfy_router::policy::{Handle, LoadError, Shipped, Source};

use super::policy;

/// What the loading thread does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Nothing,
    Compiles,
    Swaps,
}

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Compiles, Self::Swaps];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Compiles => "compiles 2 MB",
            Self::Swaps => "swaps",
        }
    }
}

/// Times of the questions, and how often the work was done meanwhile.
pub(crate) async fn measure(handle: &Handle, work: Work) -> (Vec<Duration>, u32) {
    let (over, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let asking = async {
        let mut total = Vec::new();
        // Until it was done some times, so that its whole length is met.
        while total.is_empty() || (work != Work::Nothing && done.load(Ordering::Relaxed) < 5) {
            total.extend(policy::ask_all(handle).await);
        }
        over.store(true, Ordering::Relaxed);
        total
    };
    // The work is the loading thread's; here it is only waited for.
    let (total, ()) = tokio::join!(asking, labour(handle, work, &over, &done));
    (total, done.load(Ordering::Relaxed))
}

async fn labour(handle: &Handle, work: Work, over: &AtomicBool, done: &AtomicU32) {
    let large = if work == Work::Compiles { large() } else { Vec::new() };
    let mut versions = [Shipped::ModelAffinity, Shipped::LeastLoaded].into_iter().cycle();
    while !over.load(Ordering::Relaxed) {
        match work {
            Work::Nothing => return,
            Work::Compiles => {
                let source = Source::Bytes { name: "large".to_owned(), bytes: large.clone() };
                // It is compiled whole before it is found to answer nothing.
                let refused = handle.load(source).await;
                assert!(matches!(refused, Err(LoadError::NoHooks(_))), "{refused:?}");
            }
            Work::Swaps => {
                let next = versions.next().expect("a cycle");
                handle.load(Source::Shipped(next)).await.expect("a shipped policy serves");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// A component of 2 MB of code.
fn large() -> Vec<u8> {
    let mut text = "(component (core module (memory 1)".to_owned();
    for function in 0..3_500_u64 {
        text.push_str("(func (param i32) (result i32) local.get 0 ");
        for step in 0..40_u64 {
            let number = (function * 7_919 + step * 104_729) % 1_000_000;
            let _ = write!(text, "i32.const {number} i32.add i32.load offset={} ", step * 4);
            text.push_str("local.get 0 i32.xor local.get 0 i32.rotl ");
        }
        text.push(')');
    }
    text.push_str("))");
    let bytes = wat::parse_str(&text).expect("a component");
    assert!((1_900_000..2_600_000).contains(&bytes.len()), "{} bytes", bytes.len());
    bytes
}
