//! What a load must reach, and what it aims at: two cores shared by server, kernel and generator.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) work: &'static str,
    /// The name of the report that has the figure.
    pub(crate) report: &'static str,
    /// A figure, or a latency and its quantile.
    pub(crate) figure: &'static str,
    limit: Limit,
    pub(crate) aim: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    Least(f64),
    Most(f64),
}

impl Bar {
    const fn least(
        work: &'static str,
        report: &'static str,
        figure: &'static str,
        least: f64,
        aim: &'static str,
    ) -> Self {
        Self { work, report, figure, limit: Limit::Least(least), aim }
    }

    const fn most(
        work: &'static str,
        report: &'static str,
        figure: &'static str,
        most: f64,
        aim: &'static str,
    ) -> Self {
        Self { work, report, figure, limit: Limit::Most(most), aim }
    }

    pub(crate) fn is_met(&self, value: f64) -> bool {
        match self.limit {
            Limit::Least(least) => value >= least,
            Limit::Most(most) => value <= most,
        }
    }

    pub(crate) fn bar_text(&self) -> String {
        match self.limit {
            Limit::Least(least) => format!("≥ {least}"),
            Limit::Most(most) => format!("≤ {most}"),
        }
    }
}

const RATE: &str = "acked events per second";

pub(crate) const BARS: &[Bar] = &[
    Bar::least("ingest, 1 event per frame, 8 agents, events/s", "ingest", RATE, 60_000.0, "100 000"),
    Bar::least("ingest for 10 min after 10 M tasks, events/s", "long-ingest", RATE, 45_000.0, "as fresh"),
    Bar::most("  longest stall, ms", "long-ingest", "longest time without an ack, ms", 2_000.0, ""),
    Bar::most("  memory, growth, MiB", "long-ingest", "server memory, growth, MiB", 64.0, "0"),
    Bar::least("ingest, 200 events per frame, events/s", "ingest-batched", RATE, 80_000.0, "150 000"),
    Bar::most("ack p99 at half load, ms", "ingest-half", "ack p99", 50.0, "10"),
    Bar::least("commands, concurrency 32, per second", "commands-32", "commands per second", 5_000.0, "10 000"),
    Bar::most("POST to terminal p50, concurrency 1, ms", "commands-1", "POST to outcome seen p50", 2.0, "1"),
    Bar::most("  p99 while ingest runs at half load, ms", "commands-beside", "POST to outcome seen p99", 50.0, "20"),
    Bar::most("idle, 5 000 sessions, KB each", "idle", "server memory per session, KB", 12.0, "8"),
    Bar::most("  cores in all", "idle", "server CPU, cores", 0.1, ""),
    Bar::most("list p50 at 1 M tasks, ms", "rest", "list p50", 3.0, "1"),
    Bar::most("  detail p50, ms", "rest", "detail p50", 3.0, "1"),
    Bar::most("  tree of 500 p50, ms", "rest", "tree p50", 3.0, "1"),
    Bar::most("  first page by state p50, ms", "rest", "list, failed only p50", 3.0, "1"),
    Bar::most("  first page of what runs p50, ms", "rest", "list, started only p50", 3.0, "1"),
    Bar::most("  first page by queue p50, ms", "rest", "list, one queue p50", 3.0, "1"),
    Bar::most("  first page by a rare queue p50, ms", "rest", "list, a rare queue p50", 3.0, "1"),
    Bar::least("CSV export, rows/s", "export-csv", "rows per second", 300_000.0, "600 000"),
    Bar::most("start to healthy with 1 M tasks, ms", "start-tasks", "start to healthy p50", 500.0, "200"),
    Bar::most("idle memory of a fresh server, MiB", "start-fresh", "idle memory, MiB", 30.0, ""),
    Bar::least(
        "one brain on one Cassandra node, % of the raw driver",
        "ceiling",
        "share of the ceiling, %",
        60.0,
        "80",
    ),
    Bar::most("small projects beside a flood, ack p99, ms", "fairness", "small projects, ack p99", 1_000.0, ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_at_its_limit() {
        let least = Bar::least("", "", "", 10.0, "");
        let most = Bar::most("", "", "", 10.0, "");
        assert!(least.is_met(10.0) && !least.is_met(9.9) && most.is_met(10.0) && !most.is_met(10.1));
    }
}
