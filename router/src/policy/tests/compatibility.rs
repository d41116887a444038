//! Components of other times. The one in `frozen/` was built for 0.1.0 and is never built again: what it exports and calls
//! is all there was (its source lies beside it).

use super::*;
use crate::model::decision::Hook;
use crate::policy::tools::check;
use crate::policy::{LoadError, Source};

const FIRST: &[u8] = include_bytes!("frozen/every-hook-0.1.0.wasm");

fn first() -> Source {
    Source::Bytes { name: "veteran".into(), bytes: FIRST.to_vec() }
}

#[tokio::test]
async fn a_component_of_the_first_release_answers_every_question_it_knows() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    let version = handle.load(first()).await.expect("what was built for 0.1.0 loads");
    assert!(!handle.places(), "it does not know of placement");
    for question in sample::questions(3, 16) {
        let places = matches!(question, Question::Place { .. });
        let decided = handle.decide(sample::ask(3, 16, question)).await;
        for record in decided.records {
            let expected = places.then_some(Fallback::NotExported);
            assert_eq!((record.fallback, &record.version), (expected, &version), "{record:?}");
        }
    }
    let (_, _, decided) = route(&handle).await;
    let reason = &decided.records[0].reason;
    assert!(reason.starts_with("gpu0 a steps 20 classes 3 models 1/0 random "), "{reason}");
}

#[test]
fn every_hook_of_the_first_release_is_found_in_its_component() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veteran.wasm");
    std::fs::write(&path, FIRST).unwrap();
    let report = check(&path, &Map::new()).unwrap();
    assert!(report.passed(), "{report}");
    assert!(report.exports.iter().all(|name| name.ends_with("@0.1.0")), "{:?}", report.exports);
    let unknown = [Hook::Place];
    let all: Vec<Hook> = Hook::ALL.into_iter().filter(|hook| !unknown.contains(hook)).collect();
    assert_eq!(report.hooks, all);
}

#[tokio::test]
async fn a_component_of_a_later_release_is_refused_with_what_to_do() {
    let (handle, _) = started(Config { limits: PATIENT, ..Config::default() });
    for version in ["0.1.9", "0.2.0", "1.0.0"] {
        for place in ["import", "export"] {
            let item = match place {
                "import" => format!(r#"(import "comfy-router:policy/fleet@{version}" (instance))"#),
                _ => {
                    format!(r#"(instance $i) (export "comfy-router:policy/routing@{version}" (instance $i))"#)
                }
            };
            let bytes = wat::parse_str(format!("(component {item})")).expect("the test's wat is right");
            let error = handle.load(Source::Bytes { name: "young".into(), bytes }).await.unwrap_err();
            assert!(matches!(error, LoadError::Newer { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(version) && text.contains("update the router"), "{text}");
        }
    }
}
