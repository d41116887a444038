//! Clients whose prompt is being answered: what tells of a job's beginning or end waits until they have the answer.
//!
//! Some clients start to listen for a prompt's events when they have its id (@stable-canvas/comfyui-client does) and would
//! wait for ever for an end that they were told of before. A ComfyUI is slow enough for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::sessions::Client;

/// From the answer to the first event; a ComfyUI takes 3 to 12 ms.
const GRACE: Duration = Duration::from_millis(10);
/// Events wait no longer than this, however long an answer takes.
const PATIENCE: Duration = Duration::from_millis(100);
/// Clients remembered before those who are long past are forgotten.
const CROWD: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Answering {
    clients: Mutex<HashMap<Client, State>>,
    /// How many there are, to be asked without the lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    quiet_until: Instant,
}

/// When to look again.
#[derive(Debug, PartialEq)]
enum Quiet {
    /// Something is being answered.
    LookAgain(Instant),
    /// Everything posted so far is answered, and read by then.
    Until(Instant),
}

/// One prompt that is being answered; dropped with the answer.
#[derive(Debug)]
pub(super) struct Post<'a>(&'a Answering, Client);

impl Answering {
    pub(super) fn begin(&self, client: Client) -> Post<'_> {
        self.begin_at(client, Instant::now())
    }

    fn begin_at(&self, client: Client, now: Instant) -> Post<'_> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CROWD {
            clients.retain(|_, state| state.under_way > 0 || state.quiet_until > now);
        }
        let state = clients.entry(client.clone()).or_insert_with(|| State { under_way: 0, quiet_until: now });
        state.under_way += 1;
        self.count.store(clients.len(), Ordering::Relaxed);
        Post(self, client)
    }

    fn end(&self, client: &Client, now: Instant) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = clients.get_mut(client) {
            state.under_way -= 1;
            state.quiet_until = now + GRACE;
        }
    }

    /// Returns when what this client has posted so far is answered, and it has had time to read the answers.
    pub(super) async fn settled(&self, client: &Client) {
        let latest = Instant::now() + PATIENCE;
        loop {
            match self.quiet(client, Instant::now()) {
                None => return,
                Some(Quiet::Until(then)) => return tokio::time::sleep_until(then.min(latest)).await,
                Some(Quiet::LookAgain(_)) if Instant::now() >= latest => return,
                Some(Quiet::LookAgain(then)) => tokio::time::sleep_until(then.min(latest)).await,
            }
        }
    }

    /// None if there is nothing to wait for.
    fn quiet(&self, client: &Client, now: Instant) -> Option<Quiet> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let state = clients.get(client)?;
        if state.under_way > 0 {
            return Some(Quiet::LookAgain(now + GRACE));
        }
        if state.quiet_until > now {
            return Some(Quiet::Until(state.quiet_until));
        }
        clients.remove(client);
        self.count.store(clients.len(), Ordering::Relaxed);
        None
    }
}

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.0.end(&self.1, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions;

    fn client(sid: &str) -> Client {
        sessions::Service::new(sessions::Config::default()).1.client("t", sid).unwrap()
    }

    #[test]
    fn events_wait_for_the_answer_and_a_moment_more() {
        let (answering, now, a) = (Answering::default(), Instant::now(), client("a"));
        assert_eq!(answering.quiet(&a, now), None);
        let post = answering.begin_at(a.clone(), now);
        assert_eq!(answering.quiet(&client("b"), now), None, "another client");
        let later = now + GRACE * 5;
        assert_eq!(answering.quiet(&a, later), Some(Quiet::LookAgain(later + GRACE)), "no answer yet");
        answering.end(&post.1, now);
        std::mem::forget(post);
        assert_eq!(answering.quiet(&a, now), Some(Quiet::Until(now + GRACE)));
        assert_eq!(answering.quiet(&a, now + GRACE), None);
        assert!(answering.clients.lock().unwrap().is_empty(), "and is forgotten");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_holds_nothing_up_for_ever() {
        let answering = Answering::default();
        let _post = answering.begin(client("a"));
        let begun = Instant::now();
        answering.settled(&client("a")).await;
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[test]
    fn clients_without_a_socket_are_forgotten_too() {
        let (answering, now) = (Answering::default(), Instant::now() + GRACE);
        for at in 0..CROWD * 3 {
            let then = now + GRACE * u32::try_from(at).unwrap();
            drop(answering.begin_at(client(&at.to_string()), then));
        }
        assert!(answering.clients.lock().unwrap().len() <= CROWD);
    }
}
