//! Host names for the workers, looked up here because a look-up blocks.
//!
//! One look-up at a time for a name, whoever asks; its answer is kept for dns_max_ttl, a failure for dns_nxdomain_ttl.

use crate::office::Office;
use crate::process::Control;
use shared::control::ToWorker;
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Addresses = Result<Vec<IpAddr>, String>;

#[derive(Debug)]
enum Name {
    /// Being looked up for these.
    Pending(Vec<Control>),
    /// The answer and how long it holds.
    Known(Addresses, Instant),
}

/// The names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Resolver(Mutex<BTreeMap<String, Name>>);

impl Resolver {
    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every name with an answer, its remaining time and its addresses (SHOW DNS_HOSTS).
    pub(crate) fn known(&self) -> Vec<(String, Duration, Vec<IpAddr>)> {
        let now = Instant::now();
        let rows = self.names();
        let known = rows.iter().filter_map(|(host, name)| match name {
            Name::Pending(_) => None,
            Name::Known(addresses, until) => {
                Some((host.clone(), until.saturating_duration_since(now), addresses.clone().unwrap_or_default()))
            }
        });
        known.collect()
    }

    /// How many names are known or asked for.
    pub(crate) fn len(&self) -> usize {
        self.names().len()
    }
}

/// Answers `from`, now or when the look-up is done.
pub(crate) fn resolve(office: &Arc<Office>, host: String, from: Control) {
    let known = {
        let mut names = office.names.names();
        match names.get_mut(&host) {
            Some(Name::Pending(waiting)) => {
                waiting.push(from);
                return;
            }
            Some(Name::Known(addresses, until)) if *until > Instant::now() => addresses.clone(),
            _ => {
                names.insert(host.clone(), Name::Pending(vec![from]));
                drop(names);
                look_up_aside(office, &host);
                return;
            }
        }
    };
    answer(&from, host, known);
}

fn look_up_aside(office: &Arc<Office>, host: &str) {
    let (keeper, name) = (Arc::clone(office), host.to_owned());
    let thread = std::thread::Builder::new().name("dns".into()).spawn(move || {
        let addresses = look_up(&name);
        settle(&keeper, &name, &addresses);
    });
    if let Err(error) = thread {
        settle(office, host, &Err(format!("no thread to look it up: {error}")));
    }
}

fn look_up(host: &str) -> Addresses {
    let found = (host, 0).to_socket_addrs().map_err(|error| {
        log::warn!("DNS lookup failed: {host}: {error}");
        error.to_string()
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    Ok(addresses)
}

fn settle(office: &Office, host: &str, addresses: &Addresses) {
    let settings = &office.config().settings;
    let lifetime = if addresses.is_ok() { settings.dns_max_ttl } else { settings.dns_nxdomain_ttl };
    let known = Name::Known(addresses.clone(), Instant::now() + lifetime);
    let before = office.names.names().insert(host.to_owned(), known);
    if let Some(Name::Pending(waiting)) = before {
        for control in waiting {
            answer(&control, host.to_owned(), addresses.clone());
        }
    }
}

/// A worker that is gone needs no answer.
fn answer(to: &Control, host: String, addresses: Addresses) {
    if let Err(error) = to.send(&ToWorker::Resolved { host, addresses }, &[]) {
        log::debug!("could not answer a look-up: {error}");
    }
}
