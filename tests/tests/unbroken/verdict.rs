//! What has been seen, as a table, and which promises that breaks.

use crate::footprint::Footprint;
use end_to_end::traffic::{Figures, Phase, Plan};
use end_to_end::{Event, Seen, network};
use std::fmt::{Display, Formatter, Result};
use std::time::Duration;

/// The longest that a client may wait, apart from what its query takes.
const PAUSE: Duration = Duration::from_millis(250);
/// On a machine that has nothing else to do PostgreSQL's own clients wait for less than this.
const QUIET: Duration = Duration::from_millis(50);
/// So many times the fleet is looked at after the first events and after the last ones; the least that was seen counts.
const LOOKS: usize = 3;
/// Clients that come and go, and cancel requests, have descriptors or not when these are counted.
const DESCRIPTORS_TO_AND_FRO: usize = 6;
/// How much the processes' memory may differ at two looks: what is in buffers just then.
const MEMORY_TO_AND_FRO: u64 = 8 << 20;
const SUPERVISOR_MEMORY_TO_AND_FRO: u64 = 2 << 20;

/// Counters of the kernel's: what became of connections.
pub(crate) struct Resets([(&'static str, u64); 4]);

impl Resets {
    pub(crate) fn so_far() -> Resets {
        let names = [("TcpExt", "ListenDrops"), ("TcpExt", "ListenOverflows"), ("Tcp", "EstabResets"), ("Tcp", "AttemptFails")];
        Resets(names.map(|(group, name)| (name, network::counter(group, name))))
    }

    pub(crate) fn since(mut self, before: &Resets) -> Resets {
        for ((_, count), (_, earlier)) in self.0.iter_mut().zip(&before.0) {
            *count -= earlier;
        }
        self
    }
}

pub(crate) struct Outcome<'a> {
    pub(crate) long: bool,
    pub(crate) plan: Plan,
    pub(crate) events: &'a [Event],
    pub(crate) took: Vec<Duration>,
    pub(crate) clients: usize,
    pub(crate) figures: Vec<Figures>,
    /// One after each event.
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) seen: Seen,
    /// Servers that are there after the events and were not before, or the other way round.
    pub(crate) opened: usize,
    pub(crate) resets: Option<Resets>,
    pub(crate) log: String,
}

impl Outcome<'_> {
    fn limit(&self) -> usize {
        self.plan.session_servers() + self.plan.transaction_servers()
    }

    fn longest(&self, direct: bool, phase: Phase) -> Duration {
        let those = self.figures.iter().filter(|figures| figures.direct == direct);
        those.map(|figures| figures.longest(phase)).max().unwrap_or_default()
    }

    /// The longest that a client may have waited.
    fn allowed(&self) -> Duration {
        let machine = self.longest(true, Phase::Events);
        PAUSE
            + match self.long {
                true if machine < QUIET => Duration::ZERO,
                true => machine,
                // Directly a query waits for two processes to have their turn; through the fleet for more, some of which have just then more
                // to do than their share.
                false => self.longest(false, Phase::Calm).max(5 * machine),
            }
    }

    fn complaints(&self) -> usize {
        let levels = [" WARNING ", " ERROR ", " FATAL "];
        self.log.lines().filter(|line| levels.iter().any(|level| line.contains(level))).count()
    }

    /// What does not hold.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut demand = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        let (longest, allowed) = (self.longest(false, Phase::Events), self.allowed());
        demand(longest < allowed, format!("a client waited for {longest:?}, more than {allowed:?}"));
        demand(self.seen.most <= self.limit() as i64, format!("{} backends, more than {}", self.seen.most, self.limit()));
        demand(self.opened == 0, format!("{} servers were opened or closed", self.opened));
        for (name, count) in self.resets.iter().flat_map(|resets| resets.0) {
            demand(count == 0, format!("{name} is {count}"));
        }
        demand(self.complaints() == 0, format!("{} complaints in the log", self.complaints()));
        let looks = self.footprints.len().min(LOOKS);
        let few = Footprint::least(&self.footprints[..looks]);
        let many = Footprint::least(&self.footprints[self.footprints.len() - looks..]);
        if let Some((few, many)) = few.zip(many) {
            let grown = many.descriptors > few.descriptors + DESCRIPTORS_TO_AND_FRO * self.plan.each;
            demand(!grown, format!("descriptors have grown from {} to {}", few.descriptors, many.descriptors));
            for (what, before, after, slack) in [
                ("memory", few.memory, many.memory, MEMORY_TO_AND_FRO),
                ("the supervisor's memory", few.supervisor_memory, many.supervisor_memory, SUPERVISOR_MEMORY_TO_AND_FRO),
            ] {
                demand(after <= before + slack, format!("{what} has grown from {before} to {after} bytes"));
            }
        }
        broken
    }

    fn line(f: &mut Formatter<'_>, what: &str, value: impl Display) -> Result {
        writeln!(f, "{what:<34} {value}")
    }

    /// At five moments of the run, and the extremes.
    fn course(f: &mut Formatter<'_>, what: &str, unit: u64, values: impl Iterator<Item = u64>) -> Result {
        let values: Vec<f64> = values.map(|value| value as f64 / unit as f64).collect();
        let [first, .., _] = values.as_slice() else { return Ok(()) };
        let (low, high) = values.iter().fold((*first, *first), |(low, high), value| (low.min(*value), high.max(*value)));
        let digits = usize::from(unit != 1);
        let course: Vec<String> = (0..5).map(|quarter| format!("{:.digits$}", values[(values.len() - 1) * quarter / 4])).collect();
        Self::line(f, what, format!("{}; between {low:.digits$} and {high:.digits$}", course.join(", ")))
    }
}

impl Display for Outcome<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut took = self.took.clone();
        took.sort_unstable();
        let [restarts, upgrades] =
            [Event::Restart, Event::Upgrade].map(|kind| self.events.iter().filter(|event| **event == kind).count());
        Self::line(f, "events", format!("{restarts} restarts, {upgrades} upgrades"))?;
        if let [.., longest] = took.as_slice() {
            Self::line(f, "one took", format!("{:.0?} in the middle, {longest:.0?} at most", took[took.len() / 2]))?;
        }
        let answers: u64 = self.figures.iter().map(|figures| figures.answers).sum();
        let connections = self.clients + 2 * self.plan.each * (self.plan.idle - 1);
        Self::line(f, "load", format!("{connections} connections at once, {answers} answers, all of them right"))?;
        for (what, direct) in [("longest pause of a client", false), ("... of PostgreSQL's own clients", true)] {
            let [calm, events] = [Phase::Calm, Phase::Events].map(|phase| self.longest(direct, phase));
            Self::line(f, what, format!("{events:.1?} during events, {calm:.1?} before"))?;
        }
        Self::line(f, "backends at most", format!("{} of {} ({} looks)", self.seen.most, self.limit(), self.seen.samples))?;
        Self::line(f, "servers opened or closed", self.opened)?;
        Self::course(f, "descriptors", 1, self.footprints.iter().map(|footprint| footprint.descriptors as u64))?;
        Self::course(f, "memory of all processes, MiB", 1 << 20, self.footprints.iter().map(|footprint| footprint.memory))?;
        Self::course(
            f,
            "the supervisor's memory, MiB",
            1 << 20,
            self.footprints.iter().map(|footprint| footprint.supervisor_memory),
        )?;
        match &self.resets {
            Some(resets) => resets.0.iter().try_for_each(|(name, count)| Self::line(f, name, count))?,
            None => Self::line(f, "resets", "not counted: a network of one's own is root's to have")?,
        }
        Self::line(f, "complaints in the log", self.complaints())?;
        writeln!(f, "\n{:<52} {:>9} {:>10} {:>10}", "longest pauses", "answers", "before", "events")?;
        let mut figures: Vec<&Figures> = self.figures.iter().collect();
        figures.sort_by_key(|figures| std::cmp::Reverse(figures.longest(Phase::Events)));
        for figures in figures {
            let [calm, events] = [Phase::Calm, Phase::Events].map(|phase| format!("{:.1?}", figures.longest(phase)));
            writeln!(f, "{:<52} {:>9} {calm:>10} {events:>10}", figures.name, figures.answers)?;
        }
        Ok(())
    }
}
