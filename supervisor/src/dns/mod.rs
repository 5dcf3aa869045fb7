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
use crate::engine::now;
use crate::fleet::{Event, Moment};
use crate::gate::Closed;
use crate::office::{Input, Office};
use client::Client;
use serde::{Deserialize, Serialize};
use shared::config::Settings;
use shared::control::{Resolved, ToWorker};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use zones::Serials;

const SYSTEM_RESOLV_CONF: &str = "/etc/resolv.conf";

type Addresses = Result<Vec<IpAddr>, String>;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Name {
    addresses: Addresses,
    until: Moment,
    /// A look-up is under way.
    pending: bool,
}

/// The names that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    fn ask(&mut self, host: &str, now: Moment) -> Step {
        match self.0.get_mut(host) {
            Some(name) if name.pending => Step::Wait,
            Some(name) if name.until > now => Step::Answer(Resolved {
                host: host.to_owned(),
                addresses: name.addresses.clone(),
                lifetime: name.until.saturating_sub(now),
            }),
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

    /// Those that are being looked up.
    fn pending(&self) -> Vec<String> {
        self.0.iter().filter(|(_, name)| name.pending).map(|(host, _)| host.clone()).collect()
    }

    /// A look-up is done. Gives what the workers are told.
    fn settle(&mut self, host: &str, addresses: Addresses, settings: &Settings, now: Moment) -> Resolved {
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

/// What is known, while another image takes the place of this one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    names: Names,
    serials: Serials,
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

    /// For the next image.
    pub(crate) fn park(&self, _: &Closed<'_>) -> Kept {
        Kept { names: self.names().clone(), serials: self.serials().clone() }
    }

    /// Every name that was looked up, its remaining time and its addresses (SHOW DNS_HOSTS).
    pub(crate) fn known(&self) -> Vec<(String, Duration, Vec<IpAddr>)> {
        let now = now();
        let row = |(host, name): (&String, &Name)| {
            (host.clone(), name.until.saturating_sub(now), name.addresses.clone().unwrap_or_default())
        };
        self.names().0.iter().map(row).collect()
    }

    /// How many names were asked for, and how many of them are being looked up.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let names = self.names();
        (names.0.len(), names.0.values().filter(|name| name.pending).count())
    }
}

/// Goes on with what was parked. Names that were being looked up are looked up anew.
pub(crate) fn resume(office: &Arc<Office>, kept: Kept) {
    let pending = kept.names.pending();
    *office.names.names() = kept.names;
    *office.names.serials() = kept.serials;
    for host in pending {
        look_up_aside(office, &host);
    }
}

/// Answers `from`, now or when the look-up is done.
pub(crate) fn resolve(office: &Arc<Office>, host: &str, from: &Control) {
    let step = office.names.names().ask(host, now());
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
    // Looked up and told, or neither.
    let _pass = office.gate.enter();
    let resolved = office.names.names().settle(host, addresses, &office.config().settings, now());
    office.tell(Input::Event(Event::Resolved(resolved)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::office::tests::office;
    use shared::encoding::{decode_named, encode_named};

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn one_look_up_at_a_time() {
        let (mut names, settings, start) = (Names::default(), Settings::default(), now());
        assert_eq!(names.ask("db", start), Step::LookUp);
        assert_eq!(names.ask("db", start + Duration::from_secs(60)), Step::Wait);
        let told = names.settle("db", Ok(vec![A]), &settings, start);
        assert_eq!((told.addresses.clone(), told.lifetime), (Ok(vec![A]), settings.dns_max_ttl));
        assert_eq!(names.ask("db", start), Step::Answer(told));
        assert_eq!(names.ask("db", start + settings.dns_max_ttl), Step::LookUp);
    }

    #[test]
    fn old_addresses_outlive_failures() {
        let (mut names, mut settings, start) = (Names::default(), Settings::default(), now());
        settings.dns_nxdomain_ttl = Duration::from_secs(3);
        names.ask("db", start);
        let failed = names.settle("db", Err("none".into()), &settings, start);
        assert_eq!((failed.addresses, failed.lifetime), (Err("none".into()), settings.dns_nxdomain_ttl));
        names.settle("db", Ok(vec![A]), &settings, start);
        let failed = names.settle("db", Err("timeout".into()), &settings, start);
        assert_eq!((failed.addresses, failed.lifetime), (Ok(vec![A]), settings.dns_nxdomain_ttl));
        assert_eq!(names.ask("db", start + settings.dns_nxdomain_ttl), Step::LookUp);
    }

    #[test]
    fn the_next_image_knows_the_names_and_looks_up_what_is_pending() {
        let (old, _inputs) = office();
        old.names.names().ask("db", now());
        old.names.names().settle("db", Ok(vec![A]), &old.config().settings, now());
        old.names.names().ask("127.0.0.2", now());
        old.names.serials().note("example", 7);
        let kept = old.names.park(&old.gate.close());
        let (next, inputs) = office();
        resume(&next, decode_named(&encode_named(&[], &kept).unwrap()).unwrap());
        let Ok(Input::Event(Event::Resolved(told))) = inputs.recv_timeout(Duration::from_secs(20)) else { panic!() };
        assert_eq!((told.host.as_str(), told.addresses), ("127.0.0.2", Ok(vec!["127.0.0.2".parse().unwrap()])));
        assert_eq!(next.names.serials().note("example", 8), Some(7));
        assert!(matches!(next.names.names().ask("db", now()), Step::Answer(Resolved { addresses: Ok(_), .. })));
    }
}
