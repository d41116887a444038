//! The comparison that tells whether a job was lost or run behind the ledger's back: what the router wrote down
//! against the executions that the instances counted themselves.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use crate::Fleet;

/// One execution, by an instance's own account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub instance: String,
    pub upstream_id: String,
}

impl Run {
    /// What the instances of a fleet have run.
    pub fn of(fleet: &Fleet) -> Vec<Self> {
        let instances = fleet.executions().into_iter().enumerate();
        let runs = instances.flat_map(|(at, executions)| {
            executions
                .into_iter()
                .map(move |run| Self { instance: format!("i{at}"), upstream_id: run.prompt_id })
        });
        runs.collect()
    }
}

/// The ledger of a router that has stopped.
#[derive(Debug)]
pub struct Books {
    jobs: Vec<JobEntry>,
    attempts: Vec<AttemptEntry>,
}

#[derive(Debug)]
struct JobEntry {
    seq: i64,
    prompt_id: String,
    outcome: Option<String>,
}

#[derive(Debug)]
struct AttemptEntry {
    job: i64,
    upstream_id: String,
    instance: String,
    outcome: Option<String>,
}

impl Books {
    /// Reads the database in `state_dir`.
    pub fn read(state_dir: &Path) -> Self {
        let files =
            std::fs::read_dir(state_dir).expect("a folder").filter_map(|file| Some(file.ok()?.path()));
        let mut databases = files.filter(|path| path.extension().is_some_and(|extension| extension == "db"));
        let file = databases.next().unwrap_or_else(|| panic!("a ledger in {}", state_dir.display()));
        Self::read_from(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    fn read_from(file: &Path) -> rusqlite::Result<Self> {
        let ledger = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let verdict: String = ledger.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        assert_eq!(verdict, "ok", "the ledger is whole");
        let jobs = ledger
            .prepare("SELECT seq, prompt_id, outcome FROM job ORDER BY seq")?
            .query_map([], |row| {
                Ok(JobEntry { seq: row.get(0)?, prompt_id: row.get(1)?, outcome: row.get(2)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let attempts = ledger
            .prepare("SELECT job, upstream_id, instance, outcome FROM attempt ORDER BY job, number")?
            .query_map([], |row| {
                Ok(AttemptEntry {
                    job: row.get(0)?,
                    upstream_id: row.get(1)?,
                    instance: row.get(2)?,
                    outcome: row.get(3)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { jobs, attempts })
    }

    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// How the job of this prompt id ended.
    pub fn outcome(&self, prompt_id: &str) -> Option<&str> {
        self.jobs.iter().find(|job| job.prompt_id == prompt_id)?.outcome.as_deref()
    }

    /// How each attempt of the job of this prompt id ended, in order.
    pub fn attempts_ended(&self, prompt_id: &str) -> Vec<&str> {
        let job = self.jobs.iter().find(|job| job.prompt_id == prompt_id).map(|job| job.seq);
        let own = self.attempts.iter().filter(|attempt| Some(attempt.job) == job);
        own.map(|attempt| attempt.outcome.as_deref().unwrap_or("open")).collect()
    }

    /// Every accepted job is there once and over, whatever its end; no job and no attempt is left open.
    pub fn everything_is_over(&self, accepted: &[String]) {
        for prompt_id in accepted {
            let rows = self.jobs.iter().filter(|job| job.prompt_id == *prompt_id).count();
            assert_eq!(rows, 1, "{prompt_id} was accepted and is there once");
        }
        let open = self.jobs.iter().find(|job| job.outcome.is_none());
        assert!(open.is_none(), "{open:?} is over");
        let open = self.attempts.iter().find(|attempt| attempt.outcome.is_none());
        assert!(open.is_none(), "{open:?} is over");
    }

    /// Every accepted job is there once and has succeeded; no job and no attempt is left open.
    pub fn nothing_is_lost(&self, accepted: &[String]) {
        let mut counted: HashMap<&str, usize> = HashMap::new();
        for job in &self.jobs {
            *counted.entry(&job.prompt_id).or_default() += 1;
            assert!(job.outcome.is_some(), "{job:?} is over");
        }
        for prompt_id in accepted {
            assert_eq!(
                counted.get(prompt_id.as_str()),
                Some(&1),
                "{prompt_id} was accepted and is there once"
            );
            assert_eq!(
                self.outcome(prompt_id),
                Some("success"),
                "{prompt_id} was accepted and has succeeded"
            );
        }
        let mut successes: HashMap<i64, usize> = HashMap::new();
        for attempt in &self.attempts {
            assert!(attempt.outcome.is_some(), "{attempt:?} is over");
            *successes.entry(attempt.job).or_default() +=
                usize::from(attempt.outcome.as_deref() == Some("success"));
        }
        for job in self.jobs.iter().filter(|job| job.outcome.as_deref() == Some("success")) {
            assert_eq!(successes.get(&job.seq), Some(&1), "{job:?} succeeded by one attempt");
        }
    }

    /// Every execution belongs to an attempt that was recorded for that instance, and no attempt ran twice.
    pub fn nothing_ran_unrecorded(&self, runs: &[Run]) {
        let recorded: HashMap<&str, &AttemptEntry> =
            self.attempts.iter().map(|attempt| (attempt.upstream_id.as_str(), attempt)).collect();
        let mut ran = HashSet::new();
        for run in runs {
            let attempt = recorded.get(run.upstream_id.as_str());
            let attempt = attempt.unwrap_or_else(|| panic!("{run:?} was recorded as an attempt"));
            assert_eq!(attempt.instance, run.instance, "{run:?} ran where it was recorded");
            assert!(ran.insert(&run.upstream_id), "{run:?} ran once");
        }
        for attempt in self.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("success")) {
            assert!(ran.contains(&attempt.upstream_id), "{attempt:?} did run");
        }
    }

    /// Executions beyond the first of their job: recorded, but work done twice.
    pub fn repeated(&self, runs: &[Run]) -> usize {
        let ran: HashSet<&str> = runs.iter().map(|run| run.upstream_id.as_str()).collect();
        let attempts = self.attempts.iter().filter(|attempt| ran.contains(attempt.upstream_id.as_str()));
        let jobs: Vec<i64> = attempts.map(|attempt| attempt.job).collect();
        jobs.len() - jobs.iter().collect::<HashSet<_>>().len()
    }
}
