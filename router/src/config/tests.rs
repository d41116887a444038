//! Configurations from all three sources, right and wrong.

use std::path::PathBuf;

use super::*;

struct World {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = vec![("XDG_STATE_HOME".to_owned(), dir.path().join("state").display().to_string())];
        Self { dir, sources: Sources { env, ..Sources::default() } }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.path("router.toml");
        std::fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, setting: Setting) -> Self {
        self.sources.flags.push(setting);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self) -> Result<Config, Mistakes> {
        Config::load(self.sources.clone())
    }

    /// The mistakes, with the directory's name taken out.
    fn mistakes(&self) -> String {
        let text = self.load().expect_err("it was taken").to_string();
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[test]
fn the_examples_are_good_where_their_files_are() {
    for example in [
        include_str!("../../../examples/configs/launch.toml"),
        include_str!("../../../examples/configs/two-gpus.toml"),
    ] {
        let here = example.replace("/opt/ComfyUI", ".");
        World::new().file(&here).load().unwrap();
    }
}

#[test]
fn what_cannot_be_launched_is_told_with_what_to_write() {
    let told = |text: &str| World::new().file(&format!("[launch]\n{text}")).mistakes();
    assert!(told("per_gpu = 2").contains("launch.command: is missing"));
    assert!(told("command = ['comfy']").contains("launch.command: does not say {port}"));
    let told = told(
        "command = ['', '{port}']\nper_gpu = 0\nvram_gib = 8\ngpus = []\nport = 0\nstop_s = 9999\ncwd = 'nowhere'",
    );
    for what in [
        "command: names no program",
        "per_gpu: 0 is not within",
        "vram_gib: is of no use",
        "port: 0 is not within",
        "stop_s: 9999 is not within",
    ] {
        assert!(told.contains(&format!("launch.{what}")), "{what}: {told}");
    }
    assert!(told.contains("launch.cwd: nowhere is not a folder"), "{told}");
    let config =
        World::new().file("[launch]\ncommand = ['comfy', '{port}']\ngpus = [0, 'GPU-1']").load().unwrap();
    let again = World::new().file(&config.show()).load().unwrap();
    assert_eq!(config.launch, again.launch);
    assert!(!World::new().load().unwrap().show().contains("launch"), "off is not shown");
}

#[test]
fn nothing_written_is_a_good_configuration() {
    let world = World::new();
    let config = world.load().unwrap();
    assert_eq!((config.listen, config.admin), (DEFAULT_LISTEN, DEFAULT_ADMIN));
    assert_eq!(config.ledger.dir, world.path("state/comfy-router"));
    assert_eq!(config.discover.ports, PortRange { first: 8188, last: 8199 });
    assert!(config.instances.is_empty());
}

#[test]
fn later_sources_win_key_by_key() {
    let world = World::new()
        .file("listen = '127.0.0.1:1'\nadmin = '127.0.0.1:2'\n[limits]\nqueue_jobs = 3\ntenant_jobs = 2\n[ledger]\ndir = 'jobs'")
        .var("COMFY_ROUTER_LISTEN", "localhost:4")
        .var("COMFY_ROUTER__LIMITS__QUEUE_JOBS", "5")
        .var("COMFY_ROUTER_INSTANCES", "http://127.0.0.1:8188, right=127.0.0.1:8189")
        .flag(Setting::text("--listen", "listen", "127.0.0.1:6"))
        .flag(Setting::parse("--set", "fleet.poll_ms=700").unwrap());
    let config = world.load().unwrap();
    assert_eq!((config.listen.port(), config.admin.port()), (6, 2));
    assert_eq!((config.limits.queue_jobs, config.limits.tenant_jobs), (5, 2));
    assert_eq!(config.fleet.poll_ms, 700);
    assert_eq!(config.ledger.dir, world.path("jobs"), "relative to the file");
    let names: Vec<_> = config.instances.iter().map(|instance| instance.name.to_string()).collect();
    assert_eq!(names, ["127.0.0.1-8188", "right"]);
}

#[test]
fn all_mistakes_are_shown_at_once_with_their_places() {
    let world = World::new()
        .file(
            "listen = 'nowhere'\n\
             colour = 'blue'\n\
             [[instance]]\n\
             url = 'https://a:1'\n\
             slotz = 2\n\
             [[instance]]\n\
             name = 'a/b'\n\
             url = 'http://127.0.0.1:8188'\n\
             slots = 0\n\
             [[instance]]\n\
             url = 'http://127.0.0.1:8188'\n\
             [[instance]]\n\
             [limits]\n\
             queue_jobs = 'many'\n\
             headers = 1\n\
             [timeouts]\n\
             run_s = 100\n\
             run_max_s = 10\n\
             [unknown]\n\
             a = 1\n\
             b = 2\n\
             [policy.limits]\n\
             deadline = 5\n",
        )
        .var("COMFY_ROUTER_LISTN", "x")
        .var("COMFY_ROUTER__FLEET__FAILURES", "0")
        .flag(Setting::text("--policy", "policy.file", "/nonexistent/policy.wasm"));
    let shown = world.mistakes();
    for (place, what) in [
        ("router.toml:1: listen: ", "`nowhere` is not an address"),
        ("router.toml:2: colour: ", "unknown field `colour`"),
        ("router.toml:4: instance[0].url: ", "does not start with http://"),
        ("router.toml:5: instance[0].slotz: ", "unknown field `slotz`"),
        ("router.toml:7: instance[1].name: ", "`a/b` is no usable name"),
        ("router.toml:9: instance[1].slots: ", "must be 1 to 64"),
        ("router.toml:11: instance[2].url: ", "is also the url of instance[1]"),
        ("router.toml:12: instance[3]: ", "has no `url`"),
        ("router.toml:14: limits.queue_jobs: ", "invalid type: string \"many\""),
        ("router.toml:15: limits.headers: ", "1 is not within"),
        ("router.toml:17: timeouts.run_s: ", "100 is more than timeouts.run_max_s"),
        ("router.toml:19: unknown: ", "unknown field `unknown`"),
        ("router.toml:23: policy.limits.deadline: ", "unknown field `deadline`"),
        ("variable COMFY_ROUTER_LISTN: ", "is not a variable of comfy-router"),
        ("variable COMFY_ROUTER__FLEET__FAILURES: fleet.failures: ", "0 is not within 1"),
        ("--policy: policy.file: ", "/nonexistent/policy.wasm is not a file"),
    ] {
        let told = shown.lines().any(|line| line.trim_start().starts_with(place) && line.contains(what));
        assert!(told, "no line `{place}…{what}` in\n{shown}");
    }
    assert!(shown.starts_with("the configuration has 17 mistakes\n"), "{shown}");
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_lines() {
    let shown = World::new().file("listen = \n[limits\nqueue_jobs = 1\n").mistakes();
    assert!(shown.contains("router.toml:1: "), "{shown}");
    assert!(shown.contains("router.toml:2: "), "{shown}");
    let mut world = World::new();
    world.sources.file = Some(world.path("absent.toml"));
    assert!(world.mistakes().contains("absent.toml: cannot be read"));
}

#[test]
fn an_open_address_needs_a_key() {
    let open = || World::new().flag(Setting::text("--listen", "listen", "0.0.0.0:7188"));
    let shown = open().mistakes();
    assert!(shown.contains("--listen: listen: 0.0.0.0:7188 can be reached from other machines"), "{shown}");
    assert!(shown.contains("set COMFY_ROUTER_API_KEY"), "{shown}");
    let config = open().var("COMFY_ROUTER_API_KEY", "0123456789abcdef").load().unwrap();
    assert_eq!(config.front.api_keys[0].key.reveal(), "0123456789abcdef");
}

#[test]
fn an_open_admin_address_needs_a_key_of_its_own() {
    let open = || {
        let world = World::new().flag(Setting::text("--admin", "admin", "0.0.0.0:7189"));
        world.var("COMFY_ROUTER_API_KEY", "0123456789abcdef")
    };
    let shown = open().mistakes();
    assert!(shown.contains("--admin: admin: 0.0.0.0:7189 can be reached from other machines"), "{shown}");
    assert!(shown.contains("set COMFY_ROUTER_ADMIN_KEY"), "a client's key is not enough: {shown}");
    let short = open().var("COMFY_ROUTER_ADMIN_KEY", "short").mistakes();
    assert!(short.contains("COMFY_ROUTER_ADMIN_KEY: admin_key: the key is shorter"), "{short}");
    for unshown in ["fedcba9876543210\n", " fedcba9876543210", "fedcba98\r76543210", "fedcba987654321\u{e9}"]
    {
        let said = open().var("COMFY_ROUTER_ADMIN_KEY", unshown).mistakes();
        assert!(said.contains("admin_key: the key has characters that no header can carry"), "{said}");
        assert!(!said.contains("fedcba"), "{said}");
        let said = World::new().var("COMFY_ROUTER_API_KEY", unshown).mistakes();
        assert!(said.contains("api_keys[0]: the key has characters"), "{said}");
    }
    let config = open().var("COMFY_ROUTER_ADMIN_KEY", "fedcba9876543210").load().unwrap();
    assert_eq!(config.admin_key.reveal(), "fedcba9876543210");
    assert!(!config.show().contains("fedcba") && config.show().contains("admin_key = \"[hidden]\""));
}

#[test]
fn keys_come_from_files_and_variables_and_are_never_shown() {
    let world = World::new().var("LEFT_KEY", "left-secret-0123456").file(
        "[[front.api_keys]]\nname = 'left'\nkey_env = 'LEFT_KEY'\n\
         [[front.api_keys]]\nname = 'right'\nkey_file = 'right.key'\n",
    );
    std::fs::write(world.path("right.key"), "right-secret-0123456\n").unwrap();
    let config = world.load().unwrap();
    let keys: Vec<_> = config.front.api_keys.iter().map(|key| key.key.reveal()).collect();
    assert_eq!(keys, ["left-secret-0123456", "right-secret-0123456"]);
    assert!(!config.show().contains("secret-0"), "{}", config.show());
    assert!(!format!("{config:?}").contains("secret-0"));

    let shown = World::new()
        .file(
            "[[front.api_keys]]\nname = 'a'\nkey = 'short'\n\
             [[front.api_keys]]\nname = 'a'\n\
             [[front.api_keys]]\nname = 'b'\nkey_env = 'UNSET'\n",
        )
        .mistakes();
    for what in
        ["[0]: the key is shorter", "[1]: has no key", "[1]: `a` is also the name", "[2]: the variable UNSET"]
    {
        assert!(shown.contains(what), "no `{what}` in {shown}");
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let world = World::new().file(
        "[[instance]]\nurl = 'http://127.0.0.1:8188'\ngpu = 1\nlabels = { room = 'left' }\n\
         [[instance]]\nname = 'b'\nurl = 'http://127.0.0.1:8189'\ngpu = 'GPU-1'\n\
         [policy.settings]\nweights = { a = 2 }\n[log]\nformat = 'json'",
    );
    let config = world.load().unwrap();
    assert_eq!(config.policy.settings["weights"]["a"], 2);
    let again = World::new().file(&config.show()).load().unwrap();
    assert_eq!(again, config);
}

#[test]
fn routes_and_outputs_are_read_and_shown() {
    let world = World::new().file(
        "[outputs]\nkeep = true\nage_s = 0\n[[route]]\nprefix = '/etn/'\nto = 'by-client'\n[[route]]\nprefix = '/x/'\nto = 'deny'",
    );
    let config = world.load().unwrap();
    assert!(config.outputs.keep && config.outputs.age_s == 0 && !config.outputs.shared);
    let routes: Vec<_> = config.routes.iter().map(|route| (route.prefix.as_str(), route.to)).collect();
    assert_eq!(routes, [("/etn/", RouteTo::ByClient), ("/x/", RouteTo::Deny)]);
    let shown = World::new().file(&config.show()).load().unwrap();
    assert_eq!(
        (shown.routes, shown.outputs),
        (config.routes, config.outputs),
        "what is shown is a file again"
    );
}

#[test]
fn a_wrong_route_or_output_is_named() {
    let world = World::new().file(
        "[outputs]\nkeep = true\nshared = true\nbytes = 5\n[[route]]\nprefix = 'etn'\n[[route]]\nprefix = '/a/'\n\
         [[route]]\nprefix = '/a/'\nto = 'deny'\n[[route]]\nprefix = '/b/'\nto = 'nowhere'",
    );
    let mistakes = world.mistakes();
    for named in
        ["outputs.keep", "outputs.bytes", "route[0].prefix", "route[2].prefix", "route[1]", "nowhere"]
    {
        assert!(mistakes.contains(named), "{named:?} is named in:\n{mistakes}");
    }
}

#[test]
fn what_an_operator_says_of_the_policy_is_read_shown_and_checked() {
    let world = World::new().file(
        "[policy]\nwindow = 64\n[policy.limits]\ncompile_s = 300\n[policy.record]\ndir = 'decisions'\nring_kib = 0\n\
         [policy.canary]\nattempts = 50\nfailures_percent = 5\nwait_percent = 20\nwait_ms = 2000\n[policy.settings]\na = 1",
    );
    let config = world.load().unwrap();
    let policy = &config.policy;
    assert_eq!((policy.window, policy.limits.compile_s, policy.record.ring_kib), (64, 300, 0));
    assert_eq!(policy.record.dir, Some(world.path("decisions")), "beside the file that names it");
    assert_eq!((policy.canary.attempts, policy.canary.failures_percent), (50, 5));
    assert_eq!((policy.canary.wait_percent, policy.canary.wait_ms), (20, 2_000));
    let again = World::new().file(&config.show()).load().unwrap();
    assert_eq!(again.policy, config.policy);

    let mistakes = World::new()
        .file(
            "[policy]\nwindow = 0\n[policy.limits]\ncompile_s = 0\n[policy.record]\nfile_mib = 0\nfiles = 0\n\
             [policy.canary]\nattempts = 0\nfailures_percent = 101\nwait_percent = 1000000\nwait_ms = 4000000",
        )
        .mistakes();
    for key in [
        "policy.window",
        "policy.limits.compile_s",
        "policy.record.file_mib",
        "policy.record.files",
        "policy.canary.attempts",
        "policy.canary.failures_percent",
        "policy.canary.wait_percent",
        "policy.canary.wait_ms",
    ] {
        assert!(mistakes.contains(&format!("{key}: ")), "{key} is named in:\n{mistakes}");
    }
}
