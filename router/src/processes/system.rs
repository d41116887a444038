//! What the operating system is asked about processes. Only Linux tells enough.

#[cfg(target_os = "linux")]
pub(super) use linux::{began, boot, group_lives, signal_group};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{began, boot, group_lives, signal_group};

#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Term,
    Kill,
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{Process, Stat, all_processes};

    use super::Signal;

    /// Ticks since the machine's start at which this process began: with its number, it is named for good until the next.
    /// None if it is no more.
    pub(in super::super) fn began(pid: u32) -> Option<u64> {
        let stat = Process::new(pid.try_into().ok()?).ok()?.stat().ok()?;
        lives(&stat).then_some(stat.starttime)
    }

    /// Which start of the machine this is.
    pub(in super::super) fn boot() -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }

    /// Is there anything of the group that this process leads or led?
    pub(in super::super) fn group_lives(pid: u32) -> bool {
        let Ok(group) = i32::try_from(pid) else { return false };
        let stats = all_processes().into_iter().flatten().flatten().filter_map(|process| process.stat().ok());
        stats.into_iter().any(|stat| stat.pgrp == group && lives(&stat))
    }

    /// One that nobody has asked how it ended does not.
    fn lives(stat: &Stat) -> bool {
        !matches!(stat.state, 'Z' | 'X')
    }

    /// To the group of processes that this one leads.
    #[allow(unsafe_code)]
    pub(in super::super) fn signal_group(pid: u32, signal: Signal) {
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
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::Signal;

    pub(in super::super) fn began(_pid: u32) -> Option<u64> {
        None
    }

    pub(in super::super) fn boot() -> String {
        String::new()
    }

    pub(in super::super) fn group_lives(_pid: u32) -> bool {
        false
    }

    pub(in super::super) fn signal_group(_pid: u32, _signal: Signal) {}
}
