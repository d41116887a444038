//! Requests that pass through to an instance, streamed both ways.

use axum::body::Body;
use hyper::Request;

use super::Front;
use super::answer::{self, Answer};
use crate::model::id::InstanceId;

impl Front {
    /// To the first instance that is up.
    pub(super) async fn pass_home(&self, request: Request<Body>) -> Answer {
        match self.parts.fleet.home() {
            Some(home) => self.pass(&home, request).await,
            None => answer::no_instance(),
        }
    }

    pub(super) async fn pass(&self, instance: &InstanceId, request: Request<Body>) -> Answer {
        match self.parts.fleet.forward(instance, request).await {
            Ok(answer) => answer,
            Err(failed) => answer::unreachable(instance, &failed),
        }
    }
}
