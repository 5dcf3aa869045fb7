//! Balance: which worker serves a client that has just been accepted.
//!
//! Decided from counts alone, by whoever has the client: the worker that accepted it, or the supervisor with one that lay unread in a dead
//! worker's inbox. The counts are hints (`shm::WorkerTable`); whatever they say, a client is with one worker.

use crate::ids::Slot;

/// How much more than the emptiest a worker may have before it passes clients on, as a part of the mean: one in so many. What comes and
/// goes by chance is not passed around for nothing; three times as much would still be within 5 % of the mean on either side.
const TOLERANCE: u64 = 32;

/// A worker that may be given a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub slot: Slot,
    /// Clients it has.
    pub clients: u32,
    /// Clients on their way to it.
    pub arriving: u32,
}

impl Candidate {
    fn total(&self) -> u64 {
        u64::from(self.clients) + u64::from(self.arriving)
    }
}

/// The candidate with the fewest clients, the first of several.
pub fn emptiest(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    candidates.min_by_key(Candidate::total)
}

/// To whom a worker passes a client that it has accepted, itself having `mine` and those on their way to it without this one. `None`: it
/// keeps it, because with it it has no more than its share (the mean, rounded up), or hardly more than the emptiest.
pub fn better_place(mine: u32, others: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    let with_it = u64::from(mine) + 1;
    let (mut workers, mut clients) = (1, with_it);
    let emptiest = emptiest(others.inspect(|other| {
        workers += 1;
        clients += other.total();
    }))?;
    let mean = clients / workers;
    let is_above_share = with_it > clients.div_ceil(workers);
    let is_far_above = with_it - emptiest.total().min(with_it) > (mean / TOLERANCE).max(1);
    (is_above_share && is_far_above).then_some(emptiest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn candidates(counts: &[u32]) -> impl Iterator<Item = Candidate> {
        counts.iter().enumerate().map(|(slot, &clients)| Candidate { slot: Slot(slot as u8), clients, arriving: 0 })
    }

    fn place(mine: u32, others: &[u32]) -> Option<u8> {
        better_place(mine, candidates(others)).map(|other| other.slot.0)
    }

    #[test]
    fn a_worker_keeps_its_share_and_passes_on_the_rest() {
        assert_eq!(place(0, &[0, 0, 0]), None);
        assert_eq!(place(1, &[0, 0, 0]), Some(0), "two here and none there are not even");
        assert_eq!(place(1, &[1, 1, 1]), None, "five clients: one worker has two");
        assert_eq!(place(2, &[1, 1, 0]), Some(2));
        assert_eq!(place(3, &[4, 3, 3]), None);
        assert_eq!(place(4, &[4, 4, 3]), Some(2));
        assert_eq!(place(5, &[9, 9, 9]), None, "whoever has least accepts in peace");
    }

    #[test]
    fn without_another_worker_everything_stays() {
        assert_eq!(place(0, &[]), None);
        assert_eq!(place(u32::MAX, &[]), None);
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let arriving = |arriving| [Candidate { slot: Slot(1), clients: 0, arriving }].into_iter();
        assert!(better_place(3, arriving(2)).is_some());
        assert!(better_place(3, arriving(3)).is_none());
        assert!(better_place(3, arriving(u32::MAX)).is_none());
    }

    #[test]
    fn of_many_a_few_more_do_not_matter() {
        assert_eq!(place(250, &[250, 250, 245]), None);
        assert_eq!(place(260, &[250, 250, 245]), Some(2));
        assert_eq!(place(31, &[30, 30, 30]), Some(0), "but of a few they do");
    }

    #[test]
    fn wherever_a_thousand_clients_are_accepted_nobody_ends_far_from_the_mean() {
        for workers in [2, 3, 4, 8, 16, 64] {
            for seed in 1..=20_u64 {
                let mut counts = vec![0_u32; workers];
                let mut random = seed;
                for accepted in 1..=1000_u32 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // Half of them at one worker: the kernel's hash can be far worse than even.
                    let at = if random >> 63 == 0 { 0 } else { (random >> 33) as usize % workers };
                    let others = candidates(&counts).filter(|other| other.slot.index() != at);
                    let to = better_place(counts[at], others).map_or(at, |other| other.slot.index());
                    counts[to] += 1;
                    if accepted == 16 {
                        assert!(counts.iter().all(|&count| count <= 16_u32.div_ceil(workers as u32)), "{counts:?}");
                    }
                }
                let mean = 1000.0 / workers as f64;
                let off = counts.iter().map(|&count| (f64::from(count) - mean).abs()).fold(0.0, f64::max);
                assert!(off <= (mean * 0.05).max(1.0), "{counts:?}");
            }
        }
    }

    #[test]
    fn newcomers_fill_the_gaps() {
        let mut counts = [100, 20, 60, 0];
        for _ in 0..220 {
            let others = candidates(&counts).filter(|other| other.slot != Slot(0));
            let to = better_place(counts[0], others).map_or(0, |other| other.slot.index());
            counts[to] += 1;
        }
        assert!(counts.iter().all(|count| (97..=103).contains(count)), "{counts:?}");
    }
}
