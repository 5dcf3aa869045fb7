//! Where a pool's servers are, and which of the addresses the next connection goes to.
//!
//! An entry lists hosts; a host is an address, or a name with the addresses that the supervisor found for it. A failed attempt marks its
//! address for server_login_retry, and the next attempt goes elsewhere at once; only when every address is marked is the pool down. Knows no
//! sockets: names to be asked for and addresses to be tried are handed out, answers and failures handed in, time is an argument.

use crate::clock::Instant;
use shared::address::Address;
use shared::config::{Database, LoadBalanceHosts};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A question for the supervisor that has had no answer after this long is asked again: a message may be lost.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// A pool's hosts.
pub(crate) struct Hosts {
    list: Vec<Host>,
    order: LoadBalanceHosts,
    /// The place in the list of the host picked last.
    picked: usize,
    /// Addresses whose last attempt failed, and when.
    failed: Vec<(Address, Instant)>,
}

/// One host: its addresses, of which a name may have several or none yet.
pub(crate) struct Host {
    name: Option<Name>,
    addresses: Vec<Address>,
    next: usize,
}

struct Name {
    text: String,
    port: u16,
    asked: Option<Instant>,
    /// Until when the last answer holds.
    fresh_until: Option<Instant>,
    /// The last answer was that there is no such name.
    unknown: bool,
}

impl Name {
    fn is_fresh(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now < until)
    }
}

impl Host {
    /// What `host` of a configuration means: `/dir` and `@abstract` are directories of Unix sockets, then IP addresses, then names.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let known = |address| Self { name: None, addresses: vec![address], next: 0 };
        if host.starts_with(['/', '@']) {
            return known(Address::Unix(host.into(), port));
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return known(Address::Tcp(SocketAddr::new(ip, port)));
        }
        let name = Name { text: host.to_owned(), port, asked: None, fresh_until: None, unknown: false };
        Self { name: Some(name), addresses: Vec::new(), next: 0 }
    }

    /// The name to be looked up now, if there is one: its answer is no longer fresh.
    pub(crate) fn question(&mut self, now: Instant) -> Option<String> {
        let name = self.name.as_mut()?;
        if name.is_fresh(now) || name.asked.is_some_and(|asked| now - asked < ANSWER_PATIENCE) {
            return None;
        }
        name.asked = Some(now);
        Some(name.text.clone())
    }

    /// Takes in the answer for a name. False: it is not this host's.
    pub(crate) fn resolved(&mut self, name: &str, answer: &Result<Vec<IpAddr>, String>, until: Instant) -> bool {
        let Some(ours) = self.name.as_mut().filter(|ours| ours.text == name) else { return false };
        ours.asked = None;
        ours.fresh_until = Some(until);
        ours.unknown = answer.is_err();
        if let Ok(ips) = answer {
            self.addresses = ips.iter().map(|ip| Address::Tcp(SocketAddr::new(*ip, ours.port))).collect();
        }
        true
    }

    /// Its next address that `usable` allows: each in turn.
    pub(crate) fn pick(&mut self, usable: impl Fn(&Address) -> bool) -> Option<Address> {
        let count = self.addresses.len();
        let at = (0..count).map(|offset| (self.next + offset) % count).find(|&at| usable(&self.addresses[at]))?;
        self.next = at + 1;
        Some(self.addresses[at].clone())
    }

    /// It is known that this name leads nowhere.
    pub(crate) fn is_unknown(&self, now: Instant) -> bool {
        self.addresses.is_empty() && self.name.as_ref().is_some_and(|name| name.unknown && name.is_fresh(now))
    }
}

impl Hosts {
    /// The hosts of an entry; one without any means the Unix socket in `unix_socket_dir`.
    pub(crate) fn new(entry: &Database, unix_socket_dir: &str) -> Self {
        let mut list: Vec<Host> = entry.hosts().map(|host| Host::new(host, entry.port)).collect();
        if list.is_empty() {
            let address = Address::Unix(unix_socket_dir.into(), entry.port);
            list.push(Host { name: None, addresses: vec![address], next: 0 });
        }
        Self { list, order: entry.load_balance_hosts, picked: 0, failed: Vec::new() }
    }

    /// Names to be looked up, now that a connection is wanted.
    pub(crate) fn questions(&mut self, now: Instant) -> Vec<String> {
        self.list.iter_mut().filter_map(|host| host.question(now)).collect()
    }

    /// The address of the next attempt. `turn` is the place in the list to begin at, and is moved on. `None`: a name's answer is awaited,
    /// or nothing leads anywhere.
    pub(crate) fn pick(&mut self, turn: &mut usize, now: Instant, retry: Duration) -> Option<Address> {
        if self.is_down(now, retry) {
            // Whoever asks all the same knows that it is time to try again.
            self.failed.clear();
        }
        let Self { list, failed, picked, .. } = self;
        let usable = |address: &Address| !failed.iter().any(|(other, at)| other == address && now - *at < retry);
        let count = list.len();
        let (at, address) =
            (0..count).map(|offset| (*turn + offset) % count).find_map(|at| list[at].pick(usable).map(|address| (at, address)))?;
        *picked = at;
        *turn = match self.order {
            LoadBalanceHosts::RoundRobin => (at + 1) % count,
            LoadBalanceHosts::Disable => at,
        };
        Some(address)
    }

    /// What the entry calls the host at an address that was picked just now.
    pub(crate) fn name_of(&self, address: &Address) -> String {
        let has = |host: &&Host| host.addresses.contains(address);
        let host = self.list.get(self.picked).filter(has).or_else(|| self.list.iter().find(has));
        match (host.and_then(|host| host.name.as_ref()), address) {
            (Some(name), _) => name.text.clone(),
            (None, Address::Tcp(address)) => address.ip().to_string(),
            (None, Address::Unix(directory, _)) => directory.display().to_string(),
        }
    }

    /// An attempt has failed.
    pub(crate) fn failed(&mut self, address: &Address, now: Instant) {
        let list = &self.list;
        self.failed.retain(|(other, _)| other != address && list.iter().any(|host| host.addresses.contains(other)));
        self.failed.push((address.clone(), now));
    }

    /// An attempt has succeeded.
    pub(crate) fn succeeded(&mut self, address: &Address) {
        self.failed.retain(|(other, _)| other != address);
    }

    /// Every address has failed within `retry`, and no name's answer is awaited that might bring another.
    pub(crate) fn is_down(&self, now: Instant, retry: Duration) -> bool {
        let failed = |address: &Address| self.failed.iter().any(|(other, at)| other == address && now - *at < retry);
        self.list.iter().all(
            |host| {
                if host.addresses.is_empty() { host.is_unknown(now) } else { host.addresses.iter().all(failed) }
            },
        )
    }

    /// Takes in the answer for a name. False: no host has it.
    pub(crate) fn resolved(&mut self, name: &str, answer: &Result<Vec<IpAddr>, String>, until: Instant) -> bool {
        let concerned = self.list.iter_mut().map(|host| host.resolved(name, answer, until));
        concerned.filter(|concerned| *concerned).count() > 0
    }

    /// Whether a connection to `address` leads where the entry's name no longer does. Never so for a list: only a single name's
    /// addresses are what the entry as a whole means.
    pub(crate) fn is_obsolete(&self, address: &Address) -> bool {
        match self.list.as_slice() {
            [host] if host.name.is_some() && !host.addresses.is_empty() => !host.addresses.contains(address),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RETRY: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(1_000_000 * (1_000 + seconds))
    }

    fn hosts(list: &str, order: LoadBalanceHosts) -> Hosts {
        let mut entry = Database::new("d".to_owned());
        entry.host = Some(list.to_owned());
        entry.load_balance_hosts = order;
        Hosts::new(&entry, "/tmp")
    }

    fn pick(hosts: &mut Hosts, turn: &mut usize, seconds: u64) -> String {
        hosts.pick(turn, at(seconds), RETRY).map_or("-".to_owned(), |address| match address {
            Address::Tcp(address) => address.ip().to_string(),
            Address::Unix(directory, _) => directory.display().to_string(),
        })
    }

    fn fail(hosts: &mut Hosts, host: &str, seconds: u64) {
        let address = Host::new(host, 5432).addresses.remove(0);
        hosts.failed(&address, at(seconds));
    }

    fn ips(ips: &[&str]) -> Vec<IpAddr> {
        ips.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn in_turn() {
        let (mut hosts, mut turn) = (hosts("10.0.0.1, ::1 ,/run/pg,@abstract", LoadBalanceHosts::RoundRobin), 0);
        let picked: Vec<String> = (0..5).map(|_| pick(&mut hosts, &mut turn, 0)).collect();
        assert_eq!(picked, ["10.0.0.1", "::1", "/run/pg", "@abstract", "10.0.0.1"]);
    }

    #[test]
    fn the_same_until_it_fails() {
        let (mut hosts, mut turn) = (hosts("10.0.0.1,10.0.0.2", LoadBalanceHosts::Disable), 0);
        assert_eq!((pick(&mut hosts, &mut turn, 0), pick(&mut hosts, &mut turn, 1)), ("10.0.0.1".into(), "10.0.0.1".into()));
        fail(&mut hosts, "10.0.0.1", 2);
        assert_eq!(pick(&mut hosts, &mut turn, 2), "10.0.0.2");
        // Back from the dead, the first is not gone back to while the second answers.
        assert_eq!(pick(&mut hosts, &mut turn, 100), "10.0.0.2");
        fail(&mut hosts, "10.0.0.2", 100);
        assert_eq!(pick(&mut hosts, &mut turn, 100), "10.0.0.1");
    }

    #[test]
    fn down_when_each_has_failed_in_turn() {
        let (mut hosts, mut turn) = (hosts("10.0.0.1,10.0.0.2", LoadBalanceHosts::RoundRobin), 0);
        fail(&mut hosts, "10.0.0.1", 0);
        assert!(!hosts.is_down(at(0), RETRY));
        assert_eq!(
            (pick(&mut hosts, &mut turn, 0), pick(&mut hosts, &mut turn, 1)),
            ("10.0.0.2".into(), "10.0.0.2".into()),
            "the dead one is passed over"
        );
        fail(&mut hosts, "10.0.0.2", 1);
        assert!(hosts.is_down(at(1), RETRY));
        assert!(!hosts.is_down(at(15), RETRY), "the first may be tried again");
        fail(&mut hosts, "10.0.0.1", 15);
        // Another worker has got through: what is known here does not count.
        assert_ne!(pick(&mut hosts, &mut turn, 15), "-");
        hosts.failed(&Host::new("10.0.0.1", 5432).addresses[0], at(20));
        hosts.succeeded(&Host::new("10.0.0.1", 5432).addresses[0]);
        assert!(!hosts.is_down(at(20), RETRY));
    }

    #[test]
    fn a_name_is_asked_for_when_its_answer_is_old() {
        let (mut hosts, mut turn) = (hosts("db.example", LoadBalanceHosts::RoundRobin), 0);
        assert_eq!(hosts.questions(at(0)), ["db.example"]);
        assert_eq!((hosts.questions(at(1)), pick(&mut hosts, &mut turn, 1)), (vec![], "-".into()));
        assert_eq!(hosts.questions(at(6)), ["db.example"], "the question or its answer was lost");
        assert!(!hosts.is_down(at(6), RETRY), "its answer is awaited");
        assert!(hosts.resolved("db.example", &Ok(ips(&["10.0.0.1", "10.0.0.2"])), at(20)));
        assert!(!hosts.resolved("other.example", &Ok(ips(&["10.0.0.3"])), at(20)));
        let picked: Vec<String> = (0..3).map(|_| pick(&mut hosts, &mut turn, 7)).collect();
        assert_eq!(picked, ["10.0.0.1", "10.0.0.2", "10.0.0.1"]);
        assert_eq!(hosts.questions(at(19)), Vec::<String>::new());
        assert_eq!(hosts.questions(at(20)), ["db.example"]);
        assert_eq!(pick(&mut hosts, &mut turn, 21), "10.0.0.2", "the old answer is used meanwhile");
    }

    #[test]
    fn a_name_without_addresses_counts_as_failed() {
        let (mut hosts, mut turn) = (hosts("none.example,10.0.0.1", LoadBalanceHosts::RoundRobin), 0);
        hosts.resolved("none.example", &Err("no such name".into()), at(15));
        assert!(!hosts.is_down(at(0), RETRY));
        assert_eq!(pick(&mut hosts, &mut turn, 0), "10.0.0.1");
        fail(&mut hosts, "10.0.0.1", 0);
        assert!(hosts.is_down(at(0), RETRY));
    }

    #[test]
    fn an_address_that_the_name_has_no_longer() {
        let gone = Address::Tcp("10.0.0.1:5432".parse().unwrap());
        for (list, obsolete) in [("db.example", true), ("db.example,10.0.0.9", false), ("10.0.0.9", false)] {
            let mut hosts = hosts(list, LoadBalanceHosts::RoundRobin);
            assert!(!hosts.is_obsolete(&gone), "{list}: nothing is known yet");
            hosts.resolved("db.example", &Ok(ips(&["10.0.0.2"])), at(15));
            assert_eq!(hosts.is_obsolete(&gone), obsolete, "{list}");
        }
    }
}
