//! The demo as its user starts it: the real binary, real TCP, a small load.

use std::net::TcpListener;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comfy-router"));
    command.arg("demo").args(arguments).output().expect("the binary runs")
}

#[test]
fn the_demo_ends_by_itself_and_loses_nothing() {
    let output = demo(&["--prompts", "12", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for wanted in
        ["12 accepted, 12 finished, 0 failed, 0 lost; 12 right images", "fair-share@", "nothing lost"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'), "a pipe gets no escapes:\n{text}");
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = demo(&["--listen", &address, "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("--listen 127.0.0.1:0 --admin 127.0.0.1:0"), "{text}");
}
