//! The one worker of a server life: takes a prompt, runs it, writes history, says so. One prompt at a time.

pub(crate) mod cache;
pub(crate) mod execution;
mod order;
mod progress;

use std::sync::{Arc, PoisonError};

use serde_json::json;

use crate::{
    control::{fault::Moment, oracle::Outcome},
    life::Life,
    queue::{Free, Item, Next},
};
use execution::Execution;

pub(crate) async fn work(life: Arc<Life>) {
    loop {
        life.checkpoint().await;
        let next = tokio::select! {
            biased;
            () = life.worker_died() => return,
            next = life.queue.next(&life.hub) => next,
        };
        match next {
            Next::Free(free) => release(&life, free),
            Next::Run(item) => run(&life, item).await,
        }
    }
}

async fn run(life: &Arc<Life>, item: Arc<Item>) {
    life.checkpoint().await;
    let client = item.client_id().map(str::to_owned);
    let mut execution = Execution::begin(Arc::clone(life), Arc::clone(&item));
    execution.run().await;
    let outcome = execution.outcome();
    if outcome == Outcome::Success {
        life.reach(Moment::Succeeded).await;
    }
    let (order, entry) = (execution.order(), execution.into_history());
    life.queue.done(&item, entry, &life.hub);
    life.machine.oracle.ended(order, outcome);
    if let Some(client) = client {
        life.hub.send(Some(&client), "executing", &json!({ "node": null, "prompt_id": item.prompt_id }));
    }
    life.reach(Moment::Ended).await;
}

/// `/free`: models leave the card; `free_memory` forgets node results as well.
fn release(life: &Life, free: Free) {
    if (free.unload_models || free.free_memory)
        && let Some(gpu) = &life.machine.gpu
    {
        gpu.unload(life.machine.owner, |_| true);
    }
    if free.free_memory {
        life.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
