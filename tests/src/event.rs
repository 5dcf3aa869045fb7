//! What happens to a fleet while clients use it, from its beginning to its own end.

use crate::Fleet;

/// Something after which every worker is another process, and no client has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// RESTART.
    Restart,
}

impl Event {
    /// Has it happen; returns when it is over.
    #[track_caller]
    pub fn happen(self, fleet: &Fleet) {
        let (supervisor, before) = (fleet.pid(), fleet.all_workers());
        match self {
            Event::Restart => {
                let answer = fleet.console().query("restart");
                assert_eq!((answer.errors.len(), answer.tags.as_slice()), (0, &["RESTART".to_owned()][..]), "{answer:?}");
            }
        }
        let after = fleet.all_workers();
        assert!(fleet.pid() == supervisor && before.iter().all(|pid| !after.contains(pid)), "{self:?}: {before:?} {after:?}");
    }
}
