use super::*;

fn set(space: &Space, changes: &mut Changes, key: &str, value: &str) -> Result<(), Refused> {
    space.set(changes, key.into(), value.into(), None, 0)
}

#[test]
fn a_call_sees_its_own_changes_and_others_see_them_once_applied() {
    let (space, mut changes, nothing) = (Space::default(), Changes::default(), Changes::default());
    set(&space, &mut changes, "a", "1").unwrap();
    assert_eq!(space.get(&changes, "a", 0).as_deref(), Some("1"));
    assert_eq!(space.get(&nothing, "a", 0), None);
    space.apply(&mut changes);
    assert_eq!(space.get(&nothing, "a", 0).as_deref(), Some("1"));
    let fork = space.fork();
    assert!(fork.delete(&mut changes, "a", 0) && !fork.delete(&mut changes, "a", 0));
    fork.apply(&mut changes);
    assert_eq!((fork.get(&nothing, "a", 0), space.get(&nothing, "a", 0)), (None, Some("1".into())));
}

#[test]
fn a_counter_lives_from_its_first_increment() {
    let (space, mut changes) = (Space::default(), Changes::default());
    let mut add = |by, now| space.increment(&mut changes, "n".into(), by, Some(1_000), now);
    assert_eq!((add(2.0, 0), add(0.5, 999), add(1.0, 1_000)), (Ok(2.0), Ok(2.5), Ok(1.0)));
    assert_eq!(add(1.0, u64::MAX), Ok(1.0), "a case or a recording may say so");
    for odd in [f64::NAN, f64::INFINITY] {
        assert_eq!(add(odd, 1_000), Err(Refused::NotANumber));
    }
    set(&space, &mut changes, "text", "abc").unwrap();
    let sum = space.increment(&mut changes, "text".into(), 1.0, None, 0);
    assert_eq!(sum, Err(Refused::NotANumber));
}

#[test]
fn keys_are_listed_in_order_with_what_the_call_changed() {
    let (space, mut changes) = (Space::default(), Changes::default());
    for key in ["q/b", "q/a", "r"] {
        set(&space, &mut changes, key, "").unwrap();
    }
    space.apply(&mut changes);
    set(&space, &mut changes, "q/aa", "").unwrap();
    space.delete(&mut changes, "q/b", 0);
    space.set(&mut changes, "q/short".into(), String::new(), Some(5), 0).unwrap();
    assert_eq!(space.keys(&changes, "q/", 9, 4), ["q/a", "q/aa", "q/short"]);
    assert_eq!(space.keys(&changes, "q/", 9, 5), ["q/a", "q/aa"]);
    assert_eq!(space.keys(&changes, "q/", 1, 5), ["q/a"]);
}

#[test]
fn hostile_keys_and_values_are_refused_and_a_full_space_takes_no_more() {
    let space = Spaces::new(StateLimits { keys: 3, kib: 1 }).of("p");
    let mut changes = Changes::default();
    for (key, bytes) in [(String::new(), 1), ("k".repeat(257), 1), ("k".into(), VALUE_BYTES + 1)] {
        assert_eq!(set(&space, &mut changes, &key, &"v".repeat(bytes)), Err(Refused::TooLong));
    }
    assert_eq!(set(&space, &mut changes, "big", &"v".repeat(1_024)), Err(Refused::Full));
    assert_eq!(space.get(&changes, "big", 0), None, "a refused change is not seen");
    space.set(&mut changes, "a".into(), "1".into(), Some(10), 0).unwrap();
    space.apply(&mut changes);
    set(&space, &mut changes, "b", "1").unwrap();
    set(&space, &mut changes, "c", "1").unwrap();
    assert_eq!(set(&space, &mut changes, "d", "1"), Err(Refused::Full));
    assert_eq!(set(&space, &mut changes, "b", "2"), Ok(()), "what is there may change");
    let late = space.set(&mut changes, "d".into(), "1".into(), None, 10);
    assert_eq!(late, Ok(()), "what is over makes room");
}

#[test]
fn what_was_applied_is_there_after_a_restart_and_what_was_deleted_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let open = || Spaces::open(StateLimits::default(), &file).unwrap();
    let (spaces, mut changes) = (open(), Changes::default());
    for key in ["stays", "goes"] {
        set(&spaces.of("p"), &mut changes, key, "1").unwrap();
    }
    spaces.of("p").apply(&mut changes);
    spaces.flush(Duration::from_secs(60));
    spaces.of("p").delete(&mut changes, "goes", 0);
    spaces.of("p").set(&mut changes, "short".into(), "1".into(), Some(7), 0).unwrap();
    spaces.of("p").apply(&mut changes);
    spaces.of("other").fork().apply(&mut changes);
    spaces.flush(Duration::from_secs(60));
    drop(spaces);

    let again = open();
    let nothing = Changes::default();
    let get = |key, now| again.of("p").get(&nothing, key, now);
    assert_eq!((get("stays", 0).as_deref(), get("goes", 0)), (Some("1"), None));
    assert_eq!((get("short", 6).as_deref(), get("short", 7)), (Some("1"), None));
    let held: Vec<_> = again.held().into_iter().map(|held| (held.policy, held.keys)).collect();
    assert_eq!(held, [("p".to_owned(), 2)]);
}

#[test]
fn a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    std::fs::write(&file, [7; 8_192]).unwrap();
    let spaces = Spaces::open(StateLimits::default(), &file).unwrap();
    let mut changes = Changes::default();
    set(&spaces.of("p"), &mut changes, "k", "v").unwrap();
    spaces.of("p").apply(&mut changes);
    spaces.flush(Duration::from_secs(60));
    assert_eq!(std::fs::read(folder.path().join("state.db.damaged")).unwrap(), [7; 8_192]);
    drop(spaces);
    let again = Spaces::open(StateLimits::default(), &file).unwrap();
    assert_eq!(again.of("p").get(&Changes::default(), "k", 0).as_deref(), Some("v"));
}

#[test]
fn what_is_only_out_of_reach_is_not_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    std::fs::create_dir(&file).unwrap();
    assert!(Spaces::open(StateLimits::default(), &file).is_err());
    assert!(file.is_dir(), "it is where it was");
}

#[test]
fn looking_at_what_nobody_remembers_makes_nothing() {
    let spaces = Spaces::default();
    assert!(spaces.known("nobody").is_none());
    drop(spaces.of("somebody"));
    assert!(spaces.known("somebody").is_some() && spaces.known("nobody").is_none());
}

#[test]
fn an_operator_reads_and_forgets() {
    let space = Spaces::default().of("p");
    let mut changes = Changes::default();
    for key in ["a/1", "a/2", "b"] {
        set(&space, &mut changes, key, "v").unwrap();
    }
    space.apply(&mut changes);
    let keys = |prefix| space.entries(prefix, 9, 0).into_keys().collect::<Vec<_>>();
    assert_eq!(keys("a/"), ["a/1", "a/2"]);
    assert_eq!((space.clear(), keys("").len()), (3, 0));
}
