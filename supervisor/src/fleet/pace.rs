//! How many idle clients may leave by now, and from which workers.

use super::event::Moment;
use serde::{Deserialize, Serialize};
use shared::ids::Slot;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many in a second, whoever asks how often.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pace {
    per_second: u32,
    last: Moment,
    /// Millionths of a turn.
    rest: u64,
}

/// A turn that comes later than this makes up for no more: clients are not to leave all at once because this process was stopped.
const LATE: Duration = Duration::from_secs(1);

impl Pace {
    pub(super) fn new(per_second: u32, now: Moment) -> Self {
        Self { per_second, last: now, rest: 0 }
    }

    /// How many since it was asked last.
    pub(super) fn turns(&mut self, now: Moment) -> u32 {
        let passed = now.saturating_sub(self.last).min(LATE);
        self.last = now;
        let due = self.rest + passed.as_micros() as u64 * u64::from(self.per_second);
        self.rest = due % 1_000_000;
        u32::try_from(due / 1_000_000).unwrap_or(u32::MAX)
    }
}

/// Shares turns among workers in proportion to how many idle clients each has.
pub(super) fn share(turns: u32, idle: &BTreeMap<Slot, u32>) -> BTreeMap<Slot, u32> {
    let mut slots: Vec<(Slot, u64)> = idle.iter().map(|(slot, clients)| (*slot, u64::from(*clients))).collect();
    slots.sort_by_key(|(_, clients)| std::cmp::Reverse(*clients));
    let mut clients: u64 = slots.iter().map(|(_, clients)| clients).sum();
    let mut turns = u64::from(turns).min(clients);
    let mut shares = BTreeMap::new();
    for (slot, of) in slots {
        // Who has most is first, and gets what does not divide.
        let part = if clients == 0 { 0 } else { (turns * of).div_ceil(clients) };
        (turns, clients) = (turns - part, clients - of);
        shares.insert(slot, part as u32);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_holds_however_often_it_is_asked() {
        let ms = Duration::from_millis;
        for (per_second, step, steps, expected) in [
            (1, 250, 40, 10),
            (3, 250, 4, 3),
            (100, 250, 8, 200),
            (100, 7, 1000, 700),
            (1_000_000, 1, 10, 10_000),
            (7, 1000, 3, 21),
        ] {
            let mut pace = Pace::new(per_second, ms(5));
            let turns: u32 = (1..=steps).map(|i| pace.turns(ms(5 + i * step))).sum();
            assert_eq!(turns, expected, "{per_second} a second, every {step} ms");
        }
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let mut pace = Pace::new(10, Moment::ZERO);
        assert_eq!(pace.turns(Duration::from_secs(60)), 10);
        assert_eq!(Pace::new(u32::MAX, Moment::ZERO).turns(Duration::from_secs(60)), u32::MAX);
    }

    #[test]
    fn shares_add_up_and_follow_the_numbers() {
        let shared = |turns, idle: &[u32]| {
            let idle = idle.iter().enumerate().map(|(slot, clients)| (Slot(slot as u8), *clients)).collect();
            share(turns, &idle).into_values().collect::<Vec<u32>>()
        };
        assert_eq!(shared(10, &[90, 10]), [9, 1]);
        assert_eq!(shared(10, &[5, 0, 5]), [5, 0, 5]);
        assert_eq!(shared(1, &[3, 4, 4]), [0, 1, 0]);
        assert_eq!(shared(100, &[3, 4]), [3, 4]);
        assert_eq!(shared(7, &[1, 1, 1, 1, 96]), [0, 0, 0, 0, 7]);
        assert_eq!(shared(5, &[0, 0]), [0, 0]);
        assert_eq!(shared(0, &[9]), [0]);
        assert!(shared(5, &[]).is_empty());
    }
}
