//! A load in which everything happens at once that clients do, each in a thread of its own: queries in every protocol, transactions that take their
//! time, COPY in both directions, cancels, LISTEN, sessions that keep something, clients that come and go and clients that are idle; in session and in
//! transaction mode, inside TLS and in the clear.
//!
//! Every client checks every answer, and panics if one is wrong, or does not come. How long it had to wait for each is its [`Pulse`]'s to remember.
//! Some do the same at PostgreSQL itself: what they wait for is the machine.

mod cancels;
mod copies;
mod door;
mod holders;
mod idle;
mod news;
mod pulse;
mod queries;
mod settings;
mod stage;
mod transactions;

pub use pulse::{Figures, Phase};

use crate::tls::Authority;
use crate::{Builder, Fleet, Postgres, SOON, backends, wait_until};
use door::Door;
use pulse::{Clock, Pulse};
use rustls::ClientConfig;
use stage::Stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a client does until it is told to stop.
type Part = fn(&Stage);

/// Parts for both pool modes, each inside TLS and in the clear.
const EVERYWHERE: [(&str, Part); 9] = [
    ("simple queries", queries::simple),
    ("extended queries", queries::extended),
    ("a prepared statement", queries::prepared),
    ("pipelines", queries::pipelined),
    ("connections for one query", queries::visits),
    ("transactions", transactions::committed),
    ("idle in transaction", transactions::idle),
    ("parameters", settings::of_any_session),
    ("cancels", cancels::of_its_own),
];

/// Parts that only a session with a server of its own can play.
const SESSION_ONLY: [(&str, Part); 3] =
    [("LISTEN", news::listener), ("a temporary table and a lock", holders::of_a_session), ("search_path", settings::of_its_server)];

/// Parts that need nothing but a few transactions, or one.
const TRANSACTION_ONLY: [(&str, Part); 2] = [("one transaction", holders::of_a_transaction), ("idle clients", idle::mostly)];

/// COPY, each way once in each mode and once inside TLS.
const COPIES: [(&str, Part, bool, bool); 4] = [
    ("COPY to a client", copies::out, false, false),
    ("COPY to a client", copies::out, true, true),
    ("COPY from a client", copies::into, false, true),
    ("COPY from a client", copies::into, true, false),
];

/// What clients of PostgreSQL itself do.
const WITNESSES: [(&str, Part); 6] = [
    ("simple queries", queries::simple),
    ("extended queries", queries::extended),
    ("a prepared statement", queries::prepared),
    ("connections for one query", queries::visits),
    ("cancels", cancels::of_its_own),
    ("COPY from a client", copies::into),
];

/// How much of it there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many clients play each part.
    pub each: usize,
    /// Connections of each of the mostly idle clients.
    pub idle: usize,
    /// What a COPY moves.
    pub copied_bytes: u64,
    /// What a COPY moves in a second.
    pub copy_rate: u64,
    /// The longest transaction.
    pub longest: Duration,
    /// The longest time between two queries of a client that is busy.
    pub thought: Duration,
}

impl Plan {
    /// The servers of the pool in session mode: one for each of its clients.
    pub fn session_servers(&self) -> usize {
        self.each * 2 * (EVERYWHERE.len() + SESSION_ONLY.len()) + COPIES.iter().filter(|(.., session, _)| *session).count()
    }

    /// The servers of the pool in transaction mode: for those who keep one for long, and some for all the others.
    pub fn transaction_servers(&self) -> usize {
        const KEPT_LONG: usize = 4;
        self.each * (2 * KEPT_LONG + 2) + COPIES.iter().filter(|(.., session, _)| !*session).count() + 2
    }

    /// A fleet that can bear it, and opens and closes servers only for it: `app` in transaction mode and inside TLS, `sessions` in session mode, by the Unix
    /// socket.
    pub fn fleet(&self, server: &Postgres, authority: &Authority) -> Builder {
        let (size, socket) = (self.session_servers(), server.socket_dir().display());
        Fleet::builder(server)
            .database("sessions", format!("host={socket} port={} dbname=app pool_mode=session pool_size={size}", server.port()))
            .pool_size(self.transaction_servers())
            .client_tls(authority, "allow")
            .server_tls(authority, "verify-full")
            .setting("server_lifetime", 1_000_000)
            .setting("server_idle_timeout", 0)
            .setting("log_connections", 0)
            .setting("log_disconnections", 0)
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Traffic {
    clock: Arc<Clock>,
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<Pulse>, JoinHandle<()>)>,
}

impl Traffic {
    /// Opens every server of both pools, and begins; each client has had an answer when this returns.
    pub fn start(plan: Plan, fleet: &Fleet, server: &Postgres, authority: &Authority) -> Traffic {
        server.admin().batch_execute(&[transactions::TABLE, copies::CHECK].concat()).unwrap();
        fill(plan, fleet, server);
        let mut traffic = Traffic { clock: Arc::default(), stop: Arc::default(), clients: Vec::new() };
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| authority.client(version, None));
        let tls = |number: usize| Some(Arc::clone(&versions[number % 2]));
        let mut enlist = |name: &str, part: Part, session: bool, tls: Option<Arc<ClientConfig>>| {
            let database = if session { "sessions" } else { "app" };
            let name = format!(
                "{name}, {}, {}",
                if session { "session" } else { "transaction" },
                if tls.is_some() { "TLS" } else { "plain" }
            );
            traffic.add(&name, part, Door { port: fleet.port(), user: "app", database, tls }, plan, server);
        };
        for number in 0..plan.each {
            for (name, part) in EVERYWHERE {
                for session in [false, true] {
                    enlist(name, part, session, None);
                    enlist(name, part, session, tls(number + usize::from(session)));
                }
            }
            for (session, parts) in [(true, &SESSION_ONLY[..]), (false, &TRANSACTION_ONLY[..])] {
                for (name, part) in parts {
                    enlist(name, *part, session, None);
                    enlist(name, *part, session, tls(number));
                }
            }
        }
        for (name, part, session, inside) in COPIES {
            enlist(name, part, session, tls(0).filter(|_| inside));
        }
        enlist("NOTIFY", news::reporter, false, None);
        for (name, part) in WITNESSES {
            let door = Door { port: server.port(), user: "postgres", database: "app", tls: None };
            traffic.add(&format!("{name}, directly"), part, door, plan, server);
        }
        traffic.wait_for_everyone();
        traffic
    }

    fn add(&mut self, name: &str, part: Part, door: Door, plan: Plan, server: &Postgres) {
        let pulse = Arc::new(Pulse::new(name, door.port == server.port(), Arc::clone(&self.clock)));
        let number = self.clients.len();
        let stage =
            Stage { door, plan, number, pulse: Arc::clone(&pulse), stop: Arc::clone(&self.stop), admin: server.admin_config() };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || part(&stage)).unwrap();
        self.clients.push((pulse, thread));
    }

    /// What comes from now on is counted as this.
    pub fn enter(&self, phase: Phase) {
        self.clock.enter(phase);
    }

    /// Waits until every client has had another answer. Panics if one has failed.
    #[track_caller]
    pub fn wait_for_everyone(&self) {
        let before: Vec<u64> = self.clients.iter().map(|(pulse, _)| pulse.answers()).collect();
        for ((pulse, thread), before) in self.clients.iter().zip(before) {
            wait_until(&format!("an answer: {}", pulse.name), SOON, || {
                assert!(!self.clients.iter().any(|(_, thread)| thread.is_finished()), "a client has failed");
                pulse.answers() > before || thread.is_finished()
            });
        }
    }

    /// How many clients there are, those of PostgreSQL itself left out.
    pub fn len(&self) -> usize {
        self.clients.iter().filter(|(pulse, _)| !pulse.direct).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets each come to an end; tells what became of their queries. Panics if one has failed.
    #[track_caller]
    pub fn finish(self) -> Vec<Figures> {
        self.stop.store(true, Ordering::Relaxed);
        let (pulses, threads): (Vec<_>, Vec<_>) = self.clients.into_iter().unzip();
        let failed: Vec<bool> = threads.into_iter().map(|thread| thread.join().is_err()).collect();
        let failed: Vec<&str> =
            failed.iter().zip(&pulses).filter(|(failed, _)| **failed).map(|(_, pulse)| pulse.name.as_str()).collect();
        assert!(failed.is_empty(), "these clients failed: {failed:?}");
        pulses.iter().map(|pulse| pulse.figures()).collect()
    }
}

/// Has every server of both pools opened.
fn fill(plan: Plan, fleet: &Fleet, server: &Postgres) {
    let login = |database, count| (0..count).map(move |_| crate::Client::login(fleet.port(), "app", database));
    let mut clients: Vec<_> = login("app", plan.transaction_servers()).chain(login("sessions", plan.session_servers())).collect();
    for client in &mut clients {
        assert_eq!(client.query("begin").status, 'T');
    }
    for client in &mut clients {
        assert_eq!(client.query("commit").status, 'I');
    }
    assert_eq!(backends(&mut server.admin()), clients.len() as i64, "every server is open");
}
