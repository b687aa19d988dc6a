//! What a run found: printed, and kept as JSON and Markdown if asked.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock;
use crate::histogram::{Histogram, Summary};
use crate::process::Usage;
use crate::target::Target;

#[derive(Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    at: String,
    command: String,
    figures: Vec<(String, f64)>,
    latencies: Vec<(String, Summary)>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            at: clock::now().to_string(),
            command: command_line(std::env::args()),
            figures: Vec::new(),
            latencies: Vec::new(),
        }
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push((name.into(), (value * 100.0).round() / 100.0));
    }

    pub(crate) fn latency(&mut self, name: impl Into<String>, latencies: &Histogram) {
        if latencies.count() > 0 {
            self.latencies.push((name.into(), latencies.summary()));
        }
    }

    /// CPU time since `before`, per event.
    pub(crate) fn cpu(&mut self, name: &str, before: Usage, after: Usage, elapsed: Duration, events: u64) {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        self.figure(format!("{name} CPU, cores"), cpu / elapsed.as_secs_f64());
        self.figure(format!("{name} CPU, us per event"), cpu * 1e6 / events.max(1) as f64);
        self.figure(format!("{name} memory, MiB"), after.resident as f64 / f64::from(1 << 20));
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text =
            format!("## {}\n\n`{}`, {}\n\n| figure | value |\n|---|---:|\n", self.scenario, self.command, self.at);
        for (name, value) in &self.figures {
            writeln!(text, "| {name} | {value} |").expect("a string takes any text");
        }
        if !self.latencies.is_empty() {
            text.push_str(
                "\n| latency, ms | count | p50 | p90 | p99 | p99.9 | max |\n|---|---:|---:|---:|---:|---:|---:|\n",
            );
        }
        for (name, summary) in &self.latencies {
            let Summary { count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = summary;
            writeln!(text, "| {name} | {count} | {p50_ms} | {p90_ms} | {p99_ms} | {p999_ms} | {max_ms} |")
                .expect("a string takes any text");
        }
        text
    }

    /// Writes the report where it was asked for, and gives what to print.
    pub(crate) fn finish(self, target: &Target) -> Result<String> {
        let markdown = self.markdown();
        if let Some(folder) = &target.report {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            write(folder, self.scenario, "md", &markdown)?;
            write(folder, self.scenario, "json", &serde_json::to_string_pretty(&self)?)?;
        }
        Ok(markdown)
    }
}

fn write(folder: &Path, name: &str, extension: &str, text: &str) -> Result<()> {
    let path = folder.join(format!("{name}.{extension}"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The command line without the password and the path of the program.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut shown = vec!["load".to_owned()];
    let mut secret = false;
    for argument in arguments.skip(1) {
        if !std::mem::take(&mut secret) && !argument.starts_with("--admin-password") {
            shown.push(argument);
        } else if argument == "--admin-password" {
            secret = true;
        }
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_reported() {
        for line in ["x swarm --admin-password pw --agents 2", "x swarm --admin-password=pw --agents 2"] {
            assert_eq!(command_line(line.split(' ').map(str::to_owned)), "load swarm --agents 2");
        }
    }

    #[test]
    fn a_report_is_a_table() {
        let mut report = Report::new("swarm");
        report.figure("acked events per second", 12.345);
        let mut latencies = Histogram::default();
        latencies.record(Duration::from_millis(2));
        report.latency("ack", &latencies);
        let text = report.markdown();
        assert!(text.contains("| acked events per second | 12.35 |") && text.contains("| ack | 1 | 2 |"), "{text}");
    }
}
