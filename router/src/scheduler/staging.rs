//! Staging: the uploads that [`assets`] keeps are given to instances by the fleet. The two are siblings and know nothing of each
//! other, so they meet here.

use std::path::Path;

use crate::model::id::InstanceId;
use crate::model::job::UploadRef;
use crate::{assets, fleet};

impl assets::Uploader for fleet::Handle {
    fn epoch(&self, instance: &InstanceId) -> u64 {
        self.instance(instance).map_or(0, |info| info.epoch)
    }

    async fn upload(&self, instance: &InstanceId, file: &UploadRef, source: &Path) -> Result<(), String> {
        fleet::Handle::upload(self, instance, file, source).await.map_err(|error| error.to_string())
    }
}
