//! `/view`: files, from the instance that has them.

use axum::body::Body;
use hyper::{Request, StatusCode, Uri};

use super::answer::{self, Answered};
use super::{Call, Front, body};
use crate::comfy::files;
use crate::model::event::OutputFile;
use crate::model::id::InstanceId;

impl Front {
    /// A tagged subfolder names the instance. For any other the ledger knows which instance wrote the file last; what
    /// it does not know, inputs above all, is the home instance's.
    pub(super) async fn view(&self, call: Call) -> Answered {
        let query = call.query();
        let get = |name: &str| body::value(&query, name).unwrap_or_default();
        let (tagged, subfolder) = files::untag(get("subfolder"));
        if let Some(instance) = tagged {
            if self.parts.fleet.instance(&instance).is_none() {
                return Ok(answer::status(StatusCode::NOT_FOUND));
            }
            let subfolder = subfolder.to_owned();
            return Ok(self.pass(&instance, with_subfolder(call.request, &subfolder)).await);
        }
        let kind = Some(get("type")).filter(|kind| !kind.is_empty()).unwrap_or("output");
        let file =
            OutputFile { kind: kind.into(), subfolder: subfolder.into(), filename: get("filename").into() };
        match self.located(&file).await {
            Some(instance) => Ok(self.pass(&instance, call.request).await),
            None => Ok(self.pass_home(call.request).await),
        }
    }

    async fn located(&self, file: &OutputFile) -> Option<InstanceId> {
        if file.kind == "input" || file.filename.is_empty() {
            return None;
        }
        let found = self.parts.ledger.locate(file).await;
        let found =
            found.inspect_err(|error| tracing::warn!(error = %error, "file could not be located")).ok()??;
        self.parts.fleet.instance(&found).map(|info| info.id)
    }
}

/// The request with another `subfolder`, everything else as the client wrote it.
fn with_subfolder(mut request: Request<Body>, subfolder: &str) -> Request<Body> {
    let query = request.uri().query().unwrap_or_default();
    let is_subfolder = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        body::percent_decoded(name, true) == "subfolder"
    };
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !is_subfolder(pair)).map(str::to_owned).collect();
    pairs.push(format!("subfolder={}", body::percent_encoded(subfolder)));
    if let Ok(uri) = format!("{}?{}", request.uri().path(), pairs.join("&")).parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subfolder_is_replaced_and_nothing_else() {
        let request = |query: &str| Request::get(format!("/api/view?{query}")).body(Body::empty()).unwrap();
        let uri = |query: &str, subfolder: &str| with_subfolder(request(query), subfolder).uri().to_string();
        assert_eq!(
            uri("filename=a%20b.png&subfolder=~gpu0%2Fx%20y&type=output&rand=0.1", "x y"),
            "/api/view?filename=a%20b.png&type=output&rand=0.1&subfolder=x%20y"
        );
        assert_eq!(
            uri("%73ubfolder=~gpu0&filename=a&subfolder=~gpu1", ""),
            "/api/view?filename=a&subfolder="
        );
    }
}
