//! Keeping what was uploaded, so that a job which needs it may run on any instance.
//!
//! What is kept is read back from the instance rather than copied on its way in: the instance chooses the name, and of a mask
//! it stores something else than it was sent. The read is local, and it ends before the client hears that its upload is done.

use axum::body::Body;
use futures_util::StreamExt;
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::Front;
use super::answer::Answer;
use super::body::percent_encoded;
use crate::comfy::json;
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

/// A name, a folder and, of later versions, an asset's description.
const MAX_REPLY: usize = 64 << 10;

impl Front {
    /// The instance's answer to an upload, passed on once the file it names is kept. A file that cannot be kept is still
    /// uploaded: its jobs then run on that instance or fail elsewhere, and the log says why.
    pub(super) async fn keep_upload(&self, instance: &InstanceId, answer: Answer) -> Answer {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let (head, body) = answer.into_parts();
        let Ok(bytes) = axum::body::to_bytes(body, MAX_REPLY).await else {
            return super::answer::text(
                StatusCode::BAD_GATEWAY,
                "the instance's answer to the upload broke off",
            );
        };
        if let Err(error) = self.keep_file(instance, &bytes).await {
            tracing::warn!(%instance, error, "an upload is known to one instance only");
        }
        Answer::from_parts(head, Body::from(bytes))
    }

    async fn keep_file(&self, instance: &InstanceId, reply: &[u8]) -> Result<(), String> {
        let file = stored(reply)?;
        // Before the read: if the instance restarts after it, what it was given counts as lost, which only costs an upload.
        let epoch = self.parts.fleet.instance(instance).map_or(0, |info| info.epoch);
        let request = view(&file)?;
        let answer = self.parts.fleet.forward(instance, request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("`{}` cannot be read back: {}", file.name, answer.status()));
        }
        let mut recording = self.parts.assets.record().await.map_err(|error| error.to_string())?;
        let mut content = answer.into_body().into_data_stream();
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            recording.write(&piece).await.map_err(|error| error.to_string())?;
        }
        let content = recording.finish(&file).await.map_err(|error| error.to_string())?;
        self.parts.assets.given(instance, epoch, &file, content).await;
        Ok(())
    }
}

/// What the answer to an upload says it became.
fn stored(reply: &[u8]) -> Result<UploadRef, String> {
    #[derive(Deserialize)]
    struct Stored {
        name: String,
        #[serde(default)]
        subfolder: String,
        #[serde(rename = "type", default)]
        kind: String,
    }
    let Stored { name, subfolder, kind } = json::parse(reply).map_err(|error| error.to_string())?;
    let kind = if kind.is_empty() { "input".to_owned() } else { kind };
    Ok(UploadRef { kind, subfolder, name })
}

/// ComfyUI looks at the last part of a name only, so its folders go into `subfolder`.
fn view(file: &UploadRef) -> Result<Request<Body>, String> {
    let path = match file.subfolder.is_empty() {
        true => file.name.clone(),
        false => format!("{}/{}", file.subfolder, file.name),
    };
    let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let [name, subfolder, kind] = [name, subfolder, &file.kind].map(percent_encoded);
    let uri = format!("/view?filename={name}&subfolder={subfolder}&type={kind}");
    Request::get(uri).body(Body::empty()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_file_is_asked_for_by_its_name() {
        let file = stored(br#"{"name":"b/a \"1\"&x=.png","subfolder":"s","type":"temp","asset":{"id":"9"}}"#)
            .unwrap();
        let uri = view(&file).unwrap().uri().to_string();
        assert_eq!(uri, "/view?filename=a%20%221%22%26x%3D.png&subfolder=s/b&type=temp");
        assert_eq!(stored(br#"{"name":"a"}"#).unwrap().kind, "input");
        assert!(stored(b"[]").is_err() && stored(b"{}").is_err());
    }
}
