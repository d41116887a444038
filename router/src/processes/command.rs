//! The operator's own command that restarts an instance.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{RestartError, SpawnError};
use crate::model::id::InstanceId;

/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Of what it said, in bytes.
const EXCERPT: u64 = 512;

/// Runs the command to its end.
pub(super) async fn run(command: &[String], instance: &InstanceId) -> Result<(), RestartError> {
    let [program, arguments @ ..] = command else { return Err(RestartError::Unsupervised) };
    let (program, arguments, instance) = (program.clone(), arguments.to_vec(), instance.clone());
    let ran = tokio::task::spawn_blocking(move || run_blocking(&program, &arguments, &instance));
    ran.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn run_blocking(program: &str, arguments: &[String], instance: &InstanceId) -> Result<(), RestartError> {
    let start = |error| SpawnError::Program { program: program.to_owned(), error };
    let mut said = tempfile::tempfile().map_err(start)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("COMFY_INSTANCE", instance.as_str())
        .stdin(Stdio::null())
        .stdout(said.try_clone().map_err(start)?)
        .stderr(said.try_clone().map_err(start)?)
        .spawn()
        .map_err(start)?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(start)? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(RestartError::Timeout { program: program.to_owned(), after: PATIENCE });
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let _ = said.rewind();
    let _ = said.take(EXCERPT).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let said = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(RestartError::Failed { program: program.to_owned(), status, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<(), RestartError> {
        run(&["sh".into(), "-c".into(), script.into()], &InstanceId::from("gpu0")).await
    }

    #[tokio::test]
    async fn a_command_is_run_and_told_which_instance_is_meant() {
        sh(r#"[ "$COMFY_INSTANCE" = gpu0 ]"#).await.expect("ends well");
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_commands_own_words() {
        let error = sh("echo no such unit >&2; exit 5").await.expect_err("failed").to_string();
        assert!(error.contains("exit status: 5") && error.contains("no such unit"), "{error}");
        let error =
            run(&["/nowhere/at-all".into()], &InstanceId::from("gpu0")).await.expect_err("is not there");
        assert!(error.to_string().contains("/nowhere/at-all"), "{error}");
        let error = run(&[], &InstanceId::from("gpu0")).await.expect_err("has none");
        assert!(matches!(error, RestartError::Unsupervised), "{error}");
    }
}
