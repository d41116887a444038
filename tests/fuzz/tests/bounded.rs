//! Every target, fed a bounded number of inputs from a fixed seed. `COMFY_ROUTER_TEST_ROUNDS` multiplies the number,
//! `COMFY_ROUTER_TEST_SEED` is another seed, and an input that breaks a target is left in a file whose name the failure says.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use comfy_router_fuzz::{Random, TARGETS, mutated, seeds};

/// For one input. Nothing takes a second on an idle machine; who needs this long does not return.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Where the input is, so that it can be looked at and become a seed.
fn kept(name: &str, input: &[u8]) -> PathBuf {
    let file = std::env::temp_dir().join(format!("comfy-router-fuzz-{name}-{:016x}", fingerprint(input)));
    std::fs::write(&file, input).expect("written");
    file
}

fn fingerprint(input: &[u8]) -> u64 {
    input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// On a thread of its own, which is given one input after the other, so that one that does not return is noticed.
fn run(name: &'static str) {
    let (_, target, inputs) = *TARGETS.iter().find(|(its, ..)| *its == name).expect("a target");
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    let mut random = Random(number("COMFY_ROUTER_TEST_SEED", 1));
    let (give, given) = channel::<Vec<u8>>();
    let (done, returned) = channel();
    let worker = std::thread::spawn(move || {
        for input in given {
            let fine = std::panic::catch_unwind(|| target(&input)).is_ok();
            if done.send(fine).is_err() {
                return;
            }
        }
    });
    // What is valid first: it must be taken without a complaint of the target's own.
    let rounds = u64::from(inputs) * number("COMFY_ROUTER_TEST_ROUNDS", 1);
    let mut fed = 0;
    while fed < rounds + seeds.len() as u64 {
        let input = match seeds.get(fed as usize) {
            Some(seed) => seed.clone(),
            None => mutated(&seeds, &mut random),
        };
        give.send(input.clone()).expect("it takes inputs");
        match returned.recv_timeout(PATIENCE) {
            Ok(true) => fed += 1,
            Ok(false) => panic!("{name} panicked at {}", kept(name, &input).display()),
            Err(RecvTimeoutError::Timeout) => {
                panic!("{name} does not return from {}", kept(name, &input).display())
            }
            Err(RecvTimeoutError::Disconnected) => panic!("{name} ended at {}", kept(name, &input).display()),
        }
    }
    drop(give);
    worker.join().expect("it ends with its inputs");
}

macro_rules! bounded {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            let names = TARGETS.map(|(name, ..)| name);
            assert_eq!([$(stringify!($name)),*], names);
        }
    };
}

bounded!(prompt frame head socket object_info names upload config cases log component answers);
