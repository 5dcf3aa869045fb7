//! Certificates that are replaced on disk, by a tool that renews them, come into force without anybody saying so.
//!
//! Looking is cheap: a few files, once a second. They are looked at rather than watched by inotify, which sees nothing of a change behind a
//! symbolic link or on a network's file system. A certificate and its key are replaced one after the other, so nothing is read until what is
//! there has been the same twice; and if it does not fit together then, it is read again when it changes again.

use crate::fleet::Event;
use crate::office::{Input, Office};
use shared::config::Config;
use shared::tls::Stamp;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const BEAT: Duration = Duration::from_secs(1);

/// What the files are, in the order of the configuration; `None` for one that cannot be looked at.
type Stamps = Vec<Option<Stamp>>;

/// What was seen.
#[derive(Debug, Default)]
struct Watch {
    last: Stamps,
    /// The state that was reported last: once is enough, whatever became of it.
    told: Stamps,
}

impl Watch {
    /// Takes what the files were when they were read and what they are now; gives whether they are to be read again.
    fn is_due(&mut self, read: &Stamps, now: Stamps) -> bool {
        let settled = now == self.last;
        let due = now != *read && settled && now != self.told;
        if due {
            self.told.clone_from(&now);
        }
        self.last = now;
        due
    }
}

/// Starts the thread that looks.
pub(crate) fn start(office: Arc<Office>) -> io::Result<()> {
    let run = move || {
        let mut watch = Watch::default();
        loop {
            std::thread::sleep(BEAT);
            let (read, now) = stamps(&office.config());
            if watch.is_due(&read, now) {
                office.tell(Input::Event(Event::TlsFilesChanged));
            }
        }
    };
    std::thread::Builder::new().name("tls files".into()).spawn(run)?;
    Ok(())
}

fn stamps(config: &Config) -> (Stamps, Stamps) {
    let files = config.client_tls.iter().chain(config.server_tls.iter());
    files.map(|pem| (Some(pem.stamp()), Stamp::of(pem.path()))).unzip()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            vec![Stamp::of(&path)]
        };
        let read = write("1");
        let mut watch = Watch::default();
        assert!(!watch.is_due(&read, read.clone()) && !watch.is_due(&read, read.clone()));
        let first = write("22");
        assert!(!watch.is_due(&read, first.clone()));
        let second = write("333");
        assert!(!watch.is_due(&read, second.clone()), "it is still being changed");
        assert!(watch.is_due(&read, second.clone()));
        assert!(!watch.is_due(&read, second.clone()), "it was refused; nothing has changed since");
        let gone = vec![None];
        assert!(!watch.is_due(&read, gone.clone()) && watch.is_due(&read, gone.clone()));
        assert!(!watch.is_due(&second, second.clone()) && !watch.is_due(&second, second.clone()));
    }
}
