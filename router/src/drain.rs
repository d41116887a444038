//! Shutdown in two steps: everyone hears the signal, then the process waits for what is still in flight.
//!
//! Owns one flag and one count. Never ends anything itself: whoever holds a [`Guard`] decides when its work is done. The
//! app holds the [`Signal`]; listeners, connections and organs hold a [`Watch`].

use std::time::Duration;

use tokio::sync::watch;

/// A new pair. The signal is not given yet and nothing is in flight.
pub fn channel() -> (Signal, Watch) {
    let (draining, _) = watch::channel(false);
    let (in_flight, _) = watch::channel(0);
    let watch = Watch { draining, in_flight };
    (Signal(watch.clone()), watch)
}

/// Starts the drain and waits for it.
#[derive(Debug, Clone)]
pub struct Signal(Watch);

/// Hears the drain and takes guards.
#[derive(Debug, Clone)]
pub struct Watch {
    draining: watch::Sender<bool>,
    in_flight: watch::Sender<usize>,
}

/// Something in flight: the drain waits until it is dropped.
#[derive(Debug)]
pub struct Guard(watch::Sender<usize>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{left} pieces of work were still in flight at the deadline")]
pub struct DeadlinePassed {
    pub left: usize,
}

impl Signal {
    /// Tells everyone. Telling again changes nothing.
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    /// Waits until every guard is dropped, for `deadline` at most.
    ///
    /// # Errors
    /// How many guards were left when the deadline passed.
    pub async fn drained(&self, deadline: Duration) -> Result<(), DeadlinePassed> {
        let mut in_flight = self.0.in_flight.subscribe();
        let empty = in_flight.wait_for(|left| *left == 0);
        match tokio::time::timeout(deadline, empty).await {
            Ok(_) => Ok(()),
            Err(_) => Err(DeadlinePassed { left: self.in_flight() }),
        }
    }

    pub fn in_flight(&self) -> usize {
        *self.0.in_flight.borrow()
    }

    pub fn watch(&self) -> Watch {
        self.0.clone()
    }
}

impl Watch {
    /// Ends when the drain begins; at once when it already has.
    pub async fn signalled(&self) {
        // The sender lives in `self`, so the wait cannot end for want of one.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub fn guard(&self) -> Guard {
        self.in_flight.send_modify(|count| *count += 1);
        Guard(self.in_flight.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn waits_for_every_guard() {
        let (signal, watch) = channel();
        let (first, second) = (watch.guard(), watch.guard());
        signal.drain();
        let waiting = signal.drained(Duration::from_secs(60));
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert_eq!(waiting.await, Ok(()));
    }

    #[tokio::test]
    async fn a_deadline_says_what_is_left() {
        let (signal, watch) = channel();
        let _held = watch.guard();
        signal.drain();
        assert_eq!(signal.drained(Duration::ZERO).await, Err(DeadlinePassed { left: 1 }));
    }

    #[tokio::test]
    async fn a_late_listener_hears_it_too() {
        let (signal, watch) = channel();
        assert!(!watch.is_draining());
        signal.drain();
        watch.clone().signalled().await;
        assert!(watch.is_draining());
    }
}
