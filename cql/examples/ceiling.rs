//! How fast the driver alone writes the rows of tasks: what a server on this cluster is measured against.
//!
//! ```text
//! ceiling HOST:PORT KEYSPACE SECONDS     prints events per second
//! ```
//!
//! Takes rows that a server wrote into `KEYSPACE` and writes them to tables of the same shape, as a server must:
//! a task's place once, conditionally, and its row once per event, in unlogged batches within one partition. It decides
//! nothing, reads nothing, and keeps the connection full.
#![expect(clippy::print_stdout, reason = "its figure is its output")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cql::engine::cql::{Cql, CqlConfig};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Rows taken from the server's tables.
const ROWS: i32 = 40_000;
/// Rows of a batch, and batches under way: what brought most in measurements of the driver alone.
const BATCH_ROWS: usize = 40;
const AT_ONCE: usize = 64;
/// Events of a task: received, started, ended.
const EVENTS: u64 = 3;
/// As the server's default retention.
const TTL_SECS: i32 = 35 * 86_400;

/// Rows of one partition.
struct Piece {
    partition: Vec<u8>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Writer {
    session: Session,
    place: PreparedStatement,
    row: PreparedStatement,
    pieces: Vec<Piece>,
    events: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [node, keyspace, seconds] = words.as_slice() else { return Err("ceiling HOST:PORT KEYSPACE SECONDS".into()) };
    let run = Duration::from_secs_f64(seconds.parse()?);
    let scratch = format!("{keyspace}_ceiling");
    // The tables, as a server makes them.
    drop(Cql::open(&CqlConfig::new(vec![node.clone()], &scratch)).await?);
    let session = SessionBuilder::new().known_node(node).build().await?;
    let writer = Arc::new(Writer {
        place: session
            .prepare(format!("INSERT INTO {scratch}.task_at (p, c, v) VALUES (?, ?, ?) IF NOT EXISTS USING TTL ?"))
            .await?,
        row: session.prepare(format!("UPDATE {scratch}.task USING TTL ? SET v = ? WHERE p = ? AND c = ?")).await?,
        pieces: pieces(&session, keyspace).await?,
        session,
        events: AtomicU64::new(0),
    });
    let rows: usize = writer.pieces.iter().map(|piece| piece.rows.len()).sum();
    let bytes: usize = writer.pieces.iter().flat_map(|piece| &piece.rows).map(|(_, value)| value.len()).sum();
    let started = Instant::now();
    stream::iter(0_u64..)
        .take_while(|_| std::future::ready(started.elapsed() < run))
        .map(|turn| {
            let writer = Arc::clone(&writer);
            async move { writer.write(turn).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let rate = writer.events.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    writer.session.query_unpaged(format!("DROP KEYSPACE {scratch}"), ()).await?;
    println!("{{\"events_per_second\": {rate:.0}, \"rows\": {rows}, \"bytes_per_row\": {}}}", bytes / rows.max(1));
    Ok(())
}

/// The server's rows, cut into batches.
async fn pieces(session: &Session, keyspace: &str) -> Result<Vec<Piece>> {
    let found = session.query_unpaged(format!("SELECT p, c, v FROM {keyspace}.task LIMIT {ROWS}"), ()).await?;
    let mut pieces: Vec<Piece> = Vec::new();
    for row in found.into_rows_result()?.rows::<(Vec<u8>, Vec<u8>, Vec<u8>)>()? {
        let (partition, clustering, value) = row?;
        match pieces.last_mut() {
            Some(piece) if piece.partition == partition && piece.rows.len() < BATCH_ROWS => {
                piece.rows.push((clustering, value));
            }
            Some(_) | None => pieces.push(Piece { partition, rows: vec![(clustering, value)] }),
        }
    }
    if pieces.is_empty() { Err("the keyspace has no tasks: run a load on a server first".into()) } else { Ok(pieces) }
}

impl Writer {
    /// All events of one batch's tasks, under keys that no other turn has.
    async fn write(&self, turn: u64) -> Result<()> {
        let piece = &self.pieces[turn as usize % self.pieces.len()];
        let partition = [piece.partition.as_slice(), &turn.to_be_bytes()].concat();
        futures_util::future::try_join_all(piece.rows.iter().map(|(clustering, _)| {
            let key = [clustering.as_slice(), &turn.to_be_bytes()].concat();
            self.session.execute_unpaged(&self.place, (key, [0_u8].as_slice(), clustering.as_slice(), TTL_SECS))
        }))
        .await?;
        for _ in 0..EVENTS {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            let mut values = Vec::with_capacity(piece.rows.len());
            for (clustering, value) in &piece.rows {
                batch.append_statement(self.row.clone());
                values.push((TTL_SECS, value.as_slice(), partition.as_slice(), clustering.as_slice()));
            }
            self.session.batch(&batch, values).await?;
        }
        self.events.fetch_add(piece.rows.len() as u64 * EVENTS, Ordering::Relaxed);
        Ok(())
    }
}
