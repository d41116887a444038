//! Whether a websocket that is open still hears its instance.
//!
//! ComfyUI forgets a sid when the *older* of two connections under it ends, and the newer one then stays open and silent for
//! ever. But it tells every socket that it remembers of each change of its queue. So one that a look at the queue shows and
//! the socket keeps quiet about tells that the socket is deaf.

use std::time::{Duration, Instant};

use super::calls::QueueSnapshot;

/// A message may be on its way for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of one socket.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    heard: Option<Instant>,
    /// The last look: when the queue was asked for, and what it was.
    seen: Option<(Instant, QueueSnapshot)>,
    owed: Option<Instant>,
}

impl Hearing {
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.owed = None;
    }

    /// Notes the queue as it was after it was `asked` for; true if the socket is deaf.
    pub(super) fn is_deaf(&mut self, queue: &QueueSnapshot, asked: Instant, now: Instant) -> bool {
        // Whatever tells of a change since the look before came after that look had asked.
        let untold = |(before, seen): &(Instant, QueueSnapshot)| {
            seen != queue && self.heard.is_none_or(|heard| heard < *before)
        };
        if self.seen.as_ref().is_some_and(untold) {
            self.owed.get_or_insert(now);
        }
        self.seen = Some((asked, queue.clone()));
        self.owed.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(20);

    struct World(Hearing, Instant);

    impl World {
        /// A look that takes its time.
        fn is_deaf(&mut self, ms: u64, running: &str) -> bool {
            let queue = QueueSnapshot { running: vec![running.into()], pending: Vec::new() };
            let asked = self.1 + Duration::from_millis(ms);
            self.0.is_deaf(&queue, asked, asked + LOOK)
        }

        fn heard(&mut self, ms: u64) {
            self.0.heard(self.1 + Duration::from_millis(ms));
        }
    }

    fn world() -> World {
        World(Hearing::default(), Instant::now())
    }

    #[test]
    fn a_change_that_nothing_is_heard_of_is_owed_for_a_while() {
        let mut world = world();
        world.heard(0);
        assert!(!world.is_deaf(5, "a"), "what was there when it connected");
        assert!(!world.is_deaf(60_000, "a"), "nothing changed, nothing is owed");
        assert!(!world.is_deaf(61_000, "b"), "the message may be on its way");
        assert!(!world.is_deaf(62_000, "b"));
        assert!(world.is_deaf(63_000, "b"));
    }

    #[test]
    fn a_message_pays_however_it_falls_between_the_looks() {
        let mut world = world();
        world.is_deaf(0, "a");
        world.is_deaf(1_000, "b");
        world.heard(1_050);
        assert!(!world.is_deaf(5_000, "b"), "it came after the look that shows the change");
        world.heard(5_010);
        world.is_deaf(6_000, "c");
        assert!(!world.is_deaf(9_000, "c"), "it overtook the look that was on its way");
    }
}
