//! The process that runs PAM's modules: `pgfleet pam-helper`, started by [`super::pam`] from this process's own image.
//!
//! A module may crash, hang, fork, or keep what it allocates; here it does so to nobody but itself. One question at a time comes in as a datagram
//! and is answered by one; when the supervisor is gone, the socket ends and so does this.

use nonstick::items::ItemsMut;
use nonstick::{AuthnFlags, ConversationAdapter, ErrorCode, PamShared, Transaction, TransactionBuilder};
use serde::{Deserialize, Serialize};
use shared::auth::Password;
use shared::control::{self, MAX_MESSAGE, PasswordOutcome};
use shared::sys::{process, seqpacket};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use zeroize::Zeroize;

/// What the helper is asked.
#[derive(Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) service: String,
    pub(super) user: String,
    pub(super) password: Password,
    /// The client's address, for PAM_RHOST.
    pub(super) address: String,
}

/// What it answers, with PAM's words for the log.
#[derive(Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) outcome: PasswordOutcome,
    pub(super) reason: String,
}

/// The helper's life.
pub(crate) fn run() -> ExitCode {
    let _ = process::set_name("pgfleet pam");
    // Programs that a module starts are to end as they always do.
    let _ = process::fleet_signals().thread_unblock();
    // A module that hangs would keep this process when the supervisor is killed.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    match process::take_control() {
        Ok(control) => serve(&control),
        Err(error) => {
            eprintln!("pgfleet: `pam-helper` is started by the supervisor only: no control socket: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(control: &OwnedFd) -> ExitCode {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = match seqpacket::recv(control.as_fd(), &mut buffer) {
            Ok(received) if received.len > 0 => received.len,
            _ => return ExitCode::SUCCESS,
        };
        let question = control::decode::<Question>(&buffer[..length]);
        buffer[..length].zeroize();
        let Ok(question) = question else { return ExitCode::FAILURE };
        let said = answer(question);
        let sent = control::encode(&said).is_ok_and(|bytes| seqpacket::send(control.as_fd(), &bytes, &[]).is_ok());
        if !sent {
            return ExitCode::FAILURE;
        }
    }
}

fn answer(question: Question) -> Said {
    match authenticate(question) {
        Ok(()) => Said { outcome: PasswordOutcome::Admitted, reason: String::new() },
        Err(error) => Said { outcome: meaning(error), reason: error.to_string() },
    }
}

fn authenticate(question: Question) -> Result<(), ErrorCode> {
    let Question { service, user, password, address } = question;
    let mut pam = TransactionBuilder::new_with_service(service).username(user).build(Typed(password).into_conversation())?;
    pam.items_mut().set_remote_host(Some(OsStr::from_bytes(address.as_bytes())))?;
    pam.authenticate(AuthnFlags::empty())?;
    pam.account_management(AuthnFlags::empty())
}

/// Whether a module has said no, or could not say.
fn meaning(error: ErrorCode) -> PasswordOutcome {
    match error {
        ErrorCode::AuthenticationError
        | ErrorCode::PermissionDenied
        | ErrorCode::UserUnknown
        | ErrorCode::MaxTries
        | ErrorCode::CredentialsInsufficient
        | ErrorCode::NewAuthTokRequired
        | ErrorCode::AuthTokExpired
        | ErrorCode::AccountExpired => PasswordOutcome::Refused,
        _ => PasswordOutcome::Unavailable,
    }
}

/// Answers every hidden prompt with the password, and no other: the client was asked for nothing else.
struct Typed(Password);

impl ConversationAdapter for Typed {
    fn masked_prompt(&self, _: impl AsRef<OsStr>) -> nonstick::Result<OsString> {
        Ok(OsString::from_vec(self.0.expose().to_vec()))
    }

    fn prompt(&self, _: impl AsRef<OsStr>) -> nonstick::Result<OsString> {
        Err(ErrorCode::ConversationError)
    }

    fn error_msg(&self, _: impl AsRef<OsStr>) {}

    fn info_msg(&self, _: impl AsRef<OsStr>) {}
}
