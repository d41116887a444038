//! Who connects after a job began: too late, again, or once more.

use super::*;

/// As the relay sends it, without what is unimportant here.
fn begins(sessions: &Handle, sid: &str) {
    sessions.tell(sid, Message::start(text("execution_start")));
    sessions.tell(sid, event("execution_cached"));
    sessions.tell(sid, Message::executing(text("executing")));
}

fn ends(sessions: &Handle, sid: &str) {
    sessions.tell(sid, end("execution_success"));
    sessions.tell(sid, end("executing"));
}

fn connect(sessions: &Handle, sid: &str) -> Connection {
    sessions.connect(Some(sid), "t").unwrap()
}

#[test]
fn a_client_that_connects_after_posting_is_told_how_things_are_and_goes_on() {
    let sessions = handle(Config::default());
    begins(&sessions, "late");
    for _ in 0..3 {
        sessions.tell("late", progress("progress_state"));
        sessions.tell("late", progress("progress"));
        sessions.tell("late", preview(1, "3", 10));
    }
    let late = connect(&sessions, "late");
    let present = ["execution_start", "execution_cached", "executing"];
    let newest = ["progress_state", "progress", "<preview>"];
    assert_eq!(waiting(&late.outbox), [&["status"], &present[..], &newest].concat());
    ends(&sessions, "late");
    assert_eq!(waiting(&late.outbox), ["execution_success", "executing"]);
}

#[test]
fn a_client_that_connects_after_the_end_is_told_of_it_for_a_while() {
    let sessions = handle(Config::default());
    for sid in ["late", "never"] {
        begins(&sessions, sid);
        sessions.tell(sid, progress("progress"));
        sessions.tell(sid, event("executed"));
        ends(&sessions, sid);
    }
    let told =
        ["status", "execution_start", "execution_cached", "executed", "execution_success", "executing"];
    assert_eq!(waiting(&connect(&sessions, "late").outbox), told);
    sessions.0.table().expire(Duration::ZERO);
    assert_eq!(waiting(&connect(&sessions, "never").outbox), ["status"]);
}

#[test]
fn images_that_are_results_are_kept_with_the_node_that_sent_them() {
    let sessions = handle(Config::default());
    begins(&sessions, "late");
    sessions.tell("late", preview(2, "3", 10));
    sessions.tell("late", preview(2, "3", 10));
    sessions.tell("late", Message::executing(text("executing")));
    ends(&sessions, "late");
    let told = waiting(&connect(&sessions, "late").outbox);
    let kept =
        ["execution_cached", "executing", "<ordinary>", "<ordinary>", "execution_success", "executing"];
    assert_eq!(told[2..], kept);
}

#[test]
fn a_reload_is_told_where_the_job_is() {
    let sessions = handle(Config::default());
    let mut page = connect(&sessions, "a");
    begins(&sessions, "a");
    assert_eq!(waiting(&page.outbox).len(), 4);
    page.closed_well();
    drop(page);
    let page = connect(&sessions, "a");
    assert_eq!(waiting(&page.outbox), ["status", "execution_start", "execution_cached", "executing"]);
}

#[test]
fn what_a_client_took_in_before_it_left_is_not_told_again() {
    let sessions = handle(Config::default());
    let mut page = connect(&sessions, "a");
    begins(&sessions, "a");
    ends(&sessions, "a");
    waiting(&page.outbox);
    page.closed_well();
    drop(page);
    assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status"]);
}

#[test]
fn what_a_client_has_proved_to_have_got_is_not_told_to_its_next_socket() {
    let sessions = handle(Config::default());
    let page = connect(&sessions, "a");
    ends(&sessions, "a");
    assert_eq!(page.outbox.emptied(), None, "it has not been sent yet");
    let early = std::time::Instant::now();
    waiting(&page.outbox);
    sessions.tell_of("a", "q", end("execution_success"));
    page.has_got_until(early);
    assert_eq!(waiting(&page.outbox), ["execution_success"]);
    assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status", "execution_success"], "of q");

    let page = connect(&sessions, "a");
    waiting(&page.outbox);
    page.has_got_until(page.outbox.emptied().unwrap());
    assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status"]);
}

#[test]
fn an_end_that_went_to_a_dead_connection_is_told_again() {
    let sessions = handle(Config::default());
    for broken in [true, false] {
        let dead = connect(&sessions, "a");
        begins(&sessions, "a");
        ends(&sessions, "a");
        waiting(&dead.outbox);
        // It broke, or nobody has noticed yet.
        let dead = (!broken).then_some(dead);
        let mut page = connect(&sessions, "a");
        let said = waiting(&page.outbox);
        assert_eq!(said[said.len() - 2..], ["execution_success", "executing"]);
        page.closed_well();
        drop(page);
        drop(dead);
        assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status"]);
    }
}

#[test]
fn an_end_that_was_never_written_is_told_again() {
    let sessions = handle(Config::default());
    let mut page = connect(&sessions, "a");
    ends(&sessions, "a");
    page.closed_well();
    drop(page);
    assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status", "execution_success", "executing"]);
}

#[test]
fn the_newest_socket_wins_and_the_old_ones_end_takes_nothing_away() {
    let sessions = handle(Config::default());
    let old = connect(&sessions, "a");
    let new = connect(&sessions, "a");
    sessions.tell("a", event("one"));
    drop(old);
    sessions.tell("a", event("two"));
    assert_eq!(waiting(&new.outbox), ["status", "one", "two"]);
}

#[test]
fn an_older_socket_takes_over_and_is_told_what_it_missed() {
    let sessions = handle(Config::default());
    let old = connect(&sessions, "a");
    begins(&sessions, "a");
    assert_eq!(waiting(&old.outbox).len(), 4);
    let mut new = connect(&sessions, "a");
    assert_eq!(waiting(&new.outbox).len(), 4);
    sessions.tell("a", event("executed"));
    ends(&sessions, "a");
    assert_eq!(waiting(&new.outbox), ["executed", "execution_success", "executing"]);
    assert!(waiting(&old.outbox).is_empty());
    new.closed_well();
    drop(new);
    let told = waiting(&old.outbox);
    assert_eq!(told[told.len() - 3..], ["executed", "execution_success", "executing"]);
}

#[test]
fn a_second_attempt_begins_anew() {
    let sessions = handle(Config::default());
    begins(&sessions, "a");
    sessions.tell("a", event("executed"));
    let client = sessions.client("t", "a").unwrap();
    sessions.forget(&client, "p");
    assert_eq!(waiting(&connect(&sessions, "a").outbox), ["status"], "it waits");
    begins(&sessions, "a");
    let told = waiting(&connect(&sessions, "a").outbox);
    assert_eq!(told, ["status", "execution_start", "execution_cached", "executing"]);
}

#[test]
fn the_absent_cannot_fill_the_memory() {
    let sessions = handle(Config::default());
    for i in 0..5_000 {
        sessions.tell_of(&i.to_string(), "p", event("x"));
        sessions.tell_of("0", &i.to_string(), event("x"));
        sessions.tell_of("0", &i.to_string(), end("x"));
    }
    sessions.tell("0", Message::ordinary(Utf8Bytes::from("x".repeat(1 << 20))));
    for _ in 0..100 {
        sessions.tell("1", preview(2, "3", 8 << 20));
    }
    let told = waiting(&connect(&sessions, "0").outbox).len();
    assert!((65..=129).contains(&told), "{told}");
    assert_eq!(waiting(&connect(&sessions, "1").outbox).len(), 4, "three results of 8 MiB");
    assert_eq!(waiting(&connect(&sessions, "4999").outbox), ["status"], "too many were away");
    // None of this is so much that the client is cut off for it.
    assert!(connect(&sessions, "0").outbox.overflowed().now_or_never().is_none());
}
