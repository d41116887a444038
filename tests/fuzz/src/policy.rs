//! What authors and guests hand over: components, answers, cases, recordings.

use std::cell::RefCell;
use std::path::Path;

use comfy_router::policy::Shipped;
use comfy_router::policy::tools::{self, Desk, Options, Player, Settings};
use comfy_router::simulation::{Gather, Report, simulate};

use crate::guest;

fn in_file<T>(name: &str, data: &[u8], then: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, data).expect("written");
    then(&file)
}

/// A policy of ours in a file, for as long as the thread lives.
struct Ours(tempfile::TempDir);

impl Ours {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("p.wasm"), Shipped::LeastLoaded.bytes()).expect("written");
        Self(folder)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("p.wasm")
    }
}

thread_local! {
    static OURS: Ours = Ours::new();
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// A component file: refused, or a policy that passes the load gate.
pub fn component(data: &[u8]) {
    let refused = in_file("p.wasm", data, |file| tools::check(file, &Settings::new()));
    match refused {
        Ok(report) => assert!(!report.to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A guest whose answers are these bytes, whatever they mean.
pub fn answers(data: &[u8]) {
    let component = guest::answering(data);
    in_file("p.wasm", &component, |file| {
        let checked = tools::check(file, &Settings::new()).expect("it is a component of this world");
        let conforms = tools::conform(file, &Settings::new());
        assert!(!checked.to_string().is_empty());
        if let Ok(report) = conforms {
            assert!(report.asked > 0, "{report}");
        }
    });
}

/// A file of `policy test`.
pub fn cases(data: &[u8]) {
    let options = Options::default();
    let tested = OURS.with(|ours| {
        in_file("case.json", data, |file| {
            tools::test(&ours.file(), &Settings::new(), &[file.to_owned()], &options)
        })
    });
    if let Err(error) = tested {
        assert!(error.to_string().contains("case.json"), "the file is named: {error}");
    }
}

/// A recording: read, its day lived again, and sometimes all that `policy replay` says of it.
pub fn log(data: &[u8]) {
    let mut gather = Gather::default();
    let read = in_file("log.jsonl", data, |file| {
        tools::recorded(&[file.to_owned()], |recorded| gather.note(recorded))
    });
    if let Err(error) = read {
        assert!(error.to_string().contains("log.jsonl"), "the file is named: {error}");
    }
    if data.len().is_multiple_of(8) {
        let settings = Settings::new();
        let report = OURS.with(|ours| {
            let player = Player { component: &ours.file(), settings: &settings };
            in_file("log.jsonl", data, |file| Report::of(&[file.to_owned()], &player, None))
        });
        if let Ok(report) = report {
            assert!(report.page().ends_with("</html>\n") && !report.to_string().is_empty());
        }
    }
    let trace = gather.trace();
    DESK.with_borrow_mut(|desk| {
        let desk = desk.get_or_insert_with(|| {
            OURS.with(|ours| {
                let settings = Settings::new();
                Desk::open(&Player { component: &ours.file(), settings: &settings })
                    .expect("a shipped policy")
            })
        });
        simulate(&trace, desk).expect("nothing is recorded");
    });
}
