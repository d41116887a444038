//! Third source, for demonstrations and tests: an emulated instance tells its imagined card's figures at
//! `GET /emulator/gpu`. Off unless configured, since a real instance has no such route.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::Target;
use super::json::{MAX_BYTES, number, whole, word};
use super::reading::{Device, Found, SourceKind, Use};
use super::source::{Sample, Source, SourceError};

const MIB: u64 = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(1);

/// Has a runtime of its own on its thread: it neither waits for the router's tasks nor makes them wait.
#[derive(Debug)]
pub struct Emulated {
    runtime: Runtime,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Emulated {
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { runtime, client })
    }
}

impl Source for Emulated {
    fn kind(&self) -> SourceKind {
        SourceKind::Emulated
    }

    fn sample(&mut self, targets: &[Target]) -> Result<Sample, SourceError> {
        let ask_all = join_all(targets.iter().map(|target| ask(&self.client, target)));
        let answers = self.runtime.block_on(ask_all);
        let mut sample = Sample::default();
        let mut failure = None;
        for (target, answer) in targets.iter().zip(answers) {
            match answer {
                Ok(Some(device)) => add(&mut sample, target, device),
                Ok(None) => {}
                Err(reason) => failure = Some(format!("{}: {reason}", target.instance)),
            }
        }
        match failure {
            Some(reason) if sample.uses.is_empty() => Err(SourceError::Failed(reason)),
            _ => Ok(sample),
        }
    }
}

/// Instances may share a card; it is listed once.
fn add(sample: &mut Sample, target: &Target, device: Device) {
    let (instance, uuid) = (target.instance.clone(), device.uuid.clone());
    sample.uses.push(Use { instance, uuid, found: Found::Asked });
    if sample.devices.iter().all(|known| known.uuid != device.uuid) {
        sample.devices.push(device);
    }
}

async fn ask(
    client: &Client<HttpConnector, Empty<Bytes>>,
    target: &Target,
) -> Result<Option<Device>, String> {
    let asking = async {
        let uri = format!("http://{}/emulator/gpu", target.url.authority());
        let uri = uri.parse().map_err(|e| format!("{e}"))?;
        let response = client.get(uri).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        parse(&body.map_err(|e| e.to_string())?.to_bytes())
    };
    let late = |_| Err("no answer within a second".into());
    tokio::time::timeout(TIMEOUT, asking).await.unwrap_or_else(late)
}

/// None: the instance has no card.
fn parse(body: &[u8]) -> Result<Option<Device>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if answer.is_null() {
        return Ok(None);
    }
    let uuid = word(&answer, "uuid").ok_or("its `uuid` is no word")?;
    let memory = |key| whole(&answer, key, 1 << 30).map(|mib| mib * MIB);
    let (total, used) = (memory("memory_total_mib"), memory("memory_used_mib"));
    let used = used.map(|used| total.map_or(used, |total| used.min(total)));
    let milliwatts = |key| whole(&answer, key, 100_000_000).map(|mw| mw as u32);
    Ok(Some(Device {
        index: whole(&answer, "index", 1 << 16).map(|n| n as u32),
        memory_total_bytes: total,
        memory_used_bytes: used,
        memory_free_bytes: total.zip(used).map(|(total, used)| total - used),
        utilization_percent: number(&answer, "utilization_percent", 100.0).map(|n| n as f32),
        temperature_c: number(&answer, "temperature_c", 200.0).map(|n| n as f32),
        slowdown_c: number(&answer, "slowdown_temperature_c", 200.0).map(|n| n as f32),
        power_mw: milliwatts("power_mw"),
        power_limit_mw: milliwatts("power_limit_mw"),
        sm_clock_mhz: whole(&answer, "sm_clock_mhz", 100_000).map(|n| n as u32),
        throttle_reasons: whole(&answer, "throttle_reasons", 1 << 32),
        ..Device::new(uuid, word(&answer, "name").unwrap_or_default())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Url;

    const SOUND: &str = r#"{"uuid":"GPU-emulated-0","name":"Emulated 24G","index":0,"memory_total_mib":24576,
        "memory_used_mib":8000,"utilization_percent":97,"temperature_c":61,"slowdown_temperature_c":89,
        "power_mw":310000,"power_limit_mw":350000,"sm_clock_mhz":1900,"throttle_reasons":64}"#;

    #[test]
    fn a_card_is_read_in_base_units() {
        let device = parse(SOUND.as_bytes()).expect("parses").expect("is one");
        assert_eq!((&*device.uuid, &*device.name, device.index), ("GPU-emulated-0", "Emulated 24G", Some(0)));
        assert_eq!(device.memory_free_bytes, Some((24576 - 8000) * MIB));
        let view = device.view();
        assert_eq!((view.utilization_percent, view.slowdown_margin_c), (Some(97.0), Some(28.0)));
        assert_eq!(
            (view.power_mw, view.power_limit_mw, view.throttled),
            (Some(310_000), Some(350_000), Some(true))
        );
    }

    #[test]
    fn no_card_is_no_error() {
        assert_eq!(parse(b"null"), Ok(None));
    }

    #[test]
    fn implausible_values_are_unknown() {
        let hostile = r#"{"uuid":"GPU-1","name":"a\nb","index":-1,"memory_total_mib":100,"memory_used_mib":1e18,
            "utilization_percent":101,"temperature_c":-300,"slowdown_temperature_c":"hot","power_mw":1e30,
            "power_limit_mw":null,"sm_clock_mhz":[],"throttle_reasons":-1}"#;
        let device = parse(hostile.as_bytes()).expect("parses").expect("is one");
        let plain = Device { memory_total_bytes: Some(100 * MIB), ..Device::new("GPU-1", "") };
        assert_eq!(device, plain);
        let over = parse(br#"{"uuid":"GPU-1","memory_total_mib":10,"memory_used_mib":11}"#).expect("parses");
        assert_eq!(over.expect("is one").memory_free_bytes, Some(0));
    }

    #[test]
    fn an_answer_without_a_usable_name_is_refused() {
        let long = format!(r#"{{"uuid":"{}"}}"#, "x".repeat(97));
        for hostile in
            ["", "{", "[]", "5", "{}", r#"{"uuid":""}"#, r#"{"uuid":"a\nb"}"#, r#"{"uuid":7}"#, &long]
        {
            assert!(parse(hostile.as_bytes()).is_err(), "{hostile}");
        }
    }

    #[test]
    fn an_instance_that_is_not_there_fails_the_sample() {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one").port();
        let target =
            Target { instance: "emu0".into(), index: 0, url: Url::new("127.0.0.1", port), gpu: None };
        let error = Emulated::new().expect("starts").sample(&[target]).expect_err("nobody listens");
        assert!(matches!(&error, SourceError::Failed(reason) if reason.starts_with("emu0: ")), "{error:?}");
    }
}
