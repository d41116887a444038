//! What the operating system is asked about processes. Only Linux tells enough.

/// Ticks since the machine's start at which this process began: with its number, it is named for good. None if it is no more.
#[cfg(target_os = "linux")]
pub(super) fn began(pid: u32) -> Option<u64> {
    let stat = procfs::process::Process::new(pid.try_into().ok()?).ok()?.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn began(_pid: u32) -> Option<u64> {
    None
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Term,
    Kill,
}

/// To the group of processes that this one leads.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn signal_group(pid: u32, signal: Signal) {
    let signal = match signal {
        Signal::Term => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
    };
    // 0 would be the router's own group, and a negative number no group.
    if let Some(group) = libc::pid_t::try_from(pid).ok().filter(|group| *group > 1) {
        // SAFETY: takes two numbers and touches no memory. A group that is no more is an error that means nothing here.
        unsafe { libc::killpg(group, signal) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn signal_group(_pid: u32, _signal: Signal) {}
