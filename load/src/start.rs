//! From starting a server to its first healthy answer, and its memory at rest.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::histogram::Histogram;
use crate::process::Usage;
use crate::report::{Output, Report, mib};

const ASK_EVERY: Duration = Duration::from_millis(1);
const GIVE_UP: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Start {
    /// Where the server will listen: `host:port`.
    #[arg(long)]
    listen: String,
    /// Starts; between two the server is ended.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Ends it by SIGKILL instead of SIGTERM, so that each start finds a journal to read.
    #[arg(long)]
    kill: bool,
    /// Seconds at rest before memory is read.
    #[arg(long, default_value_t = 5.0)]
    settle: f64,
    #[command(flatten)]
    output: Output,
    /// The server's command line, behind `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) async fn run(start: &Start) -> Result<String> {
    ensure!(health(&start.listen).await.is_err(), "{} answers already: stop that server first", start.listen);
    let (mut healthy, mut report) = (Histogram::default(), Report::new("start"));
    let settle = Duration::from_secs_f64(start.settle);
    for run in 0..start.runs {
        let mut server = Command::new(&start.command[0])
            .args(&start.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", start.command[0]))?;
        let started = Instant::now();
        until_healthy(&mut server, &start.listen, started).await?;
        healthy.record(started.elapsed());
        let pid = server.id().context("the server ended")?;
        let usage = Usage::of(pid)?;
        tokio::time::sleep(settle).await;
        let rested = Usage::of(pid)?;
        if run + 1 == start.runs {
            report.figure("memory once healthy, MiB", mib(usage.resident));
            report.figure("idle memory, MiB", mib(rested.resident));
            report.figure("CPU at rest, cores", (rested.cpu - usage.cpu).as_secs_f64() / settle.as_secs_f64());
        }
        end(server, pid, start.kill).await?;
    }
    report.figure("starts", start.runs.into());
    report.latency("start to healthy", &healthy);
    report.finish(&start.output)
}

async fn until_healthy(server: &mut Child, listen: &str, started: Instant) -> Result<()> {
    while health(listen).await.is_err() {
        if let Some(ended) = server.try_wait()? {
            bail!("the server ended with {ended}: run its command by hand to see why");
        }
        ensure!(started.elapsed() < GIVE_UP, "not healthy after {GIVE_UP:?}");
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// Asks once whether the server is healthy.
async fn health(listen: &str) -> Result<()> {
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(format!("GET /health HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    ensure!(status.ends_with(b" 200"), "not healthy yet");
    Ok(())
}

async fn end(mut server: Child, pid: u32, kill: bool) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no such process")?;
    kill_process(pid, if kill { Signal::KILL } else { Signal::TERM })?;
    let ended = tokio::time::timeout(GIVE_UP, server.wait()).await.context("the server does not end")??;
    ensure!(kill || ended.success(), "the server ended with {ended}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_ends_at_once_or_never_listens_is_an_error() {
        let mut start = Start {
            listen: "127.0.0.1:1".to_owned(),
            runs: 1,
            kill: false,
            settle: 0.0,
            output: Output::default(),
            command: vec!["false".to_owned()],
        };
        let error = run(&start).await.expect_err("it ended").to_string();
        assert!(error.contains("ended with exit status: 1"), "{error}");
        start.command = vec!["/no/such/program".to_owned()];
        assert!(run(&start).await.expect_err("no program").to_string().starts_with("cannot start"));
    }
}
