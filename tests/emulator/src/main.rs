//! One emulated ComfyUI as a process of its own, for tests that kill it and for the demo.

use comfyui_emulator::{Config, CrashMode, Emulator, Flavour, GpuSpec, Host, Models, Timing};

mod args {
    //! Raw arguments; what they mean is decided in `config`.

    use std::path::PathBuf;

    use clap::Parser;

    /// A ComfyUI server without the models.
    #[derive(Debug, Parser)]
    #[command(version)]
    pub(super) struct Args {
        /// ComfyUI release to imitate: 0.3.64 or 0.8.0.
        #[arg(long, default_value = "0.8.0")]
        pub(super) flavour: super::Flavour,
        /// Port on 127.0.0.1, 0 for any.
        #[arg(long, default_value_t = 0)]
        pub(super) port: u16,
        /// Folder for input, output, temp and user files; a temporary one if absent.
        #[arg(long)]
        pub(super) dir: Option<PathBuf>,
        /// Service times as on real hardware, divided by this factor; without it no time passes.
        #[arg(long, value_name = "SPEED")]
        pub(super) realistic: Option<f64>,
        /// Index of the emulated GPU; a CPU instance if absent.
        #[arg(long)]
        pub(super) gpu: Option<u32>,
        #[arg(long, requires = "gpu")]
        pub(super) gpu_uuid: Option<String>,
        #[arg(long, requires = "gpu", default_value = "NVIDIA Emulated")]
        pub(super) gpu_name: String,
        #[arg(long, requires = "gpu", default_value_t = 24_564)]
        pub(super) vram_mib: u64,
        /// Page cache of the emulated box.
        #[arg(long, default_value_t = 49_152)]
        pub(super) page_cache_mib: u64,
        /// A model file as FOLDER/NAME or FOLDER/NAME:MIB, repeatable; a standard set if none is given.
        #[arg(long = "model", value_name = "FOLDER/NAME[:MIB]")]
        pub(super) models: Vec<String>,
        /// No model files at all.
        #[arg(long, conflicts_with = "models")]
        pub(super) no_models: bool,
        /// A custom node class (image in, image out) to add, repeatable.
        #[arg(long = "node", value_name = "CLASS")]
        pub(super) nodes: Vec<String>,
        /// A node class to remove, repeatable.
        #[arg(long = "without", value_name = "CLASS")]
        pub(super) without: Vec<String>,
        #[arg(long, default_value_t = 100.0)]
        pub(super) max_upload_size_mib: f64,
        #[arg(long)]
        pub(super) no_preview: bool,
        #[arg(long, default_value_t = 0)]
        pub(super) seed: u64,
        /// File to which every execution is appended before it starts.
        #[arg(long)]
        pub(super) oracle: Option<PathBuf>,
        /// Folder of the stock page (`static` of comfyui-frontend-package), served as ComfyUI serves it.
        #[arg(long, value_name = "DIR")]
        pub(super) web_root: Option<PathBuf>,
    }
}

fn models(args: &args::Args) -> anyhow::Result<Models> {
    if args.models.is_empty() {
        return Ok(if args.no_models { Models::none() } else { Models::standard() });
    }
    args.models.iter().try_fold(Models::none(), |models, text| {
        let (folder, file) =
            text.split_once('/').ok_or_else(|| anyhow::anyhow!("model {text:?} is not FOLDER/NAME"))?;
        let (name, size) = file.rsplit_once(':').unwrap_or((file, "1000"));
        Ok(models.with(folder, name, size.parse()?))
    })
}

fn config(args: args::Args) -> anyhow::Result<Config> {
    let gpu = args.gpu.map(|index| {
        let spec =
            GpuSpec { name: args.gpu_name.clone(), memory_total_mib: args.vram_mib, ..GpuSpec::new(index) };
        match &args.gpu_uuid {
            Some(uuid) => GpuSpec { uuid: uuid.clone(), ..spec },
            None => spec,
        }
    });
    let image_class = serde_json::json!({
        "input": { "required": { "image": ["IMAGE"] } },
        "output": ["IMAGE"],
    });
    Ok(Config {
        models: models(&args)?,
        flavour: args.flavour,
        port: args.port,
        dir: args.dir,
        timing: args.realistic.map_or(Timing::Canned, |speed| Timing::Realistic { speed }),
        gpu,
        extra_nodes: args.nodes.into_iter().map(|name| (name, image_class.clone())).collect(),
        removed_nodes: args.without,
        max_upload_size: (args.max_upload_size_mib * f64::from(1 << 20)).round() as u64,
        preview: !args.no_preview,
        seed: args.seed,
        host: Some(Host::new(args.page_cache_mib)),
        oracle: args.oracle,
        crash_mode: CrashMode::AbortProcess,
        web_root: args.web_root,
        ..Config::default()
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = <args::Args as clap::Parser>::parse();
    let emulator = Emulator::start(config(args)?).await?;
    announce(&emulator.url());
    tokio::signal::ctrl_c().await?;
    emulator.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the line that parents wait for")]
fn announce(url: &str) {
    println!("listening on {url}");
}
