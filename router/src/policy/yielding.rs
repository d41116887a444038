//! Work that can wait gives way to decisions.

/// How much later the calling thread is given a core than the others, on a machine that has too few: about a third as often.
/// More would make compiling miss its time limit there.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// From now on the calling thread, and whatever thread it starts, gives way to the others of this machine.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn give_way() {
    // SAFETY: `nice` takes a number and touches no memory. On Linux it is the calling thread's own, and may always be raised.
    // What it gives back says nothing: -1 is a value too.
    unsafe { libc::nice(NICE) };
}

/// Threads of one process have no priorities of their own here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_way() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The thread's own, as the kernel has it.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("the kernel tells");
        let after_name = stat.rsplit(')').next().expect("a name in brackets");
        after_name.split_whitespace().nth(16).and_then(|nice| nice.parse().ok()).expect("a number")
    }

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        let before = nice();
        let its = std::thread::spawn(|| {
            give_way();
            (nice(), std::thread::spawn(nice).join().expect("ends"))
        });
        let (its, of_its_child) = its.join().expect("ends");
        let expected = (before + NICE).min(19);
        assert_eq!((its, of_its_child), (expected, expected));
        assert_eq!(nice(), before, "this one is as it was");
    }
}
