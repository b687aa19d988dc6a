//! The counters a recorder keeps: cells in memory, written whole with the rows they follow from.

use std::collections::{HashMap, HashSet};

use cql::stats::{self, Cell, Counter, day_of};
use cql::{Store, StoreError, Write};
use domain::id::ProjectId;
use domain::stats::{Change, MinuteCounts, WorkerCounts};

/// Cells in memory; more than a day of minutes for some busy projects. They are read again when they are wanted.
const CELLS_MAX: usize = 20_000;

#[derive(Default)]
pub(super) struct Counters {
    cells: HashMap<(ProjectId, Cell), Counts>,
}

#[derive(Clone, Copy)]
enum Counts {
    Time(MinuteCounts),
    Worker(WorkerCounts),
}

impl Counters {
    /// Applies changes and returns the cells to write.
    pub(super) async fn apply(
        &mut self,
        store: &dyn Store,
        counter: Counter,
        changes: Vec<(ProjectId, Change)>,
    ) -> Result<Vec<Write>, StoreError> {
        if self.cells.len() > CELLS_MAX {
            self.cells.clear();
        }
        let mut touched = HashSet::new();
        for (project, change) in changes {
            for cell in cells_of(&change).into_iter().flatten() {
                let counts = match self.cells.entry((project, cell)) {
                    std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
                    std::collections::hash_map::Entry::Vacant(place) => {
                        place.insert(read(store, project, cell, counter).await?)
                    }
                };
                match counts {
                    Counts::Time(counts) => counts.apply(&change),
                    Counts::Worker(counts) => counts.apply(&change),
                }
                touched.insert((project, cell));
            }
        }
        let put = |key: &(ProjectId, Cell)| match self.cells.get(key)? {
            Counts::Time(counts) => Some(stats::put(key.0, key.1, counter, counts)),
            Counts::Worker(counts) => Some(stats::put_worker(key.0, key.1, counter, counts)),
        };
        Ok(touched.iter().filter_map(put).collect())
    }

    /// What is in memory may differ from the store.
    pub(super) fn forget(&mut self) {
        self.cells.clear();
    }
}

async fn read(store: &dyn Store, project: ProjectId, cell: Cell, counter: Counter) -> Result<Counts, StoreError> {
    Ok(match cell {
        Cell::Minute(_) | Cell::Day(_) => Counts::Time(stats::counts(store, project, cell, counter).await?),
        Cell::Worker(..) => Counts::Worker(stats::worker_counts(store, project, cell, counter).await?),
    })
}

fn cells_of(change: &Change) -> [Option<Cell>; 2] {
    match *change {
        Change::State { minute, .. } | Change::Finished { minute, .. } | Change::Retried { minute, .. } => {
            [Some(Cell::Minute(minute)), Some(Cell::Day(day_of(minute)))]
        }
        Change::Worker { minute, worker, .. } | Change::WorkerRetried { minute, worker, .. } => {
            [Some(Cell::Worker(day_of(minute), worker)), None]
        }
    }
}
