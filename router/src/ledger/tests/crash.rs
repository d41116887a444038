//! What survives: killed processes, torn and damaged files, failed syncs, two routers on one file.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use super::super::schema::beside;
use super::*;

/// Set for the copy of this test binary that is going to be killed.
const VICTIM: &str = "COMFY_ROUTER_TEST_LEDGER_VICTIM";

/// Commits until it is killed and says which commits were acknowledged.
fn be_killed(file: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (_service, ledger) =
        Service::open(&Config { file: file.into(), ..Config::default() }).expect("opens");
    let mut out = std::io::stdout();
    for n in 0.. {
        let job = job(&format!("p{n}"));
        writeln!(out, "called {n}").expect("the parent reads");
        runtime.block_on(ledger.commit(life(&job, "gpu0", None))).expect("commits");
        writeln!(out, "acknowledged {n}").expect("the parent reads");
    }
    unreachable!("ended by a signal")
}

#[tokio::test]
async fn a_killed_process_leaves_every_acknowledged_commit_whole() {
    if let Ok(file) = std::env::var(VICTIM) {
        std::thread::spawn(move || be_killed(&file)).join().expect("is killed first");
    }
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    for round in 0..5 {
        let (called, acknowledged) = kill_after(&config, 3 + round * 7);
        let (service, ledger) = Service::open(&config).expect("opens after a kill");
        let rows = entries(&ledger, HistoryQuery::default()).await;
        let open = ledger.open_jobs(usize::MAX).await.expect("reads");
        assert!(open.is_empty(), "no commit is there by half");
        let stored = prompt_ids(&rows);
        let expected: Vec<String> = (0..stored.len()).map(|n| format!("p{n}")).collect();
        assert_eq!(stored, expected, "in order and without gaps");
        assert!(
            (acknowledged..=called).contains(&stored.len()),
            "{acknowledged} acknowledged, {called} called, {} stored",
            stored.len()
        );
        service.close();
        fs::remove_file(&config.file).expect("starts anew");
    }
}

/// Runs the victim, kills it while it commits, and says how many commits were called and acknowledged.
fn kill_after(config: &Config, acknowledgements: usize) -> (usize, usize) {
    let test = "ledger::tests::crash::a_killed_process_leaves_every_acknowledged_commit_whole";
    let mut victim = Command::new(std::env::current_exe().expect("has a path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VICTIM, &config.file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(victim.stdout.take().expect("is piped")).lines().map_while(Result::ok);
    let (mut called, mut acknowledged) = (0, 0);
    for line in lines {
        // The test harness writes its own words before the first one.
        called += usize::from(line.contains("called "));
        acknowledged += usize::from(line.contains("acknowledged "));
        if acknowledged == acknowledgements {
            victim.kill().expect("is killed");
        }
    }
    victim.wait().expect("is gone");
    assert!(acknowledged >= acknowledgements, "the victim ended early, after {acknowledged}");
    (called, acknowledged)
}

/// A file as a killed process leaves it: `jobs` commits, all still in the log.
async fn crashed(jobs: u32) -> (TempDir, Config) {
    let world = World::new();
    for n in 0..jobs {
        world.ledger.commit(vec![accepted(&job(&format!("p{n}")))]).await.expect("commits");
    }
    let folder = TempDir::new().expect("a folder");
    let copy = config(folder.path());
    for suffix in ["", "-wal"] {
        fs::copy(beside(&world.config.file, suffix), beside(&copy.file, suffix)).expect("copies");
    }
    fs::copy(&copy.file, copy.file.with_file_name("ledger.db.kept")).expect("copies");
    (folder, copy)
}

async fn open_prompts(config: &Config) -> Vec<String> {
    let (service, ledger) = Service::open(config).expect("opens");
    let open = ledger.open_jobs(usize::MAX).await.expect("reads");
    drop(ledger);
    service.close();
    open.into_iter().map(|o| o.job.prompt_id).collect()
}

#[tokio::test]
async fn a_torn_log_loses_its_tail_and_nothing_else() {
    for torn in [1, 5, 4096, 4097, 20_000] {
        let (_folder, config) = crashed(10).await;
        let log = OpenOptions::new().write(true).open(beside(&config.file, "-wal")).expect("opens");
        let length = log.metadata().expect("is there").len();
        log.set_len(length - torn).expect("is cut");
        drop(log);
        let stored = open_prompts(&config).await;
        let expected: Vec<String> = (0..stored.len()).map(|n| format!("p{n}")).collect();
        assert_eq!(stored, expected, "{torn} bytes torn off");
        assert!((1..10).contains(&stored.len()), "{torn} bytes cost {} of 10", 10 - stored.len());
    }
}

/// A process that another test starts at this moment holds the lock until it has become another program.
fn open(config: &Config) -> Result<(Service, Handle), OpenError> {
    loop {
        match Service::open(config) {
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_costs_the_last_commit_or_is_named() {
    let (_folder, config) = crashed(10).await;
    let log = beside(&config.file, "-wal");
    let whole = fs::read(&log).expect("reads");
    let page = 24 + 4096;
    let frames = (whole.len() - 32) / page;
    let (mut named, mut cut) = (0, 0);
    for at in (32..whole.len()).step_by(page / 3).chain([0, 9, 17, 25]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&log, bytes).expect("writes");
        match open(&config) {
            Err(OpenError::Damaged { file, reason }) => {
                assert!(file == log && reason.contains("log"), "{reason}");
                named += 1;
            }
            Ok((service, ledger)) => {
                let stored = ledger.open_jobs(usize::MAX).await.expect("reads").len();
                assert!(stored >= 9, "byte {at} of {frames} frames cost {} commits", 10 - stored);
                cut += 1;
                drop(ledger);
                service.close();
                // Opening has merged the log.
                fs::copy(log.with_file_name("ledger.db.kept"), &config.file).expect("is put back");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(named > 10 && cut > 0, "{named} named, {cut} cut");
}

#[tokio::test]
async fn a_merge_that_was_cut_in_the_middle_loses_nothing() {
    let (_folder, config) = crashed(10).await;
    let before = fs::read(&config.file).expect("reads");
    let log = fs::read(beside(&config.file, "-wal")).expect("reads");
    let (service, _) = Service::open(&config).expect("opens, which merges the log");
    service.close();
    let merged = fs::read(&config.file).expect("reads");
    for pages in 0..=merged.len() / 4096 {
        let cut = pages * 4096;
        let half = [&merged[..cut], before.get(cut..).unwrap_or_default()].concat();
        fs::write(&config.file, half).expect("writes");
        fs::write(beside(&config.file, "-wal"), &log).expect("writes");
        assert_eq!(open_prompts(&config).await.len(), 10, "{pages} pages were merged");
    }
}

#[tokio::test]
async fn a_whole_log_is_taken_whole() {
    let (_folder, config) = crashed(10).await;
    assert_eq!(open_prompts(&config).await.len(), 10);
}

#[tokio::test]
async fn a_flipped_bit_in_a_prompt_is_never_silent() {
    let mut world = World::new();
    world.ledger.commit(vec![accepted(&job("p1"))]).await.expect("commits");
    world.service.take().expect("open").close();
    let bytes = fs::read(&world.config.file).expect("reads");
    let at = memchr::memmem::find(&bytes, b"class_type").expect("the prompt is there") as u64;
    let file = OpenOptions::new().write(true).open(&world.config.file).expect("opens");
    file.write_all_at(b"C", at).expect("flips");
    let (_service, ledger) = Service::open(&world.config).expect("its structure is sound");
    let error = ledger.open_jobs(usize::MAX).await.expect_err("is not what was written");
    assert!(matches!(&error, LedgerError::Damaged { file, .. } if *file == world.config.file), "{error:?}");
    assert!(error.to_string().contains("not what was written"), "{error}");
}

#[test]
fn a_damaged_file_is_refused_by_name_with_advice() {
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    let (service, _) = Service::open(&config).expect("opens");
    service.close();
    let whole = fs::read(&config.file).expect("reads");
    let overwritten = [&whole[..4096], &vec![0xAA; whole.len() - 4096]].concat();
    for bytes in [b"this is a text file, and a long one at that: no database at all".to_vec(), overwritten] {
        fs::write(&config.file, bytes).expect("writes");
        let error = Service::open(&config).expect_err("is no ledger");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("ledger.db"), "{error}");
        assert!(error.to_string().contains("move it"), "{error}");
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    let (service, _) = Service::open(&config).expect("opens");
    service.close();
    let conn = rusqlite::Connection::open(&config.file).expect("opens");
    conn.pragma_update(None, "user_version", 999).expect("updates");
    drop(conn);
    let error = Service::open(&config).expect_err("is newer").to_string();
    assert!(error.contains("schema 999"), "{error}");
}

#[test]
fn two_routers_cannot_share_a_ledger() {
    let folder = TempDir::new().expect("a folder");
    let config = config(folder.path());
    let (service, _handle) = Service::open(&config).expect("opens");
    let error = Service::open(&config).expect_err("is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    service.close();
    Service::open(&config).expect("is free again").0.close();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().expect("a folder");
    let blocker = folder.path().join("file");
    fs::write(&blocker, "").expect("writes");
    let error = Service::open(&config(&blocker.join("sub"))).expect_err("a file is in the way");
    assert!(error.to_string().contains("sub"), "{error}");
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_accepted_until_reopened() {
    let world = World::new();
    world.ledger.commit(vec![accepted(&job("before"))]).await.expect("commits");
    // A table that vanishes stands for a disk that fails: the writer cannot know what it left behind.
    let thief = rusqlite::Connection::open(&world.config.file).expect("opens");
    thief.execute_batch("ALTER TABLE body RENAME TO elsewhere").expect("renames");
    let mut health = world.ledger.health();
    let error = world.ledger.commit(vec![accepted(&job("during"))]).await.expect_err("cannot write");
    assert!(error.is_fatal(), "{error:?}");
    assert!(error.to_string().contains("until it is reopened"), "{error}");
    health.changed().await.expect("is told");
    thief.execute_batch("ALTER TABLE elsewhere RENAME TO body").expect("renames back");
    let again = world.ledger.commit(vec![accepted(&job("after"))]).await;
    let given_up = matches!(again, Err(LedgerError::GivenUp { .. }));
    assert!(given_up, "the disk is fine again, and nobody has looked at the file: {again:?}");
    drop(thief);
    world.ledger.reopen().await.expect("reopens");
    assert!(health.borrow().is_none());
    world.ledger.commit(vec![accepted(&job("after"))]).await.expect("commits");
    let open = world.ledger.open_jobs(usize::MAX).await.expect("reads");
    assert_eq!(open.iter().map(|o| &*o.job.prompt_id).collect::<Vec<_>>(), ["before", "after"]);
}

#[tokio::test]
async fn a_later_commit_makes_the_writer_reopen_the_file() {
    let world = World::with(|config| config.reopen_ms = 0);
    let thief = rusqlite::Connection::open(&world.config.file).expect("opens");
    thief.execute_batch("ALTER TABLE body RENAME TO elsewhere").expect("renames");
    for _ in 0..2 {
        let error = world.ledger.commit(vec![accepted(&job("during"))]).await.expect_err("cannot write");
        assert!(error.is_fatal(), "it was opened and tried again: {error:?}");
    }
    thief.execute_batch("ALTER TABLE elsewhere RENAME TO body").expect("renames back");
    drop(thief);
    world.ledger.commit(vec![accepted(&job("after"))]).await.expect("is written again");
    assert!(world.ledger.health().borrow().is_none());
    let open = world.ledger.open_jobs(usize::MAX).await.expect("reads");
    assert_eq!(open.iter().map(|o| &*o.job.prompt_id).collect::<Vec<_>>(), ["after"]);
}
