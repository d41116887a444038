//! Shows what the router's telemetry sees on this machine: `gpu_probe [--every MS] [--samples N] [PORT ...]`.
//! With ports, it also says which GPU the ComfyUI instance listening on each computes on. docs/gpu.md shows its output.
#![allow(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use comfy_router::clock::{Clock, SystemClock};
use comfy_router::config::Url;
use comfy_router::telemetry::{Config, DeviceReading, InstanceReading, Readings, Service, Target};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

#[derive(Debug)]
struct Args {
    every_ms: u64,
    samples: u32,
    ports: Vec<u16>,
}

fn arguments() -> anyhow::Result<Args> {
    let mut args = Args { every_ms: 1000, samples: 1, ports: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a number"));
        match word.as_str() {
            "--every" => args.every_ms = value()?.parse()?,
            "--samples" => args.samples = value()?.parse()?,
            port => match port.parse() {
                Ok(port) => args.ports.push(port),
                Err(_) => bail!("`{port}` is neither an option nor a port"),
            },
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let args = arguments()?;
    let warnings = Arc::new(AtomicUsize::new(0));
    let subscriber = tracing_subscriber::registry().with(Shown(warnings.clone()));
    tracing::subscriber::set_global_default(subscriber)?;
    let clock = Arc::new(SystemClock::default());
    let config = Config { sample_ms: args.every_ms, ..Config::default() };
    let (_service, telemetry) = Service::start(&config, clock.clone())?;
    telemetry.set_targets(args.ports.iter().enumerate().map(target).collect());
    let mut changed = telemetry.changed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut next = || {
        let patience = std::time::Duration::from_secs(10);
        let waited = runtime.block_on(async { tokio::time::timeout(patience, changed.changed()).await });
        waited.context("no sample within ten seconds")?.context("telemetry ended")
    };
    if !args.ports.is_empty() {
        // The targets themselves are news.
        next()?;
    }
    for _ in 0..args.samples {
        next()?;
        show(&telemetry.snapshot(), clock.as_ref());
    }
    println!("warnings: {}", warnings.load(Ordering::Relaxed));
    Ok(())
}

fn target((index, port): (usize, &u16)) -> Target {
    let instance = format!("port-{port}").as_str().into();
    Target { instance, index: index as u32, url: Url::new("127.0.0.1", *port), gpu: None }
}

fn show(readings: &Readings, clock: &SystemClock) {
    if readings.devices.is_empty() {
        println!("no GPU is known");
    }
    for DeviceReading { device, source, .. } in &readings.devices {
        let mib = |bytes: Option<u64>| shown(bytes.map(|bytes| bytes >> 20));
        println!("GPU {} {} ({}, {})", shown(device.index), device.name, device.uuid, source.as_str());
        println!(
            "  busy {} %, memory {} of {} MiB ({} free), SM clock {} MHz",
            shown(device.utilization_percent),
            mib(device.memory_used_bytes),
            mib(device.memory_total_bytes),
            mib(device.memory_free_bytes),
            shown(device.sm_clock_mhz)
        );
        println!(
            "  {} C, slows down at {} C; {} of {} mW; throttle reasons {}, throttled {}",
            shown(device.temperature_c),
            shown(device.slowdown_c),
            shown(device.power_mw),
            shown(device.power_limit_mw),
            shown(device.throttle_reasons.map(|reasons| format!("{reasons:#x}"))),
            shown(device.throttled())
        );
        println!("  uncorrected ECC errors {}, MIG {}", shown(device.ecc_uncorrected), shown(device.mig));
        for process in &device.processes {
            println!("  process {} holds {} MiB", process.pid, mib(process.used_bytes));
        }
    }
    readings.instances.iter().for_each(|reading| show_instance(reading, clock));
}

fn show_instance(reading: &InstanceReading, clock: &SystemClock) {
    let found = reading.found.map(|found| format!("{found:?}"));
    let gpu = reading.gpu.as_deref();
    println!("{} computes on {}, found by {}", reading.instance, shown(gpu), shown(found));
    println!("  {:?}", reading.view(clock.now().tick));
}

fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "unknown".into(), |value| value.to_string())
}

/// Prints log lines and counts the warnings.
struct Shown(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Shown {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        let level = *event.metadata().level();
        if level <= tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        println!("{level}{}", line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.0.push_str(&format!(" {value:?}")),
            name => self.0.push_str(&format!(" {name}={value:?}")),
        }
    }
}
