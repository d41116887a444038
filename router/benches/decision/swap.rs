//! The question alone, as in `policy`, while the loading thread is at work: while it compiles a component of 2 MB over and
//! over, and while versions are exchanged ten times a second.
//!
//! A bystander, a thread that shares nothing with the router, sleeps as long as is waited between two questions, and says by how
//! much it woke too late: so much of a long question is the machine's, and no lock of ours.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

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

pub(crate) struct Measured {
    /// Times of the questions.
    pub(crate) total: Vec<Duration>,
    /// By how much the bystander woke too late.
    pub(crate) late: Vec<Duration>,
    /// How often the work was done meanwhile.
    pub(crate) times: u32,
}

/// Of one kind of work, which is ordered by a thread of its own: whoever asks does nothing else.
pub(crate) async fn measure(handle: &Handle, work: Work) -> Measured {
    let large = Arc::new(if work == Work::Compiles { large() } else { Vec::new() });
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let bystander = std::thread::spawn({
        let over = over.clone();
        move || stand_by(&over)
    });
    let labourer = std::thread::spawn({
        let (handle, runtime) = (handle.clone(), tokio::runtime::Handle::current());
        let (over, done) = (over.clone(), done.clone());
        move || runtime.block_on(labour(&handle, work, &large, &over, &done))
    });
    let mut total = Vec::new();
    // Until it was done some times, so that its whole length is met.
    while total.is_empty() || (work != Work::Nothing && done.load(Ordering::Relaxed) < 5) {
        total.extend(policy::ask_all(handle).await);
        assert!(work == Work::Nothing || !labourer.is_finished(), "the work is done all the time");
    }
    over.store(true, Ordering::Relaxed);
    let late = bystander.join().expect("it ends");
    labourer.join().expect("it ends");
    Measured { total, late, times: done.load(Ordering::Relaxed) }
}

fn stand_by(over: &AtomicBool) -> Vec<Duration> {
    let mut late = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(policy::PAUSE);
        late.push(began.elapsed().saturating_sub(policy::PAUSE));
    }
    late
}

async fn labour(handle: &Handle, work: Work, large: &[u8], over: &AtomicBool, done: &AtomicU32) {
    let mut versions = [Shipped::ModelAffinity, Shipped::LeastLoaded].into_iter().cycle();
    while !over.load(Ordering::Relaxed) {
        match work {
            Work::Nothing => return,
            Work::Compiles => {
                let source = Source::Bytes { name: "large".to_owned(), bytes: large.to_vec() };
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
