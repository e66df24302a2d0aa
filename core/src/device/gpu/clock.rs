//! Measures the GPU time of steps: chooses the passes in which a step is recorded, and evaluates the timestamps between them.
//! The driver's crate limits the timestamps of a command buffer; a step with more parts is timed in windows, one per step.

use blade_graphics as blade;
use std::ops::Range;
use std::time::Duration;

/// Timed passes per command buffer.
const PASSES: usize = blade::limits::PASS_COUNT;
/// Passes of a step other than timed parts: uploads and downloads, dispatches before and after the window.
const OTHERS: usize = 4;

/// Times of a run's steps.
#[derive(Default)]
pub struct Clock {
    /// The timed parts, in order: a dispatch's number among the program's steps; `None` for copies and updates.
    what: Vec<Option<usize>>,
    /// The last measured duration of each.
    known: Vec<Option<Duration>>,
    /// For each command buffer, the index in `what` of its passes; `None` for passes with several parts.
    passes: [Vec<Option<usize>>; 2],
    /// The first part of the next window.
    next: usize,
    total: Duration,
}

impl Clock {
    /// Resets all times: command buffers are recorded again.
    pub fn forget(&mut self) {
        *self = Clock { total: self.total, ..Clock::default() };
    }

    /// Reads the durations of a command buffer's passes in its last execution.
    pub fn read(&mut self, turn: usize, timings: impl ExactSizeIterator<Item = Duration>) {
        if timings.len() == 0 || timings.len() != self.passes[turn].len() {
            return;
        }
        self.total = Duration::ZERO;
        for (place, time) in self.passes[turn].iter().zip(timings) {
            self.total += time;
            if let Some(place) = place {
                self.known[*place] = Some(time);
            }
        }
    }

    /// The passes to record dispatches in, by start and end: parts to be timed have a pass each, others share one. `parts`
    /// gives the start and first dispatch of each part.
    pub fn passes(
        &mut self,
        turn: usize,
        parts: &[(usize, Option<usize>)],
        dispatches: usize,
        copies: [bool; 2],
    ) -> Vec<Range<usize>> {
        let copy = |there: bool| there.then_some(None);
        let what: Vec<Option<usize>> =
            copy(copies[0]).into_iter().chain(parts.iter().map(|p| p.1)).chain(copy(copies[1])).collect();
        if what != self.what {
            let known = vec![None; what.len()];
            *self = Clock { what, known, total: self.total, ..Clock::default() };
        }
        let window = self.window(parts.len());
        let begins = |part: usize| parts.get(part).map_or(dispatches, |p| p.0);
        let up = usize::from(copies[0]);
        let timed = window.clone().map(|part| (Some(up + part), begins(part)..begins(part + 1)));
        let (before, after) = (0..begins(window.start), begins(window.end)..dispatches);
        let all = [(None, before)].into_iter().chain(timed).chain([(None, after)]);
        let (mut places, passes): (Vec<Option<usize>>, Vec<_>) = all.filter(|p| !p.1.is_empty()).unzip();
        if copies[0] {
            places.insert(0, Some(0));
        }
        if copies[1] {
            places.push(Some(self.what.len() - 1));
        }
        self.passes[turn] = places;
        passes
    }

    /// The parts to time in the step being recorded.
    fn window(&mut self, parts: usize) -> Range<usize> {
        if parts + OTHERS <= PASSES {
            return 0..parts;
        }
        let from = self.next;
        let to = (from + PASSES - OTHERS).min(parts);
        self.next = if to == parts { 0 } else { to };
        from..to
    }

    /// The last known duration of a whole step.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The durations of its parts, once all are known.
    pub fn parts(&self) -> Vec<(Option<usize>, Duration)> {
        let known: Option<Vec<Duration>> = self.known.iter().copied().collect();
        self.what.iter().copied().zip(known.unwrap_or_default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates steps of a device where dispatch i takes i + 1 µs and copies 500 µs.
    fn after(steps: usize, dispatches: usize, copies: [bool; 2]) -> (Clock, usize) {
        let parts: Vec<_> = (0..dispatches).map(|i| (i, Some(i))).collect();
        let (mut clock, mut most) = (Clock::default(), 0);
        let mut ran: [Vec<Duration>; 2] = [vec![], vec![]];
        for step in 0..steps {
            let turn = step % 2;
            clock.read(turn, ran[turn].drain(..));
            let passes = clock.passes(turn, &parts, dispatches, copies);
            // every dispatch once, in order
            assert_eq!(
                passes.iter().cloned().flatten().collect::<Vec<_>>(),
                (0..dispatches).collect::<Vec<_>>()
            );
            let micros = |us: usize| Duration::from_micros(us as u64);
            let copy = |there: bool| there.then_some(micros(500)).into_iter();
            let took = |p: &Range<usize>| micros(p.clone().map(|i| i + 1).sum());
            ran[turn] = copy(copies[0]).chain(passes.iter().map(took)).chain(copy(copies[1])).collect();
            most = most.max(ran[turn].len());
        }
        (clock, most)
    }

    #[test]
    fn steps_of_more_parts_than_timestamps_are_timed_over_several() {
        for (dispatches, steps) in [(3, 3), (996, 3), (997, 4), (1500, 4), (4000, 7)] {
            for copies in [[true, true], [false, true], [false, false]] {
                let (clock, most) = after(steps, dispatches, copies);
                assert!(most <= PASSES, "{most} passes");
                let others = copies.iter().filter(|c| **c).count();
                let parts = clock.parts();
                assert_eq!(parts.len(), dispatches + others, "{dispatches}");
                let of_dispatches = parts.iter().filter_map(|(what, time)| Some(((*what)?, *time)));
                for (i, (what, time)) in of_dispatches.enumerate() {
                    assert_eq!((what, time.as_micros() as usize), (i, i + 1));
                }
                let sum = dispatches * (dispatches + 1) / 2 + 500 * others;
                assert_eq!(clock.total().as_micros() as usize, sum);
            }
        }
    }

    #[test]
    fn parts_are_told_only_when_each_was_timed() {
        assert!(after(3, 1500, [true, true]).0.parts().is_empty());
        assert!(after(2, 3, [true, true]).0.parts().is_empty());
    }
}
