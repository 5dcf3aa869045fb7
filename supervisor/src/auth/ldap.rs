//! Checks by LDAP servers. One thread, on it an asynchronous library, does all of them.
//!
//! As PostgreSQL's `CheckLDAPAuth`: a simple bind, or a search for the one entry that is the user's and a bind as that. Every step has its
//! time limit.

use super::trust::Trust;
use super::{Check, QUEUE};
use ldap3::{Ldap as Connection, LdapConnAsync, LdapConnSettings, LdapError, Scope as Depth, SearchEntry};
use shared::auth::LdapOptions;
use shared::auth::ldap::{Scope, Search, Security, Way};
use shared::control::PasswordOutcome;
use std::net::Ipv6Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How many servers are being asked at a time.
const AT_ONCE: usize = 64;

/// How long one server may take to take a connection, and its TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// LDAP's result code for a wrong name or password (RFC 4511, invalidCredentials).
const INVALID_CREDENTIALS: u32 = 49;

type Job = (LdapOptions, Check);

/// The way to the thread; started by the first check.
#[derive(Debug, Default)]
pub(super) struct Ldap(OnceLock<Result<Sender<Job>, String>>);

impl Ldap {
    pub(super) fn check(&self, options: LdapOptions, check: Check) {
        let jobs = match self.0.get_or_init(start) {
            Ok(jobs) => jobs,
            Err(reason) => return check.fail("LDAP", reason),
        };
        match jobs.try_send((options, check)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, check))) => check.fail("LDAP", "too many checks are waiting for an LDAP server"),
            Err(TrySendError::Closed((_, check))) => check.fail("LDAP", "the thread that asks LDAP servers has ended"),
        }
    }
}

fn start() -> Result<Sender<Job>, String> {
    let (sender, jobs) = channel(QUEUE);
    // Host names are looked up by threads of the runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let runtime = runtime.map_err(|error| format!("no runtime for LDAP: {error}"))?;
    let serve = move || runtime.block_on(tokio::task::LocalSet::new().run_until(serve(jobs)));
    let thread = std::thread::Builder::new().name("ldap".into()).spawn(serve);
    thread.map_err(|error| format!("no thread for LDAP: {error}"))?;
    Ok(sender)
}

async fn serve(mut jobs: Receiver<Job>) {
    let (places, trust) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Trust::default()));
    while let Some((options, check)) = jobs.recv().await {
        // Never closed, so there is a place sooner or later.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let trust = Arc::clone(&trust);
        tokio::spawn(async move {
            decide(&options, &trust, check).await;
            drop(place);
        });
    }
}

async fn decide(options: &LdapOptions, trust: &Trust, check: Check) {
    if check.is_late() {
        return check.fail("LDAP", "it has waited too long for its turn");
    }
    let authenticate = authenticate(options, trust, &check);
    match tokio::time::timeout_at(check.until.into(), authenticate).await {
        Ok(Ok(true)) => check.answer(PasswordOutcome::Admitted),
        Ok(Ok(false)) => check.answer(PasswordOutcome::Refused),
        Ok(Err(reason)) => check.fail("LDAP", &reason),
        Err(_) => check.fail("LDAP", "the client's time to log in is over"),
    }
}

/// Whether the password is the user's. The error says why nobody can tell.
async fn authenticate(options: &LdapOptions, trust: &Trust, check: &Check) -> Result<bool, String> {
    // A bind with an empty password succeeds for every name (RFC 4513, "unauthenticated authentication").
    let Some(password) = check.password.expose_text().filter(|password| !password.is_empty()) else { return Ok(false) };
    let mut server = connect(options, trust).await?;
    let name = match &options.way {
        Way::Bind { prefix, suffix } => Way::bind_name(prefix, suffix, &check.user).map_err(|error| error.to_string())?,
        Way::Search(search) => match find(&mut server, search, &check.user).await? {
            Some(name) => name,
            None => return Ok(false),
        },
    };
    // As an empty password, an empty name would bind as nobody.
    if name.is_empty() {
        return Ok(false);
    }
    let admitted = bind(&mut server, &name, password).await?;
    let _ = tokio::time::timeout(CONNECT, server.unbind()).await;
    Ok(admitted)
}

/// A connection to the first server that can be reached.
async fn connect(options: &LdapOptions, trust: &Trust) -> Result<Connection, String> {
    let mut reason = "no server".to_owned();
    for server in &options.servers {
        match connect_to(options, trust, server).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                log::debug!("LDAP server {server}:{}: {error}", options.port);
                reason = format!("could not connect to LDAP server {server}:{}: {error}", options.port);
            }
        }
    }
    Err(reason)
}

async fn connect_to(options: &LdapOptions, trust: &Trust, server: &str) -> Result<Connection, String> {
    let scheme = if options.security == Security::Ldaps { "ldaps" } else { "ldap" };
    let host = if server.parse::<Ipv6Addr>().is_ok() { format!("[{server}]") } else { server.to_owned() };
    let mut settings = LdapConnSettings::new().set_conn_timeout(CONNECT).set_starttls(options.security == Security::StartTls);
    if options.security != Security::Plain {
        settings = settings.set_config(trust.config()?);
    }
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &format!("{scheme}://{host}:{}", options.port))
        .await
        .map_err(|error| say(&error))?;
    // It ends when `ldap` is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.drive().await {
            log::debug!("LDAP connection: {}", say(&error));
        }
    });
    Ok(ldap)
}

/// The name of the one entry that is the user's; `None` when there is none, or several.
async fn find(server: &mut Connection, search: &Search, user: &str) -> Result<Option<String>, String> {
    let filter = match search.filter(user) {
        Ok(filter) => filter,
        Err(error) => {
            log::info!("{error}");
            return Ok(None);
        }
    };
    // A name without a password would be taken for nobody in particular by some servers, and refused by others.
    let password = search.bind_password.expose_text().ok_or("ldapbindpasswd is not UTF-8")?;
    if !bind(server, &search.bind_dn, password).await? {
        return Err(format!("could not perform initial LDAP bind for ldapbinddn \"{}\"", search.bind_dn));
    }
    let scope = match search.scope {
        Scope::Base => Depth::Base,
        Scope::One => Depth::OneLevel,
        Scope::Sub => Depth::Subtree,
    };
    // "1.1": no attributes (RFC 4511, section 4.5.1.8).
    let found = server.with_timeout(ANSWER).search(&search.base, scope, &filter, ["1.1"]).await;
    let (entries, _) = found
        .and_then(ldap3::SearchResult::success)
        .map_err(|error| format!("could not search LDAP for filter \"{filter}\": {}", say(&error)))?;
    // References to other servers are no entries.
    let mut names = entries.into_iter().filter(|entry| !entry.is_ref()).map(|entry| SearchEntry::construct(entry).dn);
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(Some(name)),
        (None, _) => {
            log::info!("LDAP user \"{user}\" does not exist");
            Ok(None)
        }
        (Some(_), Some(_)) => {
            log::warn!("LDAP user \"{user}\" is not unique");
            Ok(None)
        }
    }
}

async fn bind(server: &mut Connection, name: &str, password: &str) -> Result<bool, String> {
    match server.with_timeout(ANSWER).simple_bind(name, password).await {
        Ok(result) if result.rc == 0 => Ok(true),
        Ok(result) if result.rc == INVALID_CREDENTIALS => Ok(false),
        Ok(result) => Err(format!("LDAP bind: {result}")),
        Err(error) => Err(format!("LDAP bind: {}", say(&error))),
    }
}

/// The whole chain of an error.
fn say(error: &LdapError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
