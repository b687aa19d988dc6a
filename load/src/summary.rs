//! Many reports as one: what was asked of each load and what came out, growth, pictures, and all reports behind.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::bars::{BARS, Bar};
use crate::clock;
use crate::machine::Machine;
use crate::plot::{Chart, Line};
use crate::report::{Report, write};

/// Reports of one project at several sizes are named `growth-SIZE-LOAD`.
const GROWTH: &str = "growth-";
/// What growth shows: a column's title, the load's name, and the figure or latency.
const GROWING: [(&str, &str, &str); 9] = [
    ("server CPU, µs per event", "ingest", "server CPU, us per event"),
    ("acked events/s", "ingest", "acked events per second"),
    ("ack p99, ms", "ingest", "ack p99"),
    ("list p50, ms", "rest", "list p50"),
    ("one state p50, ms", "rest", "list, failed only p50"),
    ("one queue p50, ms", "rest", "list, one queue p50"),
    ("detail p50, ms", "rest", "detail p50"),
    ("tree p50, ms", "rest", "tree p50"),
    ("disk, bytes per task", "rest", "data folder, bytes per task"),
];

#[derive(Args)]
pub(crate) struct Summarise {
    /// The folder of the reports; the summary goes there as `summary.json`, `summary.md` and pictures.
    folder: PathBuf,
    /// Another folder of reports of the same names: both are shown side by side.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// What the two folders hold, for the table's head.
    #[arg(long, num_args = 2, default_values = ["ours", "theirs"])]
    titles: Vec<String>,
    /// What was measured, such as a version or a commit.
    #[arg(long, default_value = "")]
    of: String,
}

#[derive(Serialize)]
struct Summary {
    at: String,
    of: String,
    machine: Machine,
    bars: Vec<Judged>,
    reports: Vec<Report>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Report>,
}

/// One row of the table of bars.
#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    bar: &'static Bar,
    value: f64,
    met: bool,
}

pub(crate) fn run(asked: &Summarise) -> Result<String> {
    let reports = read_all(&asked.folder)?;
    ensure!(!reports.is_empty(), "{} holds no reports", asked.folder.display());
    let beside = asked.beside.as_deref().map(read_all).transpose()?.unwrap_or_default();
    for (name, chart) in charts(&reports) {
        if let Some(svg) = chart.svg() {
            write(&asked.folder, &name, "svg", &svg)?;
        }
    }
    let bars = if beside.is_empty() { judge(&reports) } else { Vec::new() };
    let (at, of, machine) = (clock::now().to_string(), asked.of.clone(), Machine::here());
    let summary = Summary { at, of, machine, bars, reports, beside };
    let markdown = summary.markdown(&asked.titles);
    write(&asked.folder, "summary", "json", &serde_json::to_string_pretty(&summary)?)?;
    write(&asked.folder, "summary", "md", &markdown)?;
    Ok(markdown)
}

/// The reports of a folder, by time.
fn read_all(folder: &Path) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") && path.file_stem().is_some_and(|name| name != "summary") {
            let text = std::fs::read_to_string(&path)?;
            reports.push(serde_json::from_str::<Report>(&text).with_context(|| format!("{}", path.display()))?);
        }
    }
    reports.sort_by(|one, other| one.at.cmp(&other.at));
    Ok(reports)
}

fn judge(reports: &[Report]) -> Vec<Judged> {
    let found = |bar: &'static Bar| {
        let value = reports.iter().find(|report| report.name == bar.report)?.value(bar.figure)?;
        Some(Judged { bar, value, met: bar.is_met(value) })
    };
    BARS.iter().filter_map(found).collect()
}

/// A table's rows of growth: the size, and a value per column of [`GROWING`].
fn growth(reports: &[Report]) -> Vec<(f64, Vec<Option<f64>>)> {
    let size = |report: &Report| {
        let (size, _) = report.name.strip_prefix(GROWTH)?.split_once('-')?;
        size.parse::<u64>().ok()
    };
    let mut sizes: Vec<u64> = reports.iter().filter_map(size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let value = |size: u64, load: &str, figure: &str| {
        let name = format!("{GROWTH}{size}-{load}");
        reports.iter().find(|report| report.name == name)?.value(figure)
    };
    let row = |size: u64| GROWING.iter().map(|(_, load, figure)| value(size, load, figure)).collect();
    sizes.into_iter().map(|size| (size as f64, row(size))).collect()
}

/// Figures over time, one picture per series, and growth relative to the smallest size.
fn charts(reports: &[Report]) -> Vec<(String, Chart)> {
    let mut charts = Vec::new();
    for report in reports {
        for series in report.series.iter().filter(|series| series.values.len() >= 30) {
            let points = series.values.iter().enumerate();
            let points = points.map(|(number, value)| (number as f64 * series.every_seconds, *value)).collect();
            let word = series.name.split([' ', ',']).next().unwrap_or_default();
            let chart = Chart {
                title: report.name.clone(),
                x: "seconds",
                y: series.name.clone(),
                log_x: false,
                lines: vec![Line { name: series.name.clone(), points }],
            };
            charts.push((format!("{}-{word}", report.name), chart));
        }
    }
    let rows = growth(reports);
    if rows.len() > 1 {
        let line = |(column, (name, _, _)): (usize, &(&str, &str, &str))| {
            let first = rows[0].1[column].filter(|first| *first > 0.0)?;
            let points = rows.iter().filter_map(|(size, row)| Some((*size, row[column]? / first))).collect();
            Some(Line { name: (*name).to_owned(), points })
        };
        let lines = GROWING.iter().enumerate().filter_map(line).collect();
        let y = "times the figure at the smallest size".to_owned();
        charts.push(("growth".to_owned(), Chart { title: "growth".to_owned(), x: "tasks", y, log_x: true, lines }));
    }
    charts
}

impl Summary {
    fn markdown(&self, titles: &[String]) -> String {
        let mut text = format!("# Measured {}\n\n", self.at);
        if !self.of.is_empty() {
            writeln!(text, "{}", self.of).expect("a string takes any text");
        }
        writeln!(text, "{}\n", self.machine).expect("a string takes any text");
        if !self.bars.is_empty() {
            text.push_str("| work | measured | bar | aim | |\n|---|---:|---:|---:|---|\n");
        }
        for Judged { bar, value, met } in &self.bars {
            let verdict = if *met { "met" } else { "**missed**" };
            writeln!(text, "| {} | {value} | {} | {} | {verdict} |", bar.work, bar.bar_text(), bar.aim)
                .expect("a string takes any text");
        }
        let rows = growth(&self.reports);
        if !rows.is_empty() {
            text.push_str("\n| tasks |");
            GROWING.iter().for_each(|(title, _, _)| write!(text, " {title} |").expect("a string takes any text"));
            writeln!(text, "\n|---:|{}", "---:|".repeat(GROWING.len())).expect("a string takes any text");
        }
        for (size, row) in rows {
            let cells: Vec<String> =
                row.iter().map(|value| value.map_or_else(String::new, |value| value.to_string())).collect();
            writeln!(text, "| {size} | {} |", cells.join(" | ")).expect("a string takes any text");
        }
        self.side_by_side(titles, &mut text);
        for report in &self.reports {
            write!(text, "\n{}", report.markdown()).expect("a string takes any text");
        }
        for report in &self.beside {
            write!(text, "\n{}", report.markdown().replacen("## ", &format!("## {}: ", titles[1]), 1))
                .expect("a string takes any text");
        }
        text
    }

    /// Every figure that both sides have.
    fn side_by_side(&self, titles: &[String], text: &mut String) {
        if self.beside.is_empty() {
            return;
        }
        writeln!(text, "| load | figure | {} | {} |\n|---|---|---:|---:|", titles[0], titles[1])
            .expect("a string takes any text");
        for ours in &self.reports {
            let Some(theirs) = self.beside.iter().find(|report| report.name == ours.name) else { continue };
            for (figure, value) in ours.values() {
                if let Some(other) = theirs.value(&figure) {
                    writeln!(text, "| {} | {figure} | {value} | {other} |", ours.name)
                        .expect("a string takes any text");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::histogram::Histogram;

    fn report(name: &str, rate: f64, ack: Duration) -> Report {
        let mut report = Report::new("swarm");
        name.clone_into(&mut report.name);
        report.figure("acked events per second", rate);
        let mut latencies = Histogram::default();
        latencies.record(ack);
        report.latency("ack", &latencies);
        report.series("acked events per second", Duration::from_secs(1), vec![rate; 40]);
        report
    }

    fn kept(reports: &[Report]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for report in reports {
            write(folder.path(), &report.name, "json", &serde_json::to_string(report).expect("JSON")).expect("room");
        }
        folder
    }

    fn asked(folder: &Path, beside: Option<&Path>) -> Summarise {
        let titles = vec!["ours".to_owned(), "theirs".to_owned()];
        Summarise { folder: folder.to_owned(), beside: beside.map(Path::to_owned), titles, of: String::new() }
    }

    #[test]
    fn a_summary_judges_each_bar_that_was_measured() {
        let folder = kept(&[
            report("ingest", 59_999.0, Duration::from_millis(1)),
            report("ingest-half", 30_000.0, Duration::from_millis(49)),
        ]);
        let text = run(&asked(folder.path(), None)).expect("reports");
        assert!(text.contains("| 59999 | ≥ 60000 | 100 000 | **missed** |"), "{text}");
        assert!(text.contains("| 49 | ≤ 50 | 10 | met |"), "{text}");
        assert!(folder.path().join("ingest-acked.svg").exists());
        // A second summary does not take the first one for a report.
        assert_eq!(run(&asked(folder.path(), None)).expect("reports").matches("## ingest\n").count(), 1);
    }

    #[test]
    fn growth_is_a_table_and_a_picture() {
        let at = |size: u64| report(&format!("growth-{size}-ingest"), 1000.0, Duration::from_millis(size / 100_000));
        let folder = kept(&[at(1_000_000), at(100_000)]);
        let text = run(&asked(folder.path(), None)).expect("reports");
        let rows: Vec<_> =
            text.lines().filter(|line| line.starts_with("| 100000") || line.starts_with("| 1000000")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows[0].starts_with("| 100000 |  | 1000 | 1 |") && rows[1].starts_with("| 1000000 |  | 1000 | 10 |"));
        assert!(std::fs::read_to_string(folder.path().join("growth.svg")).is_ok_and(|svg| svg.contains("ack p99")));
    }

    #[test]
    fn two_folders_stand_side_by_side() {
        let ours = kept(&[report("ingest", 60_000.0, Duration::from_millis(1))]);
        let theirs = kept(&[report("ingest", 50.0, Duration::from_millis(900))]);
        let text = run(&asked(ours.path(), Some(theirs.path()))).expect("reports");
        assert!(text.contains("| ingest | acked events per second | 60000 | 50 |"), "{text}");
        assert!(text.contains("| ingest | ack p99 | 1 | 900 |"), "{text}");
        assert!(!text.contains("missed"), "bars are not judged beside another server");
    }
}
