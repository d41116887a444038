//! How faces talk to the scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::model::decision::Act;
use crate::model::event::Standing;
use crate::model::id::JobId;
use crate::model::job::{Job, JobState, Number};

use super::core::Explanation;
use super::input::{Change, ChangeRefused, Input, InstanceReport, Refusal, Reply, RequestId, Scope, Target};

/// What the driver is sent.
#[derive(Debug)]
pub(super) enum Message {
    Request { make: Ask, reply: oneshot::Sender<Reply> },
    Look(Look),
    Input(Box<Input>),
}

/// A request still without its number.
#[derive(Debug)]
pub(super) enum Ask {
    Submit(Box<Job>),
    Delete(Vec<String>, Scope),
    Clear(Scope),
    Interrupt(Target),
    Cancel(Vec<String>, Scope),
    Change(String, Change),
}

impl Ask {
    pub(super) fn numbered(self, request: RequestId) -> Input {
        match self {
            Self::Submit(job) => Input::Submit { request, job },
            Self::Delete(prompt_ids, scope) => Input::Delete { request, prompt_ids, scope },
            Self::Cancel(prompt_ids, scope) => Input::Cancel { request, prompt_ids, scope },
            Self::Change(prompt_id, change) => Input::Change { request, prompt_id, change },
            Self::Clear(scope) => Input::Clear { request, scope },
            Self::Interrupt(target) => Input::Interrupt { request, target },
        }
    }
}

/// Questions about the present state.
#[derive(Debug)]
pub(super) enum Look {
    Queue(oneshot::Sender<Arc<QueueView>>),
    Find(String, oneshot::Sender<Option<(Arc<Job>, bool)>>),
    Fleet(oneshot::Sender<Vec<InstanceReport>>),
    State(JobId, oneshot::Sender<Option<JobState>>),
    Why(JobId, oneshot::Sender<Option<Explanation>>),
}

/// The open jobs.
#[derive(Debug, Default, Clone)]
pub struct QueueView {
    /// In order of acceptance.
    pub running: Vec<Arc<Job>>,
    /// In the order in which they would run now.
    pub pending: Vec<Arc<Job>>,
}

#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) remaining: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler has stopped")]
pub struct Stopped;

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A prompt that is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub prompt_id: String,
    pub number: Number,
    /// `node_errors` of the earlier request that this one repeats.
    pub known: Option<String>,
}

impl Handle {
    /// Take a prompt. When this returns `Ok`, it is durable.
    pub async fn submit(&self, job: Job) -> Result<Accepted, SubmitError> {
        match self.request(Ask::Submit(Box::new(job))).await? {
            Reply::Accepted { prompt_id, number, known } => Ok(Accepted { prompt_id, number, known }),
            Reply::Refused(refusal) => Err(refusal.into()),
            Reply::Done { .. } | Reply::Changed(_) | Reply::NotChanged(_) => Err(Stopped.into()),
        }
    }

    /// Remove waiting jobs; running and unknown ones, and those that the scope does not cover, are left alone. Says how
    /// many went.
    pub async fn delete(&self, prompt_ids: Vec<String>, scope: Scope) -> Result<usize, Stopped> {
        self.affected(Ask::Delete(prompt_ids, scope)).await
    }

    /// Remove the waiting and interrupt the running ones of these jobs, as far as the scope covers them. Says how many.
    pub async fn cancel(&self, prompt_ids: Vec<String>, scope: Scope) -> Result<usize, Stopped> {
        self.affected(Ask::Cancel(prompt_ids, scope)).await
    }

    /// Another standing for a waiting job. When this returns `Ok`, it is durable.
    pub async fn change(&self, prompt_id: String, change: Change) -> Result<Standing, ChangeError> {
        match self.request(Ask::Change(prompt_id, change)).await? {
            Reply::Changed(standing) => Ok(*standing),
            Reply::NotChanged(refused) => Err(refused.into()),
            Reply::Accepted { .. } | Reply::Refused(_) | Reply::Done { .. } => Err(Stopped.into()),
        }
    }

    pub async fn clear(&self, scope: Scope) -> Result<usize, Stopped> {
        self.affected(Ask::Clear(scope)).await
    }

    /// Interrupt running jobs; says how many were told to stop.
    pub async fn interrupt(&self, target: Target) -> Result<usize, Stopped> {
        self.affected(Ask::Interrupt(target)).await
    }

    pub async fn queue(&self) -> Result<Arc<QueueView>, Stopped> {
        self.look(Look::Queue).await
    }

    /// The open job of this prompt id, and whether it runs.
    pub async fn find(&self, prompt_id: &str) -> Result<Option<(Arc<Job>, bool)>, Stopped> {
        let prompt_id = prompt_id.to_owned();
        self.look(|reply| Look::Find(prompt_id, reply)).await
    }

    /// By instance index.
    pub async fn fleet(&self) -> Result<Vec<InstanceReport>, Stopped> {
        self.look(Look::Fleet).await
    }

    /// None when it is over or never was.
    pub async fn state(&self, job: JobId) -> Result<Option<JobState>, Stopped> {
        self.look(|reply| Look::State(job, reply)).await
    }

    /// Why an open job is where it is; none when it is over or never was.
    pub async fn explain(&self, job: JobId) -> Result<Option<Explanation>, Stopped> {
        self.look(|reply| Look::Why(job, reply)).await
    }

    /// Jobs that are not over.
    pub fn remaining(&self) -> usize {
        self.remaining.load(Ordering::Relaxed)
    }

    pub async fn operate(&self, index: usize, act: Act) -> Result<(), Stopped> {
        self.send(Message::Input(Box::new(Input::Operate { index, act }))).await
    }

    /// No new prompts and no new attempts from now on.
    pub async fn drain(&self) -> Result<(), Stopped> {
        self.send(Message::Input(Box::new(Input::Drain))).await
    }

    async fn affected(&self, ask: Ask) -> Result<usize, Stopped> {
        match self.request(ask).await? {
            Reply::Done { affected } => Ok(affected),
            _ => Err(Stopped),
        }
    }

    async fn request(&self, make: Ask) -> Result<Reply, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Request { make, reply }).await?;
        answer.await.map_err(|_| Stopped)
    }

    async fn look<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Look) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look(make(reply))).await?;
        answer.await.map_err(|_| Stopped)
    }

    async fn send(&self, message: Message) -> Result<(), Stopped> {
        self.messages.send(message).await.map_err(|_| Stopped)
    }
}
