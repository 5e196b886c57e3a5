//! Which task comes next.

use std::collections::VecDeque;
use std::ops::Range;

/// Tasks in stretches that lie side by side in the file; each worker has one, and helps with the longest when it is done.
/// With a single stretch, all workers take from it in turn.
#[derive(Debug)]
pub(super) struct Queue {
    stretches: Vec<Range<usize>>,
    /// Before all others.
    urgent: VecDeque<usize>,
    /// Those that were taken out of turn.
    taken: Vec<usize>,
}

impl Queue {
    pub fn of(stretches: Vec<Range<usize>>) -> Queue {
        Queue {
            stretches,
            urgent: VecDeque::new(),
            taken: Vec::new(),
        }
    }

    /// The task that `worker` would get now, and whether it is urgent.
    pub fn peek(&mut self, worker: usize) -> Option<(usize, bool)> {
        if let Some(&task) = self.urgent.front() {
            return Some((task, true));
        }
        loop {
            let stretch = self.stretch_for(worker)?;
            let task = self.stretches[stretch].start;
            if self.taken.binary_search(&task).is_err() {
                return Some((task, false));
            }
            self.stretches[stretch].start += 1;
        }
    }

    /// The tasks that come next: the urgent ones, then those of all stretches in turn.
    pub fn coming(&self) -> impl Iterator<Item = usize> {
        let longest = self.stretches.iter().map(ExactSizeIterator::len).max();
        let row = |nth: usize| {
            let mut stretches = self.stretches.iter().cloned();
            std::iter::from_fn(move || stretches.next().map(|mut stretch| stretch.nth(nth)))
        };
        let in_turn = (0..longest.unwrap_or(0)).flat_map(row).flatten();
        let in_turn = in_turn.filter(|task| self.taken.binary_search(task).is_err());
        self.urgent.iter().copied().chain(in_turn)
    }

    /// How many of them are urgent.
    pub fn n_urgent(&self) -> usize {
        self.urgent.len()
    }

    /// Takes what [`peek`](Queue::peek) showed.
    pub fn pop(&mut self, worker: usize) -> Option<usize> {
        let (task, is_urgent) = self.peek(worker)?;
        if is_urgent {
            self.urgent.pop_front();
            let at = self.taken.partition_point(|&other| other < task);
            self.taken.insert(at, task);
        } else {
            let stretch = self.stretch_for(worker)?;
            self.stretches[stretch].start += 1;
        }
        Some(task)
    }

    /// Puts those of `tasks` that nobody took yet before all others.
    pub fn hurry(&mut self, tasks: impl Iterator<Item = usize>) {
        for task in tasks {
            let is_waiting = self.stretches.iter().any(|range| range.contains(&task));
            let is_taken = self.taken.binary_search(&task).is_ok();
            if is_waiting && !is_taken && !self.urgent.contains(&task) {
                self.urgent.push_back(task);
            }
        }
    }

    /// The worker's own stretch, or half of the longest, which is then its own.
    fn stretch_for(&mut self, worker: usize) -> Option<usize> {
        let own = worker % self.stretches.len().max(1);
        if self.stretches.get(own).is_some_and(|own| !own.is_empty()) {
            return Some(own);
        }
        let (longest, range) = self
            .stretches
            .iter()
            .cloned()
            .enumerate()
            .max_by_key(|(_, range)| range.len())?;
        if range.is_empty() {
            return None;
        }
        let middle = range.start + range.len() / 2;
        self.stretches[longest] = range.start..middle;
        self.stretches[own] = middle..range.end;
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue, n_workers: usize) -> Vec<usize> {
        let mut all = Vec::new();
        let mut worker = 0;
        while let Some(task) = queue.pop(worker % n_workers) {
            all.push(task);
            worker += 1;
        }
        all
    }

    #[test]
    fn each_task_is_taken_once_whoever_takes() {
        for stretches in [
            vec![0..10, 10..10],
            vec![0..3, 3..10],
            vec![0..0, 0..10, 10..10],
        ] {
            for n_workers in 1..4 {
                let mut all = drain(&mut Queue::of(stretches.clone()), n_workers);
                all.sort_unstable();
                assert_eq!(all, (0..10).collect::<Vec<_>>());
            }
        }
        assert_eq!(Queue::of(Vec::new()).pop(0), None);
    }

    #[test]
    fn a_worker_stays_in_its_stretch_until_it_is_done() {
        let mut queue = Queue::of(vec![0..4, 4..8]);
        assert_eq!(queue.pop(0), Some(0));
        assert_eq!(queue.pop(1), Some(4));
        assert_eq!(queue.pop(0), Some(1));
        assert_eq!(queue.pop(1), Some(5));
    }

    #[test]
    fn what_is_urgent_comes_first_and_only_once() {
        let mut queue = Queue::of(vec![0..6, 6..6]);
        assert_eq!(queue.pop(0), Some(0));
        queue.hurry([0, 4, 5].into_iter());
        queue.hurry([4].into_iter());
        assert_eq!(drain(&mut queue, 1), [4, 5, 1, 2, 3]);
    }
}
