//! Requests that pass through to one instance or several, streamed both ways.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, StatusCode};

use super::answer::{self, Answer, Answered};
use super::{Call, Front, body, inert};
use crate::fleet::InstanceInfo;
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

    /// To one instance after the other, until one has what is asked for.
    pub(super) async fn found(&self, call: Call) -> Answered {
        let for_image = inert::is_for_image(call.request.headers());
        Ok(inert::file(self.first_found(call.request).await, for_image))
    }

    pub(super) async fn first_found(&self, request: Request<Body>) -> Answer {
        let (head, _) = request.into_parts();
        let mut last = answer::no_instance();
        for info in self.parts.fleet.instances().iter().filter(|info| info.is_up()) {
            last = self.pass(&info.id, Request::from_parts(head.clone(), Body::empty())).await;
            if last.status() != StatusCode::NOT_FOUND && !last.status().is_server_error() {
                break;
            }
        }
        last
    }

    /// To the instance that this client's requests always go to; to another while that is down.
    pub(super) async fn by_client(&self, call: Call) -> Answer {
        let query = call.query();
        let named = ["clientId", "client_id", "sid"].iter().find_map(|name| body::value(&query, name));
        let client = (call.caller.tenant.as_str(), named.unwrap_or_default());
        let instances = self.parts.fleet.instances();
        match chosen(&instances, &client) {
            Some(instance) => self.pass(&instance.id, call.request).await,
            None => answer::no_instance(),
        }
    }

    /// To every instance that is up. The client gets the home instance's answer.
    pub(super) async fn broadcast(&self, call: Call) -> Answered {
        let instances = self.parts.fleet.instances();
        let up: Vec<_> = instances.iter().filter(|info| info.is_up()).map(|info| info.id.clone()).collect();
        let Some((home, others)) = up.split_first() else { return Ok(answer::no_instance()) };
        // A socket has one end.
        if others.is_empty() || call.request.headers().contains_key(UPGRADE) {
            return Ok(self.pass(home, call.request).await);
        }
        let (mut head, request_body) = call.request.into_parts();
        let spool = self.spooled(request_body).await?;
        if head.headers.remove(TRANSFER_ENCODING).is_some() || spool.bytes() > 0 {
            head.headers.insert(CONTENT_LENGTH, spool.bytes().into());
        }
        let request = async || {
            let body = if spool.bytes() == 0 { Body::empty() } else { spool.body().await? };
            Ok::<_, std::io::Error>(Request::from_parts(head.clone(), body))
        };
        let told = others.iter().map(async |instance| match request().await {
            Ok(request) => self.told(instance, request).await,
            Err(error) => tracing::warn!(%instance, %error, "instance could not be told"),
        });
        let answered = async {
            match request().await {
                Ok(request) => self.pass(home, request).await,
                Err(error) => answer::text(StatusCode::INSUFFICIENT_STORAGE, &error.to_string()),
            }
        };
        Ok(futures_util::future::join(answered, join_all(told)).await.0)
    }

    /// The body on disk, so that it can be sent more than once.
    async fn spooled(&self, request_body: Body) -> Result<crate::assets::Spool, answer::Failed> {
        let limit = usize::try_from(self.limits.upload_bytes).unwrap_or(usize::MAX);
        let mut request_body = Limited::new(request_body, limit);
        let full = |error: crate::assets::RecordError| {
            answer::text(StatusCode::INSUFFICIENT_STORAGE, &error.to_string())
        };
        let mut recording = self.parts.assets.record().await.map_err(full)?;
        while let Some(frame) = request_body.frame().await {
            let frame = frame.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
                true => answer::too_large(self.limits.upload_bytes),
                false => answer::text(StatusCode::BAD_REQUEST, "the request body broke off"),
            })?;
            if let Ok(piece) = frame.into_data() {
                recording.write(&piece).await.map_err(full)?;
            }
        }
        Ok(recording.spool().await.map_err(full)?)
    }

    async fn told(&self, instance: &InstanceId, request: Request<Body>) {
        const MOST: usize = 1 << 20;
        let path = request.uri().path().to_owned();
        match self.parts.fleet.forward(instance, request).await {
            Ok(answer) => {
                let status = answer.status();
                // Read to its end, so that the connection can be used again.
                let _ = Limited::new(answer.into_body(), MOST).collect().await;
                if !status.is_success() {
                    tracing::warn!(%instance, path, status = status.as_u16(), "instance refused what all were told");
                }
            }
            Err(error) => tracing::warn!(%instance, path, %error, "instance could not be told"),
        }
    }
}

/// Rendezvous hashing: when an instance goes or comes, only its own clients move.
fn chosen<'a>(instances: &'a [InstanceInfo], client: &impl Hash) -> Option<&'a InstanceInfo> {
    let weight = |info: &&InstanceInfo| {
        let mut hasher = DefaultHasher::new();
        (info.id.as_str(), client).hash(&mut hasher);
        hasher.finish()
    };
    instances.iter().filter(|info| info.is_up()).max_by_key(weight)
}
