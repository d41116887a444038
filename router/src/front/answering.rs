//! Clients whose prompt is being answered: what is said of the prompt waits until they have the answer.
//!
//! Some clients start to listen for a prompt's events when they have its id (@stable-canvas/comfyui-client does) and would
//! wait for ever for an end that they were told of before. A ComfyUI is slow enough for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From the answer to the first event; a ComfyUI takes 3 to 12 ms.
const GRACE: Duration = Duration::from_millis(10);
/// Events wait no longer than this, however long an answer takes.
const PATIENCE: Duration = Duration::from_millis(250);
/// Clients remembered before those who are long past are forgotten.
const CROWD: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Answering {
    clients: Mutex<HashMap<Arc<str>, Client>>,
    /// How many there are, to be asked without the lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Client {
    under_way: usize,
    quiet_until: Instant,
}

/// One prompt that is being answered; dropped with the answer.
#[derive(Debug)]
pub(super) struct Post<'a>(&'a Answering, Arc<str>);

impl Answering {
    pub(super) fn begin(&self, sid: &str) -> Post<'_> {
        self.begin_at(sid, Instant::now())
    }

    fn begin_at(&self, sid: &str, now: Instant) -> Post<'_> {
        let sid: Arc<str> = sid.into();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CROWD {
            clients.retain(|_, client| client.under_way > 0 || client.quiet_until > now);
        }
        let client = clients.entry(sid.clone()).or_insert_with(|| Client { under_way: 0, quiet_until: now });
        client.under_way += 1;
        self.count.store(clients.len(), Ordering::Relaxed);
        Post(self, sid)
    }

    fn end(&self, sid: &str, now: Instant) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(sid) {
            client.under_way -= 1;
            client.quiet_until = now + GRACE;
        }
    }

    /// Returns when nothing that this client posted is being answered, and it has had time to read the answer.
    pub(super) async fn settled(&self, sid: &str) {
        let latest = Instant::now() + PATIENCE;
        while let Some(again) = self.quiet(sid, Instant::now())
            && again.min(latest) > Instant::now()
        {
            tokio::time::sleep_until(again.min(latest)).await;
        }
    }

    /// When to look again; none if there is nothing to wait for.
    fn quiet(&self, sid: &str, now: Instant) -> Option<Instant> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.get(sid)?;
        if client.under_way > 0 {
            return Some(now + GRACE);
        }
        if client.quiet_until > now {
            return Some(client.quiet_until);
        }
        clients.remove(sid);
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

    #[test]
    fn events_wait_for_the_answer_and_a_moment_more() {
        let (answering, now) = (Answering::default(), Instant::now());
        assert_eq!(answering.quiet("a", now), None);
        let post = answering.begin_at("a", now);
        assert_eq!(answering.quiet("b", now), None, "another client");
        assert!(answering.quiet("a", now + GRACE * 5).is_some(), "no answer yet");
        answering.end(&post.1, now);
        std::mem::forget(post);
        assert_eq!(answering.quiet("a", now), Some(now + GRACE));
        assert_eq!(answering.quiet("a", now + GRACE), None);
        assert!(answering.clients.lock().unwrap().is_empty(), "and is forgotten");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_holds_nothing_up_for_ever() {
        let answering = Answering::default();
        let _post = answering.begin("a");
        let begun = Instant::now();
        answering.settled("a").await;
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[test]
    fn clients_without_a_socket_are_forgotten_too() {
        let (answering, now) = (Answering::default(), Instant::now() + GRACE);
        for at in 0..CROWD * 3 {
            drop(answering.begin_at(&at.to_string(), now + GRACE * u32::try_from(at).unwrap()));
        }
        assert!(answering.clients.lock().unwrap().len() <= CROWD);
    }
}
