//! The way back from a new image that turns out to be bad.
//!
//! An image that has been executed in place of another one arms the guard as its first act. Should it panic, be ended by a fatal signal or
//! not lift the guard in time, the image before is executed again in its place, with the same process id, children and descriptors. What this
//! cannot help against is an end before the guard (a loader that fails) and SIGKILL.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{alarm, execve, fexecve};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

/// The signals by which a process ends that has gone wrong, and SIGALRM, by which one ends that goes nowhere.
const SIGNALS: [Signal; 8] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGALRM,
];

/// Made before anything can go wrong, since a signal handler may allocate nothing.
struct Plan {
    path: CString,
    /// The arguments for each of [`SIGNALS`].
    arguments: Vec<Pointers>,
    environment: Pointers,
    /// For reasons that are not known beforehand.
    make: Box<Make>,
}

/// The arguments for a reason.
type Make = dyn Fn(&str) -> Vec<CString> + Send + Sync;

/// Strings that are never freed, and a null pointer behind them.
struct Pointers(Vec<*const c_char>);

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        Self(strings.into_iter().map(|string| string.into_raw().cast_const()).chain([ptr::null()]).collect())
    }
}

/// Not null while the guard is armed; never freed.
static PLAN: AtomicPtr<Plan> = AtomicPtr::new(ptr::null_mut());

/// An armed guard.
#[must_use = "lift it, or the old image comes back"]
pub struct Guard {
    before: Vec<(Signal, SigAction)>,
}

/// Arms the guard: `old` is executed with the arguments that `arguments` gives for a reason, unless the guard is lifted within `limit` (whole seconds).
/// `old` stays open, under its number, until then; whatever the old image needs must not be close-on-exec.
pub fn arm<F>(old: BorrowedFd<'_>, arguments: F, limit: Duration) -> io::Result<Guard>
where
    F: Fn(&str) -> Vec<CString> + Send + Sync + 'static,
{
    let reason = |signal: &Signal| match signal {
        Signal::SIGALRM => format!("was not ready within {} s", limit.as_secs()),
        other => format!("was ended by signal {} ({other})", *other as i32),
    };
    let plan = Plan {
        path: CString::new(format!("/proc/self/fd/{}", old.as_raw_fd()))?,
        arguments: SIGNALS.iter().map(|signal| Pointers::new(arguments(&reason(signal)))).collect(),
        environment: Pointers::new(environment()),
        make: Box::new(arguments),
    };
    PLAN.store(Box::into_raw(Box::new(plan)), Ordering::SeqCst);
    // Each thread of std's has an alternate stack: a stack that has overflowed runs no handler.
    let action = SigAction::new(SigHandler::Handler(signalled), SaFlags::SA_ONSTACK, SigSet::empty());
    let mut before = Vec::new();
    for signal in SIGNALS {
        // SAFETY: the handler makes only calls that a signal handler may make.
        before.push((signal, unsafe { sigaction(signal, &action) }?));
    }
    alarm::set(u32::try_from(limit.as_secs()).unwrap_or(u32::MAX));
    Ok(Guard { before })
}

/// Whether a guard is armed.
pub fn is_armed() -> bool {
    !PLAN.load(Ordering::SeqCst).is_null()
}

impl Guard {
    /// The image is good.
    pub fn lift(self) {
        alarm::cancel();
        PLAN.store(ptr::null_mut(), Ordering::SeqCst);
        for (signal, action) in &self.before {
            // SAFETY: what it was before, by std or by the system's default.
            let _ = unsafe { sigaction(*signal, action) };
        }
    }
}

/// Executes the image before, for this reason. Comes back only if that cannot be, or no guard is armed.
pub fn fall_back(reason: &str) -> io::Error {
    let plan = PLAN.swap(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: null, or a plan that was leaked by `arm` and is never changed.
    let Some(plan) = (unsafe { plan.as_ref() }) else { return io::ErrorKind::NotFound.into() };
    alarm::cancel();
    match execve(&plan.path, &(plan.make)(reason), &environment()) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

extern "C" fn signalled(signal: libc::c_int) {
    let plan = PLAN.swap(ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: null, or a plan that was leaked by `arm` and is never changed.
    if let Some(plan) = unsafe { plan.as_ref() } {
        let arguments = SIGNALS.iter().position(|known| *known as libc::c_int == signal).and_then(|at| plan.arguments.get(at));
        if let Some(arguments) = arguments {
            // SAFETY: sigset_t may be all zeros; the calls are async-signal-safe, and the arrays end with a null pointer. The signal is blocked in its
            // handler, and a mask outlives execve.
            unsafe {
                let mut unblocked: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut unblocked);
                libc::sigaddset(&raw mut unblocked, signal);
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const unblocked, ptr::null_mut());
                // It would go off in the other image.
                libc::alarm(0);
                libc::execve(plan.path.as_ptr(), arguments.0.as_ptr(), plan.environment.0.as_ptr());
            }
        }
    }
    // SAFETY: both are async-signal-safe. The signal does what it does without a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Executes an open binary in place of this image, with this process's environment. Comes back only if that cannot be, with the reason.
pub fn execute(binary: BorrowedFd<'_>, arguments: &[CString]) -> io::Error {
    alarm::cancel();
    match fexecve(binary, arguments, &environment()) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

fn environment() -> Vec<CString> {
    let line = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut line = name.into_vec();
        line.push(b'=');
        line.extend(value.into_vec());
        CString::new(line).ok()
    };
    std::env::vars_os().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::process::Command;

    const FAULT: &str = "PGFLEET_TEST_FAULT";

    /// The new image: goes wrong with the guard armed. It is run by `whatever_goes_wrong`, in a process of its own.
    #[test]
    #[ignore = "ends the process that it runs in"]
    fn goes_wrong() {
        let Ok(fault) = std::env::var(FAULT) else { return };
        let old = File::open("/bin/sh").unwrap();
        let arguments = |reason: &str| {
            let words = ["sh", "-c", "echo \"back because it $0\"; kill -ALRM $$; echo alive", reason];
            words.map(|word| CString::new(word).unwrap()).to_vec()
        };
        let guard = arm(old.as_fd(), arguments, Duration::from_secs(1)).unwrap();
        match fault.as_str() {
            "abort" => std::process::abort(),
            "segv" => nix::sys::signal::raise(Signal::SIGSEGV).unwrap(),
            "overflow" => assert!(overflow(1) > 0),
            "thread" => std::thread::spawn(|| overflow(1)).join().map(drop).unwrap(),
            "hang" => std::thread::sleep(Duration::from_secs(20)),
            "says so" => drop(fall_back("said so")),
            "lifted" => {
                guard.lift();
                std::process::abort();
            }
            _ => {}
        }
    }

    #[allow(unconditional_recursion, clippy::only_used_in_recursion)]
    fn overflow(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 1024]);
        overflow(room[7] + 1) + room[9]
    }

    fn run(fault: &str) -> std::process::Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sys::guard::tests::goes_wrong", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(FAULT, fault).output().unwrap()
    }

    #[test]
    fn whatever_goes_wrong_the_image_before_comes_back() {
        for (fault, reason) in [
            ("abort", "was ended by signal 6 (SIGABRT)"),
            ("segv", "was ended by signal 11 (SIGSEGV)"),
            ("overflow", "was ended by signal 11 (SIGSEGV)"),
            ("thread", "was ended by signal 11 (SIGSEGV)"),
            ("hang", "was not ready within 1 s"),
            ("says so", "said so"),
        ] {
            let output = run(fault);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(&format!("back because it {reason}")), "{fault}: {output:?}");
            // No handler is left, and the signal is not blocked: it ends the shell.
            assert!(!text.contains("alive"), "{fault}: {output:?}");
        }
    }

    #[test]
    fn a_guard_that_is_lifted_brings_nothing_back() {
        let output = run("lifted");
        assert!(!output.status.success());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("back"), "{output:?}");
    }
}
