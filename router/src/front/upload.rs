//! Uploads. They go to the home instance, which names them, and are kept, so that a job which runs elsewhere finds them
//! there. A result that is used as an input of another job is kept in the same way, under the name that clients know.
//!
//! What is kept is read back from the instance: a mask is merged with its image there, and only the instance says under
//! which name an upload is stored.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;

use super::answer::{self, Answered};
use super::{Call, Front, body};
use crate::comfy::{files, json};
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

const MAX_REPLY: usize = 1 << 20;

/// ComfyUI's answer to an upload.
#[derive(Debug, Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    subfolder: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("there is no instance {0}")]
    NoSuchInstance(InstanceId),
    #[error(transparent)]
    Forward(#[from] crate::fleet::ForwardError),
    #[error("the instance answers {0}")]
    Status(StatusCode),
    #[error("the file broke off: {0}")]
    Broken(axum::Error),
    #[error(transparent)]
    Record(#[from] crate::assets::RecordError),
    #[error("its name cannot be asked for: {0}")]
    Name(#[from] hyper::http::Error),
}

impl Front {
    pub(super) async fn upload(&self, call: Call) -> Answered {
        let Some(home) = self.parts.fleet.home() else { return Ok(answer::no_instance()) };
        let request = limited(call.request, self.limits.upload_bytes)?;
        let answer = self.pass(&home, request).await;
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let (head, reply) = answer.into_parts();
        let Ok(reply) = Limited::new(reply, MAX_REPLY).collect().await else {
            return Ok(answer::text(
                StatusCode::BAD_GATEWAY,
                "the instance's answer to the upload broke off",
            ));
        };
        let reply = reply.to_bytes();
        if let Ok(stored) = json::parse::<Stored>(&reply) {
            let file = UploadRef { kind: stored.kind, subfolder: stored.subfolder, name: stored.name };
            if let Err(error) = self.keep(&home, &file, &file).await {
                // The job can still run at home; another instance will say what it lacks.
                tracing::warn!(instance = %home, file = file.name, error = %error, "upload is not kept");
            }
        }
        // Lists of inputs changed.
        self.parts.fleet.refresh(&home);
        Ok(Response::from_parts(head, Body::new(Full::<Bytes>::from(reply))))
    }

    /// Before a job is taken: results of other instances that it reads, and how large its inputs are, in KiB.
    pub(super) async fn gather(&self, uploads: &[UploadRef]) -> u32 {
        let mut bytes = 0;
        for file in uploads {
            if self.parts.assets.path(file).is_none()
                && let (Some(instance), subfolder) = files::untag(&file.subfolder)
            {
                let there = UploadRef { subfolder: subfolder.to_owned(), ..file.clone() };
                if let Err(error) = self.keep(&instance, &there, file).await {
                    tracing::warn!(instance = %instance, file = file.name, error = %error, "result cannot be an input");
                }
            }
            if let Some(path) = self.parts.assets.path(file) {
                bytes += tokio::fs::metadata(path).await.map_or(0, |meta| meta.len());
            }
        }
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
    }

    /// Reads `there` from the instance and keeps it as `name`.
    async fn keep(
        &self,
        instance: &InstanceId,
        there: &UploadRef,
        name: &UploadRef,
    ) -> Result<(), KeepError> {
        let info =
            self.parts.fleet.instance(instance).ok_or_else(|| KeepError::NoSuchInstance(instance.clone()))?;
        let request = Request::get(view_path(there)).body(Body::empty())?;
        let answer = self.parts.fleet.forward(instance, request).await?;
        if answer.status() != StatusCode::OK {
            return Err(KeepError::Status(answer.status()));
        }
        let mut recording = self.parts.assets.record().await?;
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.map_err(KeepError::Broken)?.into_data() {
                recording.write(&piece).await?;
            }
        }
        let content = recording.finish(name).await?;
        if there == name {
            self.parts.assets.given(instance, info.epoch, name, content).await;
        }
        Ok(())
    }
}

/// ComfyUI looks at the last part of a name only, so folders in it go into `subfolder`.
pub(super) fn view_path(file: &UploadRef) -> String {
    let path = match file.subfolder.is_empty() {
        true => file.name.clone(),
        false => format!("{}/{}", file.subfolder, file.name),
    };
    let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let [name, kind, subfolder] = [name, &file.kind, subfolder].map(body::percent_encoded);
    format!("/view?filename={name}&type={kind}&subfolder={subfolder}")
}

/// An upload is streamed; the limit ends it in the middle, or before it begins when its length is announced.
fn limited(request: Request<Body>, limit: u64) -> Result<Request<Body>, answer::Failed> {
    let length = request.headers().get(hyper::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(answer::too_large(limit).into());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(request.map(|body| Body::new(http_body_util::Limited::new(body, limit))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_one_value_of_the_query() {
        let file =
            UploadRef { kind: "input".into(), subfolder: "a&type=output".into(), name: "x #?&=%.png".into() };
        assert_eq!(
            view_path(&file),
            "/view?filename=x%20%23%3F%26%3D%25.png&type=input&subfolder=a%26type%3Doutput"
        );
        let nested = UploadRef { kind: "input".into(), subfolder: "s".into(), name: "b/a.png".into() };
        assert_eq!(view_path(&nested), "/view?filename=a.png&type=input&subfolder=s/b");
        assert!(view_path(&file).parse::<hyper::Uri>().is_ok());
    }

    #[test]
    fn an_upload_that_says_it_is_too_large_is_not_begun() {
        let request = |length: &str| {
            Request::post("/upload/image").header("content-length", length).body(Body::empty()).unwrap()
        };
        assert_eq!(limited(request("101"), 100).unwrap_err().0.status(), 413);
        assert!(limited(request("100"), 100).is_ok());
        assert!(limited(request("many"), 100).is_ok());
    }
}
