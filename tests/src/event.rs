//! What happens to a fleet while clients use it, from its beginning to its own end.

use crate::Fleet;
use crate::program::stderr;
use std::process::Stdio;

/// Something after which every worker is another process, and no client has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// RESTART.
    Restart,
    /// The supervisor executes the installed binary in place, which then restarts the workers.
    Upgrade,
}

impl Event {
    /// Has it happen; returns when it is over.
    #[track_caller]
    pub fn happen(self, fleet: &Fleet) {
        let (supervisor, before) = (fleet.pid(), fleet.all_workers());
        let command = match self {
            Event::Restart => "restart",
            Event::Upgrade => "upgrade",
        };
        let output = fleet.command(&[command]).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{self:?}: {}", stderr(&output));
        let after = fleet.all_workers();
        assert!(fleet.pid() == supervisor && before.iter().all(|pid| !after.contains(pid)), "{self:?}: {before:?} {after:?}");
    }
}
