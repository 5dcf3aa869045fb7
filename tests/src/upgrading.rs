//! Upgrades, and those that go wrong on purpose.

use crate::{Client, Fleet, process};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// The command, to this binary or the one that runs.
pub fn upgrade(fleet: &Fleet, to: Option<&Path>) -> Output {
    let mut arguments = vec!["upgrade"];
    if let Some(to) = to {
        arguments.extend(["--binary", to.to_str().unwrap()]);
    }
    fleet.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// There are as many workers as before, and none of those.
#[track_caller]
pub fn is_upgraded(fleet: &Fleet, before: &[u32]) {
    let after = fleet.all_workers();
    assert!(after.len() == before.len() && before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
}

/// A binary under this name in the fleet's folder.
pub fn copy(fleet: &Fleet, from: &Path, name: &str) -> PathBuf {
    let to = fleet.folder().join(name);
    // It may be what is executed at the moment.
    let _ = fs::remove_file(&to);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
    to
}

/// A client that is in a transaction and stays there while something fails.
pub struct Unmoved {
    workers: Vec<u32>,
    client: Client,
}

impl Unmoved {
    /// One that has begun it now.
    pub fn new(fleet: &Fleet) -> Self {
        let mut client = fleet.client();
        assert_eq!(client.query("begin").status, 'T');
        Self { workers: fleet.all_workers(), client }
    }

    /// It ends its transaction, and the workers are those that they were.
    #[track_caller]
    pub fn check(mut self, fleet: &Fleet) {
        assert_eq!(fleet.all_workers(), self.workers);
        assert_eq!(self.client.query("commit").errors.len(), 0);
        assert_eq!(fleet.client().value("select 1"), "1");
    }
}

/// The worker that the new image of this file has started, as soon as there is one; `None`: the upgrade was quicker.
fn canary(fleet: &Fleet, image: &Path, mut ended: impl FnMut() -> bool) -> Option<u32> {
    let of_image = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == image);
    while !ended() {
        if of_image(&fleet.pid())
            && let Some(pid) = process::children(fleet.pid()).into_iter().find(of_image)
        {
            return Some(pid);
        }
    }
    None
}

/// Upgrades, and does something to the canary before it is ready, told how to see that it is too late. Gives what the command has said, and who must
/// not have noticed; `None`: it was too late, and the fleet is upgraded.
pub fn try_to_disturb(fleet: &Fleet, binary: &Path, act: impl Fn(u32, &dyn Fn() -> bool)) -> Option<(Output, Unmoved)> {
    let ready = || fleet.logged("UPGRADE: the first worker is ready");
    let before = ready();
    let unmoved = Unmoved::new(fleet);
    let image = copy(fleet, binary, &format!("new{before}"));
    let arguments = ["upgrade", "--binary", image.to_str().unwrap()];
    let mut command = fleet.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let too_late = || ready() > before;
    if let Some(pid) = canary(fleet, &image, || command.try_wait().unwrap().is_some()) {
        act(pid, &too_late);
        if too_late() {
            process::signal(pid, Signal::SIGCONT);
        }
    }
    let output = command.wait_with_output().unwrap();
    if too_late() {
        fleet.all_workers();
        return None;
    }
    // It is not what the next upgrade is to.
    fs::remove_file(image).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    Some((output, unmoved))
}

/// The same until it is not too late, to each of `binaries` in turn.
pub fn disturb(fleet: &Fleet, binaries: &[&Path], act: impl Fn(u32, &dyn Fn() -> bool)) -> (Output, Unmoved) {
    let first = fleet.logged("UPGRADE: the first worker is ready");
    (first..first + 50)
        .find_map(|attempt| try_to_disturb(fleet, binaries[attempt % binaries.len()], &act))
        .expect("the canary was always ready before")
}
