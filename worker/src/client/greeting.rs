//! What a client asks for at startup and what it is greeted with.

use super::{ClientState, Ending, Link, Session};
use crate::protocol::frontend::Frontend;
use crate::worker::Worker;
use shared::config::{PoolMode, Settings};
use shared::control::{ConsoleSession, PeerName, ToSupervisor};
use shared::ids::Owner;
use shared::wire::{encode, report};
use std::os::fd::AsFd;

/// The parameters PgBouncer has always tracked.
const ALWAYS_TRACKED: [&str; 5] = ["DateStyle", "client_encoding", "TimeZone", "standard_conforming_strings", "application_name"];

/// A startup message's parameters, sorted out.
#[derive(Default, Debug)]
pub(super) struct Asked {
    pub(super) user: Option<String>,
    pub(super) database: Option<String>,
    /// Values that follow the client from server to server.
    pub(super) parameters: Vec<(String, String)>,
    /// `_pq_.` options; we know none.
    pub(super) unknown_options: Vec<String>,
}

/// A parameter that is neither tracked nor ignored, or options that cannot be read. `Display` is what the client gets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsupported {
    #[error("unsupported startup parameter: {0}")]
    Parameter(String, String),
    #[error("unsupported startup parameter in options: {0}")]
    InOptions(String, String),
    #[error("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")]
    Options(String),
    #[error("replication connections are not supported yet")]
    Replication,
}

impl Unsupported {
    /// For the log: with the value.
    pub(super) fn detail(&self) -> String {
        match self {
            Unsupported::Parameter(name, value) => format!("unsupported startup parameter: {name}={value}"),
            Unsupported::InOptions(name, value) => format!("unsupported startup parameter in options: {name}={value}"),
            Unsupported::Options(text) => format!("unsupported startup parameter: options={text}"),
            Unsupported::Replication => self.to_string(),
        }
    }
}

impl From<Unsupported> for Ending {
    fn from(unsupported: Unsupported) -> Self {
        Ending::violation(unsupported.to_string())
    }
}

/// Sorts out a startup message's parameters.
pub(super) fn read_parameters(parameters: Vec<(String, String)>, settings: &Settings) -> Result<Asked, Unsupported> {
    let mut asked = Asked::default();
    let ignored = |name: &str| settings.ignore_startup_parameters.has(name);
    for (name, value) in parameters {
        match name.as_str() {
            "user" => asked.user = Some(value),
            "database" => asked.database = Some(value),
            "replication" if matches!(value.to_ascii_lowercase().as_str(), "database" | "true" | "on" | "yes" | "1") => {
                return Err(Unsupported::Replication);
            }
            "replication" => {}
            "options" => {
                for (name, value) in read_options(&value).ok_or_else(|| Unsupported::Options(value.clone()))? {
                    if ignored(&name) {
                    } else if is_tracked(&name, settings) {
                        asked.parameters.push((name, value));
                    } else if !ignored("options") {
                        return Err(Unsupported::InOptions(name, value));
                    }
                }
            }
            _ if name.starts_with("_pq_.") => asked.unknown_options.push(name),
            _ if ignored(&name) => {}
            _ if is_tracked(&name, settings) => asked.parameters.push((name, value)),
            _ => return Err(Unsupported::Parameter(name, value)),
        }
    }
    Ok(asked)
}

fn is_tracked(name: &str, settings: &Settings) -> bool {
    ALWAYS_TRACKED.iter().any(|t| t.eq_ignore_ascii_case(name))
        || settings.track_extra_parameters.iter().any(|t| t.eq_ignore_ascii_case(name))
}

/// Reads `-c name=value`, `-cname=value` and `--name=value`, blanks inside a value escaped by a backslash. `None`: something else.
fn read_options(options: &str) -> Option<Vec<(String, String)>> {
    let mut words = split_words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") if word == "-c" => words.next()?,
            Some(rest) => rest.to_owned(),
            None => return None,
        };
        let (name, value) = setting.split_once('=')?;
        if name.is_empty() {
            return None;
        }
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut escaped) = (Vec::new(), None::<String>, false);
    for c in text.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            c if c.is_ascii_whitespace() && !escaped => words.extend(word.take()),
            c => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
        }
    }
    words.extend(word);
    words
}

impl Worker {
    /// Greets a client whose pool knows what its servers say, and makes it a session.
    pub(crate) fn greet(&mut self, index: usize) {
        let Some(login) = self.clients[index].session().is_none().then(|| self.take_login(index)).flatten() else { return };
        let Some(pool_index) = login.pool else { return };
        let pool = self.pools.get_mut(pool_index);
        let Some(welcome) = pool.welcome.clone() else { return };
        let mut params = welcome.tracked.clone();
        for (name, value) in &login.parameters {
            params = self.interner.with(&params, name, value, false);
        }
        let random = u64::from_ne_bytes(super::auth::random());
        let peer_id = self.config.settings.peer_id as u16;
        let Some(key) = self.shm.clients().new_key(self.me, login.seats.client, random, peer_id) else {
            return self.close_client(index, &Ending::violation("failed to prepare welcome message"));
        };
        pool.clients += 1;
        pool.stats.client_login_count += 1;
        let tracking = if pool.mode == PoolMode::Session { 0 } else { self.config.settings.max_prepared_statements };
        let mode = pool.mode;

        let mut out = Vec::with_capacity(640);
        encode::authentication_ok(&mut out);
        for (name, value) in &welcome.fixed {
            encode::parameter_status(&mut out, name, value);
        }
        for (name, value) in params.iter() {
            encode::parameter_status(&mut out, name, value);
        }
        encode::parameter_status(&mut out, "pgbouncer.version", "1.26.1");
        encode::parameter_status(&mut out, "pgbouncer.pool_mode", mode.word());
        encode::parameter_status(&mut out, "pgbouncer.max_prepared_statements", &tracking.to_string());
        encode::parameter_status(&mut out, "pgfleet.version", env!("CARGO_PKG_VERSION"));
        encode::backend_key_data(&mut out, key);
        if !self.config.settings.login_notify_message.is_empty() {
            report::notice(&mut out, &self.config.settings.login_notify_message);
        }
        encode::ready_for_query(&mut out, b'I');

        self.by_seat.insert(login.seats.client, index);
        let client = &mut self.clients[index];
        if let Some(timeout) = self.config.client_idle_timeout(&login.who.user) {
            self.idle_timers.arm(self.now + timeout, (index, client.id));
        }
        client.state = ClientState::Session(Session {
            pool: pool_index,
            who: login.who,
            seats: login.seats,
            key,
            params,
            front: Frontend::default(),
            link: Link::None,
            query_start: None,
            transaction_start: None,
        });
        if client.conn.send(&out, &mut self.buffers).is_err() {
            return self.close_client(index, &Ending::Silent("failed to send welcome message"));
        }
        // It may have sent its first query with its last authentication message.
        let conn = &self.clients[index].conn;
        if conn.readable || !conn.input.is_empty() {
            self.again.push(crate::worker::Source::Client(index));
        }
    }

    /// Passes an authenticated console client to the supervisor.
    pub(super) fn hand_to_console(&mut self, index: usize, admin: bool, unread: &[u8]) {
        let Some(login) = self.take_login(index) else { return };
        let seat = login.seats.client;
        let random = u64::from_ne_bytes(super::auth::random());
        let key = self.shm.clients().new_key(self.me, seat, random, self.config.settings.peer_id as u16).unwrap_or_default();
        let client = &mut self.clients[index];
        let session = ConsoleSession {
            id: client.id,
            user: login.who.user.clone(),
            database: login.who.database.clone(),
            admin,
            seat,
            cancel_key: key,
            unread: unread.to_vec(),
            parameters: login.parameters,
            peer: PeerName {
                address: client.peer.address(),
                port: client.peer.port(self.config.settings.listen_port),
                pid: client.peer.pid(),
            },
            connected_at: client.connected_at.to_wall(),
        };
        // Not before it is sure to be sent on: the seat's owner is whoever has the socket.
        self.shm.clients().give(self.me, seat, Owner::SUPERVISOR);
        let _ = client.conn.deregister(self.poll.registry());
        if !self.control.send(&ToSupervisor::Console(session), &[client.conn.as_fd()]) {
            self.shm.clients().leave(Owner::SUPERVISOR, seat);
            log::warn!(target: "process", "a console login was refused: the supervisor is gone");
        }
        self.forget_client(index);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)], ignored: &str) -> Result<Asked, Unsupported> {
        let settings = Settings { ignore_startup_parameters: shared::config::Words::parse(ignored), ..Settings::default() };
        read_parameters(parameters.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect(), &settings)
    }

    #[test]
    fn tracked_parameters_are_kept_and_others_refused() {
        let asked = read(&[("user", "u"), ("datestyle", "German"), ("IntervalStyle", "iso_8601"), ("_pq_.x", "1")], "").unwrap();
        assert_eq!(asked.user.as_deref(), Some("u"));
        assert_eq!(asked.parameters.len(), 2);
        assert_eq!(asked.unknown_options, ["_pq_.x"]);
        let refused = read(&[("extra_float_digits", "2")], "").unwrap_err();
        assert_eq!(refused.to_string(), "unsupported startup parameter: extra_float_digits");
        assert!(read(&[("extra_float_digits", "2")], "extra_float_digits").unwrap().parameters.is_empty());
    }

    #[test]
    fn options_are_read_as_postgresql_does() {
        let set = |text: &str| read_options(text);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(set("-c a=1 --b-c=2 -cd=3"), Some(vec![pair("a", "1"), pair("b_c", "2"), pair("d", "3")]));
        assert_eq!(set(r"-c a=x\ y\\"), Some(vec![pair("a", r"x y\")]));
        assert_eq!(set("-d 1"), None);
        // CVE-2026-107349: an empty name made PgBouncer spin.
        assert_eq!(set("-c="), None);
        assert_eq!(set("-c"), None);
        assert_eq!(set("--"), None);
    }
}
