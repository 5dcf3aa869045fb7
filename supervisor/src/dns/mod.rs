//! Host names for the workers, looked up here because a look-up blocks.
//!
//! One look-up at a time for a name, whoever asks; its answer is kept for dns_max_ttl, a failure for dns_nxdomain_ttl, and told to every
//! worker, so that all of them leave an address that the name has no longer. A name that could be looked up once keeps its addresses
//! while look-ups fail or are slow: a resolver that is down takes no database down with it.

mod client;
mod resolv_conf;
mod zones;

pub(crate) use zones::start as start_zone_checks;

use crate::control::Control;
use crate::fleet::Event;
use crate::office::{Input, Office};
use client::Client;
use shared::config::Settings;
use shared::control::{Resolved, ToWorker};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use zones::Serials;

const SYSTEM_RESOLV_CONF: &str = "/etc/resolv.conf";

type Addresses = Result<Vec<IpAddr>, String>;

/// What is known of a name.
#[derive(Debug)]
struct Name {
    addresses: Addresses,
    until: Instant,
    /// A look-up is under way.
    pending: bool,
}

/// The names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, Name>);

/// What a worker that asks for a name gets.
#[derive(Debug, PartialEq)]
enum Step {
    /// This, at once.
    Answer(Resolved),
    /// A look-up has to be started, whose answer every worker is told.
    LookUp,
    /// Nothing: a look-up is under way.
    Wait,
}

impl Names {
    fn ask(&mut self, host: &str, now: Instant) -> Step {
        match self.0.get_mut(host) {
            Some(name) if name.pending => Step::Wait,
            Some(name) if name.until > now => {
                Step::Answer(Resolved { host: host.to_owned(), addresses: name.addresses.clone(), lifetime: name.until - now })
            }
            Some(name) => {
                name.pending = true;
                Step::LookUp
            }
            None => {
                let name = Name { addresses: Err("not looked up yet".to_owned()), until: now, pending: true };
                self.0.insert(host.to_owned(), name);
                Step::LookUp
            }
        }
    }

    /// Names of this zone that are to be looked up now, whatever is known of them; those being looked up already are left out.
    fn refresh(&mut self, zone: &str) -> Vec<String> {
        let names = self.0.iter_mut().filter(|(host, name)| !name.pending && zones::zone_of(host) == Some(zone));
        names
            .map(|(host, name)| {
                name.pending = true;
                host.clone()
            })
            .collect()
    }

    /// A look-up is done. Gives what the workers are told.
    fn settle(&mut self, host: &str, addresses: Addresses, settings: &Settings, now: Instant) -> Resolved {
        let lifetime = if addresses.is_ok() { settings.dns_max_ttl } else { settings.dns_nxdomain_ttl };
        let known = self.0.remove(host).and_then(|name| name.addresses.ok());
        let addresses = match (addresses, known) {
            (Err(_), Some(known)) => Ok(known),
            (addresses, _) => addresses,
        };
        self.0.insert(host.to_owned(), Name { addresses: addresses.clone(), until: now + lifetime, pending: false });
        Resolved { host: host.to_owned(), addresses, lifetime }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    names: Mutex<Names>,
    serials: Mutex<Serials>,
    /// Asks name servers by itself, past the system's way.
    client: OnceLock<Client>,
}

impl Resolver {
    /// The resolver of a fleet. With resolv_conf, names are asked of the name servers it lists, by DNS and nothing else; without, the system
    /// looks them up. The error is the FATAL line.
    pub(crate) fn start(settings: &Settings) -> Result<Self, String> {
        let resolver = Self::default();
        if !settings.resolv_conf.is_empty() {
            resolver.client(settings).map_err(|error| format!("dns setup failed: {error}"))?;
        }
        Ok(resolver)
    }

    /// Who asks name servers: those of resolv_conf, or the system's.
    fn client(&self, settings: &Settings) -> Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let file = if settings.resolv_conf.is_empty() { SYSTEM_RESOLV_CONF } else { &settings.resolv_conf };
        let client = Client::start(Path::new(file))?;
        Ok(self.client.get_or_init(|| client))
    }

    fn serials(&self) -> MutexGuard<'_, Serials> {
        self.serials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every name that was looked up, its remaining time and its addresses (SHOW DNS_HOSTS).
    pub(crate) fn known(&self) -> Vec<(String, Duration, Vec<IpAddr>)> {
        let now = Instant::now();
        let row = |(host, name): (&String, &Name)| {
            (host.clone(), name.until.saturating_duration_since(now), name.addresses.clone().unwrap_or_default())
        };
        self.names().0.iter().map(row).collect()
    }

    /// How many names were asked for, and how many of them are being looked up.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let names = self.names();
        (names.0.len(), names.0.values().filter(|name| name.pending).count())
    }
}

/// Answers `from`, now or when the look-up is done.
pub(crate) fn resolve(office: &Arc<Office>, host: &str, from: &Control) {
    let step = office.names.names().ask(host, Instant::now());
    match step {
        Step::Answer(resolved) => {
            // A worker that is gone needs no answer, and one that does not read asks again.
            if let Err(error) = from.send(&ToWorker::Resolved(resolved), &[]) {
                log::debug!("could not answer a look-up: {error}");
            }
        }
        Step::LookUp => look_up_aside(office, host),
        Step::Wait => {}
    }
}

fn look_up_aside(office: &Arc<Office>, host: &str) {
    let (keeper, name) = (Arc::clone(office), host.to_owned());
    let settings = &office.config().settings;
    if !settings.resolv_conf.is_empty() {
        return match office.names.client(settings) {
            Ok(client) => client.addresses(host, move |addresses| settle(&keeper, &name, addresses)),
            Err(error) => settle(office, host, Err(error)),
        };
    }
    let thread = std::thread::Builder::new().name("dns".into()).spawn(move || {
        let addresses = look_up(&name);
        settle(&keeper, &name, addresses);
    });
    if let Err(error) = thread {
        settle(office, host, Err(format!("no thread to look it up: {error}")));
    }
}

/// The system's way: /etc/hosts, nsswitch and all.
fn look_up(host: &str) -> Addresses {
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut seen = BTreeSet::new();
    Ok(found.map(|address| address.ip()).filter(|ip| seen.insert(*ip)).collect())
}

fn settle(office: &Office, host: &str, addresses: Addresses) {
    if let Err(error) = &addresses {
        log::warn!("DNS lookup failed: {host}: {error}");
    }
    let resolved = office.names.names().settle(host, addresses, &office.config().settings, Instant::now());
    office.tell(Input::Event(Event::Resolved(resolved)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn one_look_up_at_a_time() {
        let (mut names, settings, start) = (Names::default(), Settings::default(), Instant::now());
        assert_eq!(names.ask("db", start), Step::LookUp);
        assert_eq!(names.ask("db", start + Duration::from_secs(60)), Step::Wait);
        let told = names.settle("db", Ok(vec![A]), &settings, start);
        assert_eq!((told.addresses.clone(), told.lifetime), (Ok(vec![A]), settings.dns_max_ttl));
        assert_eq!(names.ask("db", start), Step::Answer(told));
        assert_eq!(names.ask("db", start + settings.dns_max_ttl), Step::LookUp);
    }

    #[test]
    fn old_addresses_outlive_failures() {
        let (mut names, mut settings, start) = (Names::default(), Settings::default(), Instant::now());
        settings.dns_nxdomain_ttl = Duration::from_secs(3);
        names.ask("db", start);
        let failed = names.settle("db", Err("none".into()), &settings, start);
        assert_eq!((failed.addresses, failed.lifetime), (Err("none".into()), settings.dns_nxdomain_ttl));
        names.settle("db", Ok(vec![A]), &settings, start);
        let failed = names.settle("db", Err("timeout".into()), &settings, start);
        assert_eq!((failed.addresses, failed.lifetime), (Ok(vec![A]), settings.dns_nxdomain_ttl));
        assert_eq!(names.ask("db", start + settings.dns_nxdomain_ttl), Step::LookUp);
    }
}
