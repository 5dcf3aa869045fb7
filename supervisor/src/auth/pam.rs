//! Checks by PAM. Its modules run in helper processes ([`super::helper`]); a thread here stands for each and waits for it.
//!
//! A thread is started when a check comes and all others are busy, up to [`MOST`], and ends with its helper when there has been nothing to do
//! for a while. A helper that crashes costs one check, one that takes longer than its client may is killed.

use super::helper::{Question, Said};
use super::{Check, QUEUE};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shared::control::{self, MAX_MESSAGE, PasswordOutcome};
use shared::sys::{seqpacket, spawn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The most helpers at a time.
const MOST: usize = 16;

/// A helper that has had nothing to do for so long is ended.
const IDLE: Duration = Duration::from_secs(60);

type Job = (String, Check);

/// The queue, and those who serve it.
#[derive(Debug)]
pub(super) struct Pam {
    sender: Sender<Job>,
    jobs: Receiver<Job>,
    threads: Arc<AtomicUsize>,
    idle: Arc<AtomicUsize>,
}

impl Default for Pam {
    fn default() -> Self {
        let (sender, jobs) = bounded(QUEUE);
        Self { sender, jobs, threads: Arc::default(), idle: Arc::default() }
    }
}

impl Pam {
    pub(super) fn check(&self, service: String, check: Check) {
        if let Err(TrySendError::Full((_, check)) | TrySendError::Disconnected((_, check))) = self.sender.try_send((service, check))
        {
            return check.fail("PAM", "too many checks are waiting for PAM");
        }
        if self.idle.load(Ordering::SeqCst) < self.jobs.len() && take_place(&self.threads) {
            self.start_thread();
        }
    }

    /// Its place is taken. Two callers at once may start one more than needed, which ends again.
    fn start_thread(&self) {
        let (jobs, threads, idle) = (self.jobs.clone(), Arc::clone(&self.threads), Arc::clone(&self.idle));
        let serve = move || serve(&jobs, &threads, &idle);
        if let Err(error) = std::thread::Builder::new().name("pam".into()).spawn(serve) {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            log::error!("no thread for PAM: {error}");
            // With nobody to serve the queue, nobody may wait in it.
            if self.threads.load(Ordering::SeqCst) == 0 {
                self.jobs.try_iter().for_each(|(_, check)| check.fail("PAM", "no thread for it"));
            }
        }
    }
}

/// Counts one thread more if there may be another.
fn take_place(threads: &AtomicUsize) -> bool {
    threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| (count < MOST).then_some(count + 1)).is_ok()
}

fn serve(jobs: &Receiver<Job>, threads: &AtomicUsize, idle: &AtomicUsize) {
    let mut helper = None;
    loop {
        idle.fetch_add(1, Ordering::SeqCst);
        let job = jobs.recv_timeout(IDLE);
        idle.fetch_sub(1, Ordering::SeqCst);
        match job {
            Ok((service, check)) => decide(&mut helper, service, check),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                threads.fetch_sub(1, Ordering::SeqCst);
                // For a check that has come just before that nobody else was started.
                if jobs.is_empty() || !take_place(threads) {
                    return;
                }
            }
        }
    }
}

fn decide(helper: &mut Option<Helper>, service: String, mut check: Check) {
    if check.is_late() {
        return check.fail("PAM", "it has waited too long for its turn");
    }
    let question = Question {
        service,
        user: check.user.clone(),
        password: std::mem::take(&mut check.password),
        address: check.address.clone(),
    };
    let asked = match helper.take().map_or_else(Helper::start, Ok) {
        Ok(fresh) => fresh.ask(&question, check.until).map(|(said, fresh)| {
            *helper = Some(fresh);
            said
        }),
        Err(error) => Err(format!("could not start a helper process: {error}")),
    };
    match asked {
        Ok(Said { outcome: PasswordOutcome::Unavailable, reason }) | Err(reason) => check.fail("PAM", &reason),
        Ok(Said { outcome, reason }) => {
            log::debug!("PAM about user '{}': {reason}", check.user);
            check.answer(outcome);
        }
    }
}

/// A helper process. Dropping it ends it, whatever it is doing.
struct Helper {
    control: OwnedFd,
    pid: Pid,
}

impl Helper {
    fn start() -> io::Result<Self> {
        let (control, theirs) = seqpacket::pair()?;
        let pid = spawn::spawn_worker(Path::new("/proc/self/exe"), &["pam-helper"], theirs)?;
        Ok(Self { control, pid: Pid::from_raw(pid as i32) })
    }

    /// Asks it one thing. It is given back only if it has answered.
    fn ask(self, question: &Question, until: Instant) -> Result<(Said, Self), String> {
        let bytes = Zeroizing::new(control::encode(question).map_err(|error| error.to_string())?);
        seqpacket::send(self.control.as_fd(), &bytes, &[]).map_err(|error| format!("the helper process is gone: {error}"))?;
        if !self.wait(until) {
            return Err("PAM's modules have not answered in the client's time to log in".into());
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = seqpacket::recv(self.control.as_fd(), &mut buffer).map_err(|error| error.to_string())?;
        if received.len == 0 {
            return Err("a PAM module has ended the helper process".into());
        }
        let said = control::decode(&buffer[..received.len]).map_err(|error| error.to_string())?;
        Ok((said, self))
    }

    fn wait(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)], left) {
                Err(Errno::EINTR) => {}
                Ok(0) if Instant::now() < until => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_than_the_most() {
        let threads = AtomicUsize::new(0);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 * MOST {
                scope.spawn(|| taken.fetch_add(usize::from(take_place(&threads)), Ordering::SeqCst));
            }
        });
        assert_eq!((taken.into_inner(), threads.into_inner()), (MOST, MOST));
    }
}
