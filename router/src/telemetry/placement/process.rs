//! From a port to the process that listens on it, through `/proc`. Only for instances on this machine and in this
//! process namespace; others are not found, which is no error.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process as Entry, all_processes};

use super::{Environment, Process};
use crate::model::id::InstanceId;
use crate::telemetry::Target;

/// A listening socket is looked at again after so long even if it is still the same: its process may have children,
/// or may have become readable.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Longest command line and list that are kept.
const MAX_ARGS: usize = 256;

#[derive(Debug, Default)]
pub(in crate::telemetry) struct Finder {
    /// By the socket's inode: another process on the port has another socket.
    seen: HashMap<u64, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// None: nobody readable owns the socket.
    process: Option<Process>,
    looked: Instant,
}

impl Finder {
    pub(in crate::telemetry) fn find(&mut self, targets: &[Target]) -> HashMap<InstanceId, Process> {
        let listening = listening();
        let sockets: Vec<(&Target, u64)> =
            targets.iter().filter_map(|target| Some((target, socket_of(target, &listening)?))).collect();
        let wanted: HashSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
        self.seen.retain(|inode, seen| wanted.contains(inode) && seen.looked.elapsed() < LOOK_AGAIN);
        let unknown: HashSet<u64> =
            wanted.into_iter().filter(|inode| !self.seen.contains_key(inode)).collect();
        if !unknown.is_empty() {
            self.look(&unknown);
        }
        let process = |(target, inode): (&Target, u64)| {
            Some((target.instance.clone(), self.seen.get(&inode)?.process.clone()?))
        };
        sockets.into_iter().filter_map(process).collect()
    }

    fn look(&mut self, inodes: &HashSet<u64>) {
        let mut owners = owners(inodes);
        for inode in inodes {
            let process = owners.remove(inode).map(|entry| describe(&entry));
            self.seen.insert(*inode, Seen { process, looked: Instant::now() });
        }
    }
}

fn listening() -> Vec<(SocketAddr, u64)> {
    let all = procfs::net::tcp().into_iter().chain(procfs::net::tcp6()).flatten();
    all.filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| (entry.local_address, entry.inode))
        .collect()
}

fn socket_of(target: &Target, listening: &[(SocketAddr, u64)]) -> Option<u64> {
    let host = target.url.host();
    let address: Option<IpAddr> = host.parse().ok();
    let local = host == "localhost" || address.is_some_and(is_own);
    let answers = |at: &SocketAddr| {
        let ip = at.ip().to_canonical();
        let same = address.map_or(ip.is_loopback(), |address| ip == address.to_canonical());
        at.port() == target.url.port() && (ip.is_unspecified() || same)
    };
    listening.iter().find(|(at, _)| local && answers(at)).map(|(_, inode)| *inode)
}

/// An address of this machine is one that can be bound.
fn is_own(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind((address.to_canonical(), 0)).is_ok()
}

/// The oldest process that holds each socket: children may have inherited it.
fn owners(inodes: &HashSet<u64>) -> HashMap<u64, Entry> {
    let mut owners: HashMap<u64, Entry> = HashMap::new();
    for entry in all_processes().into_iter().flatten().flatten() {
        // Not ours to read: it cannot be told whose they are.
        let Ok(descriptors) = entry.fd() else { continue };
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else { continue };
            let older = owners.get(&inode).is_none_or(|known| entry.pid() < known.pid());
            if inodes.contains(&inode)
                && older
                && let Ok(own) = Entry::new(entry.pid())
            {
                owners.insert(inode, own);
            }
        }
    }
    owners
}

fn describe(entry: &Entry) -> Process {
    let mut args = entry.cmdline().unwrap_or_default();
    args.truncate(MAX_ARGS);
    let environment = entry.environ().ok().map(|variables| {
        let get =
            |name: &str| variables.get(std::ffi::OsStr::new(name)).map(|v| v.to_string_lossy().into_owned());
        Environment {
            visible: get("CUDA_VISIBLE_DEVICES"),
            bus_order: get("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID"),
        }
    });
    Process { family: family(entry.pid()), args, environment }
}

fn family(pid: i32) -> Vec<u32> {
    let parents: Vec<(i32, i32)> = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.pid(), entry.stat().ok()?.ppid)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            parents.iter().filter(|(child, of)| *of == parent && *child != parent).map(|(child, _)| child),
        );
        next += 1;
    }
    family.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::config::Url;

    fn target(host: &str, port: u16) -> Target {
        Target { instance: "x".into(), index: 0, url: Url::new(host, port), gpu: None }
    }

    fn find(host: &str, port: u16) -> Option<Process> {
        Finder::default().find(&[target(host, port)]).remove(&InstanceId::from("x"))
    }

    #[test]
    fn the_listener_of_a_port_is_found_by_any_name_of_this_machine() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = socket.local_addr().expect("has one").port();
        for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
            let process = find(host, port).unwrap_or_else(|| panic!("{host} is this machine"));
            assert_eq!(process.family[0], std::process::id());
        }
        // Another machine may well listen on this port; 192.0.2.0/24 is nobody's.
        assert_eq!(find("192.0.2.1", port), None);
        drop(socket);
        assert_eq!(find("127.0.0.1", port), None);
    }

    #[test]
    fn a_socket_on_every_address_answers_for_each() {
        let socket = TcpListener::bind("0.0.0.0:0").expect("binds");
        let port = socket.local_addr().expect("has one").port();
        assert!(find("127.0.0.1", port).is_some());
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            self.0.kill().expect("is ours");
            self.0.wait().expect("is ours");
        }
    }

    #[test]
    fn arguments_environment_and_children_are_read() {
        // `sleep` inherits the shell's environment and is its child.
        let child = Command::new("sh")
            .args(["-c", "sleep 600 & wait", "main.py", "--cuda-device", "1"])
            .env("CUDA_VISIBLE_DEVICES", "GPU-3f2a,0")
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let child = Killed(child);
        let pid = child.0.id();
        let entry = Entry::new(pid as i32).expect("lives");
        // The shell needs a moment to become one, and to have a child.
        let process = std::iter::repeat_with(|| describe(&entry))
            .find(|process| process.args.len() > 3 && process.family.len() == 2)
            .expect("an endless iterator");
        assert_eq!(process.family[0], pid);
        assert_eq!(process.args[3..], ["main.py", "--cuda-device", "1"]);
        let environment = Environment { visible: Some("GPU-3f2a,0".into()), bus_order: true };
        assert_eq!(process.environment, Some(environment));
        let sleeper = process.family[1];
        drop(child);
        let _ = Command::new("kill").arg(sleeper.to_string()).status();
    }
}
