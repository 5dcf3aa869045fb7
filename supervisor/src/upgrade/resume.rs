//! An image that goes on with a fleet that another has written down.
//!
//! Its first act is the guard: whatever goes wrong before its first worker is ready brings the image before back.

use super::Arguments;
use crate::engine::Engine;
use crate::estate;
use crate::fleet::Resumed;
use crate::last_breath;
use crate::pidfile::Pidfile;
use shared::sys::guard::{self, Guard};
use shared::sys::process;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long the guard waits: longer than the fleet waits for its first worker.
const LIMIT: Duration = Duration::from_secs(20);

/// What the image before needs to come back, as long as it may have to.
pub(crate) struct WayBack {
    guard: Guard,
    /// Closed by `close` alone: the guard goes by its number, however this image fails.
    old: ManuallyDrop<OwnedFd>,
    /// What the image before has written down, the same.
    manifest: ManuallyDrop<OwnedFd>,
}

impl WayBack {
    /// The image before.
    pub(crate) fn old(&self) -> BorrowedFd<'_> {
        self.old.as_fd()
    }

    /// What it has written down is not what is to be gone on with.
    pub(crate) fn outdate(&self) -> io::Result<()> {
        process::set_close_on_exec(&*self.manifest, true)
    }

    /// There is none any more.
    pub(crate) fn close(self) {
        self.guard.lift();
        drop((ManuallyDrop::into_inner(self.old), ManuallyDrop::into_inner(self.manifest)));
    }
}

/// Goes on with the fleet, to its end.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match go_on(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(line) => {
            let line = give_up(line);
            // The workers serve on; whoever is started next adopts them.
            shared::fatal!("{line}");
            eprintln!("pgfleet: {line}");
            ExitCode::FAILURE
        }
    }
}

/// This image cannot go on, for this reason: the image before does, if there is one. Else the reason is given back.
pub(crate) fn give_up(reason: String) -> String {
    if guard::is_armed() {
        let error = guard::fall_back(&reason);
        return format!("{reason}; and the version before cannot be executed: {error}");
    }
    reason
}

fn go_on(arguments: &Arguments) -> Result<u8, String> {
    let failed = |error: io::Error| format!("cannot go on with the fleet: {}", crate::listen::reason(&error));
    let mut numbers = vec![arguments.manifest];
    numbers.extend(arguments.old);
    let mut fds = shared::sys::inherited::claim(&numbers).map_err(failed)?.into_iter().flatten().map(ManuallyDrop::new);
    let (Some(manifest), old) = (fds.next(), fds.next()) else { return Err("the estate is missing".to_owned()) };
    let number = arguments.manifest;
    let guard = match &old {
        Some(old) => {
            // It can be executed all the same, and does not stay open in itself.
            process::set_close_on_exec(&**old, true).map_err(failed)?;
            let back = move |reason: &str| Arguments { manifest: number, old: None, reason: Some(reason.to_owned()) }.to_strings();
            Some(guard::arm(old.as_fd(), back, LIMIT).map_err(failed)?)
        }
        None => None,
    };
    // Else the number of the descriptor that it was executed from.
    let _ = process::set_name("pgfleet");
    last_breath::on_panic();
    let (estate, descriptors) = estate::take_over(manifest.as_fd())?;
    let settings = &estate.config.settings;
    let pidfile = settings.pidfile.as_str();
    let _pidfile = (!pidfile.is_empty()).then(|| {
        last_breath::remove_at_end(pidfile.into());
        Pidfile::written(Path::new(pidfile))
    });
    let how = arguments.reason.clone().map_or(Resumed::New, Resumed::Back);
    let way_back = if let Some((guard, old)) = guard.zip(old) {
        Some(WayBack { guard, old, manifest })
    } else {
        drop(ManuallyDrop::into_inner(manifest));
        None
    };
    Ok(Engine::resume(estate, descriptors, way_back)?.run(crate::fleet::Event::Resumed(how)))
}
