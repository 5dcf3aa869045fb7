//! Passwords that somebody else must be asked about: an LDAP server, or PAM's modules.
//!
//! A worker asks with `CheckPassword` and goes on; the answer is sent to it when it is known. Both ways have a queue of bounded length and a
//! bounded number of checks at a time. A check that finds no place is answered at once, and one that has waited longer than its client
//! may is not begun: so a server that hangs costs those who ask it their logins, and nobody anything else.

mod helper;
mod ldap;
mod pam;
mod trust;

pub(crate) use helper::run as pam_helper;

use crate::asks::Owed;
use crate::office::Office;
use shared::auth::Password;
use shared::control::{PasswordCheck, PasswordMethod, PasswordOutcome, ToWorker, WaitingClient};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many checks of one way may wait for their turn.
const QUEUE: usize = 1000;

/// How long a check may take when clients may take for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ways there are; each begins with its first check.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    ldap: ldap::Ldap,
    pam: pam::Pam,
}

/// One check, and who is to be told. Told or not, it leaves nothing behind.
#[derive(Debug)]
struct Check {
    client: WaitingClient,
    user: String,
    password: Password,
    address: String,
    until: Instant,
    owed: Owed,
}

impl Check {
    fn answer(self, outcome: PasswordOutcome) {
        self.owed.answer(&ToWorker::PasswordChecked { client: self.client, outcome });
    }

    /// Nobody could say whether the password is right.
    fn fail(self, way: &str, reason: &str) {
        log::warn!("{way} authentication of user '{}' from {} is not possible: {reason}", self.user, self.address);
        self.answer(PasswordOutcome::Unavailable);
    }

    /// The client has given up by now.
    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Has a password checked for a worker. Never blocks.
pub(crate) fn check(office: &Arc<Office>, asked: PasswordCheck, owed: Owed) {
    let patience = Some(office.config().settings.client_login_timeout).filter(|limit| !limit.is_zero()).unwrap_or(PATIENCE);
    let PasswordCheck { client, method, user, password, address } = asked;
    let check = Check { client, user, password, address, until: Instant::now() + patience, owed };
    match method {
        PasswordMethod::Ldap(options) => office.checks.ldap.check(*options, check),
        PasswordMethod::Pam { service } => office.checks.pam.check(service, check),
    }
}
