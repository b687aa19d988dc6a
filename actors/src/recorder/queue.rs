//! What waits, by project, and whose turn it is.

use std::collections::{HashMap, VecDeque};

use domain::id::ProjectId;

/// Fair between projects: each in turn gives what waits longest, so that one that sends much waits for itself and
/// one that sends little is in the next round whatever the others do.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Never an empty one.
    waiting: HashMap<ProjectId, VecDeque<(T, usize)>>,
    /// Those of whom something waits, the next one first.
    turns: VecDeque<ProjectId>,
    weight: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new(), weight: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Returns how many items of the project wait now.
    pub(super) fn put(&mut self, project: ProjectId, item: T, weight: usize) -> usize {
        let items = self.waiting.entry(project).or_default();
        if items.is_empty() {
            self.turns.push_back(project);
        }
        items.push_back((item, weight.max(1)));
        self.weight += weight.max(1);
        items.len()
    }

    /// How many items wait of the project that has most.
    pub(super) fn longest(&self) -> usize {
        self.waiting.values().map(VecDeque::len).max().unwrap_or_default()
    }

    /// What all that waits weighs.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Takes what waits, in turns, until it weighs `budget` or more. In a project's own order.
    pub(super) fn take(&mut self, budget: usize) -> Vec<T> {
        let (mut taken, mut weighs) = (Vec::new(), 0);
        while weighs < budget {
            let Some(project) = self.turns.pop_front() else { break };
            let Some(items) = self.waiting.get_mut(&project) else { continue };
            if let Some((item, weight)) = items.pop_front() {
                taken.push(item);
                weighs += weight;
                self.weight -= weight;
            }
            if items.is_empty() {
                self.waiting.remove(&project);
            } else {
                self.turns.push_back(project);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(n: u8) -> ProjectId {
        ProjectId::from_bytes([n; 16])
    }

    #[test]
    fn one_that_sends_much_does_not_delay_the_others() {
        let mut queue = Queue::default();
        for n in 0..1000 {
            queue.put(project(1), (1, n), 16);
        }
        for small in 2..100 {
            queue.put(project(small), (small, 0), 1);
        }
        let first = queue.take(2048);
        let small = first.iter().filter(|(project, _)| *project != 1).count();
        assert_eq!(small, 98, "all that send little are in the next round");
        assert_eq!(first.len() - small, (2048 - 98_usize).div_ceil(16), "and the rest of it is used");
    }

    #[test]
    fn nothing_is_lost_and_a_projects_order_is_kept() {
        let mut queue = Queue::default();
        for n in 0..250 {
            queue.put(project(n % 7), (n % 7, n), usize::from(n % 5));
        }
        let mut all = Vec::new();
        while !queue.is_empty() {
            let round = queue.take(10);
            assert!(!round.is_empty());
            all.extend(round);
        }
        assert_eq!(all.len(), 250);
        for one in 0..7 {
            assert!(all.iter().filter(|(project, _)| *project == one).is_sorted(), "project {one}");
        }
        assert!(queue.waiting.is_empty() && queue.turns.is_empty());
    }
}
