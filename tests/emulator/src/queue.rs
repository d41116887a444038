//! The prompt queue and the history of a server life: Python's heap array as `/queue` shows it, one running item,
//! a `status` for each change.

use std::{
    cmp::Ordering,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use indexmap::IndexMap;
use serde_json::{Map, Number, Value, json};
use tokio::sync::Notify;

use crate::{config::Flavour, hub::Hub, life::now_ms};

const MAXIMUM_HISTORY: usize = 10_000;
const SENSITIVE: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// One accepted prompt.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) number: Number,
    pub(crate) prompt_id: String,
    pub(crate) prompt: Map<String, Value>,
    pub(crate) extra_data: Map<String, Value>,
    pub(crate) outputs: Vec<String>,
    /// Hash of the prompt as it was posted.
    pub(crate) inputs_hash: String,
}

impl Item {
    /// As `/queue` shows it. 0.3.64 shows the credentials, too.
    fn queued(&self, flavour: Flavour) -> Value {
        match flavour {
            Flavour::V0_3_64 => self.tuple(self.extra_data.clone()),
            Flavour::V0_8_0 => self.remembered(),
        }
    }

    pub(crate) fn remembered(&self) -> Value {
        let mut extra_data = self.extra_data.clone();
        extra_data.retain(|key, _| !SENSITIVE.contains(&key.as_str()));
        self.tuple(extra_data)
    }

    fn tuple(&self, extra_data: Map<String, Value>) -> Value {
        json!([self.number, self.prompt_id, self.prompt, extra_data, self.outputs])
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        self.extra_data.get("client_id").and_then(Value::as_str)
    }

    fn order(&self) -> f64 {
        self.number.as_f64().unwrap_or(0.0)
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.order().total_cmp(&other.order()).then_with(|| self.prompt_id.cmp(&other.prompt_id))
    }
}

#[derive(Debug, Default)]
struct State {
    heap: Vec<Arc<Item>>,
    running: Option<Arc<Item>>,
    history: IndexMap<String, Value>,
    counter: i64,
    last_create_time: u64,
    /// `/free` flags, honoured by the worker between prompts.
    free: Free,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) unload_models: bool,
    pub(crate) free_memory: bool,
}

/// What the worker does next.
#[derive(Debug)]
pub(crate) enum Next {
    Run(Arc<Item>),
    Free(Free),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

impl Queue {
    /// The next automatic number; rejected prompts consume one as well.
    pub(crate) fn take_number(&self, front: bool) -> i64 {
        let mut state = self.lock();
        let number = state.counter;
        state.counter += 1;
        if front { -number } else { number }
    }

    /// Milliseconds; never twice the same, so that lists sorted by it have one order.
    pub(crate) fn create_time(&self) -> u64 {
        let mut state = self.lock();
        state.last_create_time = now_ms().max(state.last_create_time + 1);
        state.last_create_time
    }

    /// False when an equal number and id is already there: Python then fails to compare, after the append.
    pub(crate) fn put(&self, item: Item, hub: &Hub) -> bool {
        let mut state = self.lock();
        let comparable = !state.heap.iter().any(|other| item.compare(other) == Ordering::Equal);
        state.heap.push(Arc::new(item));
        if comparable {
            let last = state.heap.len() - 1;
            sift_down(&mut state.heap, 0, last);
            hub.status(state.remaining());
        }
        drop(state);
        self.wake.notify_one();
        comparable
    }

    /// Waits for work, moves it to `running` and says so.
    pub(crate) async fn next(&self, hub: &Hub) -> Next {
        loop {
            if let Some(next) = self.try_next(hub) {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn try_next(&self, hub: &Hub) -> Option<Next> {
        let mut state = self.lock();
        if state.free != Free::default() {
            return Some(Next::Free(std::mem::take(&mut state.free)));
        }
        let item = heap_pop(&mut state.heap)?;
        state.running = Some(Arc::clone(&item));
        hub.status(state.remaining());
        Some(Next::Run(item))
    }

    /// Writes history first, then the `status` that shows the job gone.
    pub(crate) fn done(&self, item: &Item, entry: Value, hub: &Hub) {
        let mut state = self.lock();
        if state.history.len() > MAXIMUM_HISTORY {
            state.history.shift_remove_index(0);
        }
        state.running = None;
        state.history.shift_remove(&item.prompt_id);
        state.history.insert(item.prompt_id.clone(), entry);
        hub.status(state.remaining());
    }

    pub(crate) fn set_free(&self, unload_models: bool, free_memory: bool) {
        let mut state = self.lock();
        state.free.unload_models |= unload_models;
        state.free.free_memory |= free_memory;
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn remaining(&self) -> usize {
        self.lock().remaining()
    }

    pub(crate) fn running(&self) -> Option<Arc<Item>> {
        self.lock().running.clone()
    }

    pub(crate) fn pending(&self) -> Vec<Arc<Item>> {
        self.lock().heap.clone()
    }

    pub(crate) fn show(&self, flavour: Flavour) -> Value {
        let state = self.lock();
        let running: Vec<_> = state.running.iter().map(|item| item.queued(flavour)).collect();
        let pending: Vec<_> = state.heap.iter().map(|item| item.queued(flavour)).collect();
        json!({ "queue_running": running, "queue_pending": pending })
    }

    pub(crate) fn clear(&self, hub: &Hub) {
        let mut state = self.lock();
        state.heap.clear();
        hub.status(state.remaining());
    }

    /// Deleting the last pending item says `status` twice, as ComfyUI does.
    pub(crate) fn delete(&self, prompt_id: &str, hub: &Hub) {
        let mut state = self.lock();
        let Some(at) = state.heap.iter().position(|item| item.prompt_id == prompt_id) else { return };
        let last = state.heap.len() == 1;
        state.heap.remove(at);
        heapify(&mut state.heap);
        if last {
            hub.status(state.remaining());
        }
        hub.status(state.remaining());
    }

    pub(crate) fn history(&self, max_items: Option<i64>, offset: i64) -> Map<String, Value> {
        let state = self.lock();
        let offset = match max_items {
            Some(max) if offset < 0 => state.history.len() as i64 - max,
            _ => offset,
        };
        let mut out = Map::new();
        for (_, (id, entry)) in state.history.iter().enumerate().filter(|(at, _)| *at as i64 >= offset) {
            out.insert(id.clone(), entry.clone());
            if max_items.is_some_and(|max| out.len() as i64 >= max) {
                break;
            }
        }
        out
    }

    pub(crate) fn entry(&self, prompt_id: &str) -> Option<Value> {
        self.lock().history.get(prompt_id).cloned()
    }

    pub(crate) fn forget(&self, prompt_id: &str) {
        self.lock().history.shift_remove(prompt_id);
    }

    pub(crate) fn forget_all(&self) {
        self.lock().history.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remaining(&self) -> usize {
        self.heap.len() + usize::from(self.running.is_some())
    }
}

/// Python's `heapq._siftdown`: the array order is visible in `/queue`.
fn sift_down(heap: &mut [Arc<Item>], start: usize, mut at: usize) {
    while at > start {
        let parent = (at - 1) / 2;
        if heap[at].compare(&heap[parent]) != Ordering::Less {
            break;
        }
        heap.swap(at, parent);
        at = parent;
    }
}

/// Python's `heapq._siftup`: to the leaf first, then back.
fn sift_up(heap: &mut [Arc<Item>], start: usize) {
    let mut at = start;
    let mut child = 2 * at + 1;
    while child < heap.len() {
        let right = child + 1;
        if right < heap.len() && heap[child].compare(&heap[right]) != Ordering::Less {
            child = right;
        }
        heap.swap(at, child);
        at = child;
        child = 2 * at + 1;
    }
    sift_down(heap, start, at);
}

fn heap_pop(heap: &mut Vec<Arc<Item>>) -> Option<Arc<Item>> {
    if heap.is_empty() {
        return None;
    }
    let first = heap.swap_remove(0);
    if !heap.is_empty() {
        sift_up(heap, 0);
    }
    Some(first)
}

fn heapify(heap: &mut [Arc<Item>]) {
    for at in (0..heap.len() / 2).rev() {
        sift_up(heap, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: f64, id: &str) -> Item {
        Item {
            number: Number::from_f64(number).expect("finite"),
            prompt_id: id.into(),
            prompt: Map::new(),
            extra_data: Map::new(),
            outputs: Vec::new(),
            inputs_hash: String::new(),
        }
    }

    fn numbers(queue: &Queue) -> Vec<f64> {
        queue.pending().iter().map(|item| item.order()).collect()
    }

    #[test]
    fn the_heap_array_is_pythons() {
        let (queue, hub) = (Queue::default(), Hub::new());
        for number in [12.0, -1.0, -13.0, 2.5, -14.0] {
            assert!(queue.put(item(number, "x"), &hub));
        }
        assert_eq!(numbers(&queue), [-14.0, -13.0, -1.0, 12.0, 2.5]);
        queue.delete("none", &hub);
        assert!(matches!(queue.try_next(&hub), Some(Next::Run(first)) if first.order() == -14.0));
        assert_eq!(numbers(&queue), [-13.0, 2.5, -1.0, 12.0]);
    }

    #[test]
    fn front_counts_down_and_zero_stays() {
        let queue = Queue::default();
        assert_eq!([queue.take_number(true), queue.take_number(true), queue.take_number(false)], [0, -1, 2]);
    }

    #[test]
    fn history_slices_from_the_end_or_the_offset() {
        let (queue, hub) = (Queue::default(), Hub::new());
        for id in ["a", "b", "c"] {
            queue.done(&item(0.0, id), json!({}), &hub);
        }
        let ids = |max, offset| queue.history(max, offset).keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(Some(2), -1), ["b", "c"]);
        assert_eq!(ids(Some(1), 1), ["b"]);
        assert_eq!(ids(Some(0), -1), Vec::<String>::new());
        assert_eq!(ids(Some(0), 0), ["a"]);
        assert_eq!(ids(None, -1), ["a", "b", "c"]);
    }

    #[test]
    fn equal_number_and_id_cannot_be_compared() {
        let (queue, hub) = (Queue::default(), Hub::new());
        assert!(queue.put(item(1.0, "a"), &hub));
        assert!(!queue.put(item(1.0, "a"), &hub));
        assert_eq!(queue.remaining(), 2);
    }
}
