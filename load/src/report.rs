//! What a run found: printed, and kept as JSON and Markdown if asked.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::histogram::{Histogram, Summary};
use crate::process::Usage;

/// Where a report is kept.
#[derive(Args, Clone, Default)]
pub(crate) struct Output {
    /// A folder for the report as JSON and Markdown.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
    /// The report's name there, when a scenario runs more than once; otherwise the scenario's.
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) name: String,
    pub(crate) at: String,
    pub(crate) command: String,
    pub(crate) figures: Vec<(String, f64)>,
    pub(crate) latencies: Vec<(String, Summary)>,
    #[serde(default)]
    pub(crate) series: Vec<Series>,
}

/// A figure over the time of a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) every_seconds: f64,
    pub(crate) values: Vec<f64>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            name: scenario.to_owned(),
            at: clock::now().to_string(),
            command: command_line(std::env::args()),
            figures: Vec::new(),
            latencies: Vec::new(),
            series: Vec::new(),
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
        self.figure(format!("{name} memory, MiB"), mib(after.resident));
    }

    /// A figure by its name, or a latency by its name and quantile, such as `ack p99`, in milliseconds.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values().into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All of them.
    pub(crate) fn values(&self) -> Vec<(String, f64)> {
        let mut values = self.figures.clone();
        for (name, latency) in &self.latencies {
            values.push((format!("{name} p50"), latency.p50_ms));
            values.push((format!("{name} p99"), latency.p99_ms));
        }
        values
    }

    pub(crate) fn series(&mut self, name: &str, every: Duration, values: Vec<f64>) {
        if !values.is_empty() {
            self.series.push(Series { name: name.to_owned(), every_seconds: every.as_secs_f64(), values });
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text =
            format!("## {}\n\n`{}`, {}\n\n| figure | value |\n|---|---:|\n", self.name, self.command, self.at);
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
        if !self.series.is_empty() {
            text.push_str("\n| over time | samples | lowest | median | highest |\n|---|---:|---:|---:|---:|\n");
        }
        for Series { name, every_seconds, values } in &self.series {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let (low, middle, high) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            let count = values.len();
            writeln!(text, "| {name}, every {every_seconds} s | {count} | {low:.1} | {middle:.1} | {high:.1} |")
                .expect("a string takes any text");
        }
        text
    }

    /// Writes the report where it was asked for, and gives what to print.
    pub(crate) fn finish(mut self, output: &Output) -> Result<String> {
        if let Some(name) = &output.name {
            self.name.clone_from(name);
        }
        let markdown = self.markdown();
        if let Some(folder) = &output.report {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            write(folder, &self.name, "md", &markdown)?;
            write(folder, &self.name, "json", &serde_json::to_string_pretty(&self)?)?;
        }
        Ok(markdown)
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn write(folder: &Path, name: &str, extension: &str, text: &str) -> Result<()> {
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
