//! Passwords that an LDAP server or PAM is asked about: by the supervisor, while the login waits.

use super::{Challenge, Verdict};
use crate::client::{ClientState, Ending, Identity};
use crate::worker::Worker;
use shared::auth::{Method, Password, Secret};
use shared::config::{Database, Settings};
use shared::control::{PasswordCheck, PasswordMethod, PasswordOutcome, ToSupervisor, WaitingClient};
use shared::wire::encode;
use shared::wire::report::sqlstate;
use std::rc::Rc;

/// A question about a client's password that has not been answered. It goes with its client.
pub(crate) struct Asked {
    password: Password,
    /// What the client is told if it is not admitted.
    failure: &'static str,
}

/// What a client is told that is not admitted, for whatever reason.
pub(super) fn failure(method: &PasswordMethod) -> &'static str {
    match method {
        PasswordMethod::Ldap(_) => "LDAP authentication failed",
        PasswordMethod::Pam { .. } => "PAM authentication failed",
    }
}

/// The first message to a client whose password somebody else checks, appended to `out`.
pub(crate) fn ask_for_checked(method: &Method, settings: &Settings, entry: Option<&Database>, out: &mut Vec<u8>) -> Verdict {
    let refused = |text| Verdict::Refused(sqlstate::PROTOCOL_VIOLATION, text);
    if settings.auth_user.is_some() || entry.is_some_and(|entry| entry.auth_user.is_some()) {
        // auth_query has nothing to say about such a password.
        return refused("bouncer config error");
    }
    let method = match method {
        Method::Ldap { options } => match options.as_deref().or(settings.auth_ldap_options.as_ref()) {
            Some(options) => PasswordMethod::Ldap(Box::new(options.clone())),
            None => return refused("auth_ldap_options is null"),
        },
        _ => PasswordMethod::Pam { service: settings.auth_pam_service.clone() },
    };
    encode::authentication(out, 3, &[]);
    Verdict::GoOn(Challenge::Checked(method))
}

impl Worker {
    /// Has the supervisor find out whether this is the password of the client's user.
    pub(in crate::client) fn have_checked(
        &mut self,
        index: usize,
        method: PasswordMethod,
        password: Password,
    ) -> Result<(), Ending> {
        let client = &mut self.clients[index];
        let (waiting, address) = (WaitingClient { place: index as u32, id: client.id }, client.peer.address());
        let ClientState::Login(login) = &mut client.state else { return Ok(()) };
        let Some(request) = &mut login.request else { return Ok(()) };
        let failure = failure(&method);
        let user = request.who.user.clone();
        request.asked = Some(Asked { password: password.clone(), failure });
        let question = PasswordCheck { client: waiting, method, user, password, address };
        if self.control.send(&ToSupervisor::CheckPassword(question), &[]) {
            Ok(())
        } else {
            Err(Ending::Fatal(sqlstate::INVALID_PASSWORD, failure.to_owned()))
        }
    }

    /// The answer. Whoever has gone meanwhile is not there any more.
    pub(crate) fn password_checked(&mut self, client: WaitingClient, outcome: PasswordOutcome) {
        let index = client.place as usize;
        let Some(waiting) = self.clients.get_mut(index).filter(|waiting| waiting.id == client.id) else { return };
        let ClientState::Login(login) = &mut waiting.state else { return };
        let Some(request) = &mut login.request else { return };
        let Some(Asked { password, failure }) = request.asked.take() else { return };
        let verdict = match outcome {
            PasswordOutcome::Admitted => {
                let who = Rc::clone(&request.who);
                self.typed_passwords.insert(who, password);
                Verdict::Admitted
            }
            PasswordOutcome::Refused | PasswordOutcome::Unavailable => Verdict::Refused(sqlstate::INVALID_PASSWORD, failure),
        };
        self.login_answered(index, client.id, verdict, &[]);
    }

    /// The supervisor has gone, and with it who could answer.
    pub(crate) fn nobody_checks(&mut self) {
        let asked = |state: &ClientState| match state {
            ClientState::Login(login) => login.request.as_ref().is_some_and(|request| request.asked.is_some()),
            _ => false,
        };
        let waiting = self.clients.iter().filter(|(_, client)| asked(&client.state));
        let waiting: Vec<_> = waiting.map(|(index, client)| WaitingClient { place: index as u32, id: client.id }).collect();
        for client in waiting {
            self.password_checked(client, PasswordOutcome::Unavailable);
        }
    }

    /// What a client of this database and user has typed, if somebody has confirmed it.
    pub(crate) fn typed_secret(&self, database: &str, user: &str) -> Option<Secret> {
        let who = Identity { database: database.to_owned(), user: user.to_owned() };
        // Whatever it looks like, it is the password itself and not a hash.
        self.typed_passwords.get(&who)?.expose_text().map(|password| Secret::Plain(password.to_owned()))
    }
}
