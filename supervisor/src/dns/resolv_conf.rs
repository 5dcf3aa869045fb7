//! resolv.conf(5), as far as it tells whom to ask and how. Options that steer the C library alone are passed over, as it does with unknown ones.
//!
//! Beyond the manual page a name server may have a port, `127.0.0.1:5353` or `[::1]:5353`, as c-ares reads it, which PgBouncer uses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<SocketAddr>,
    /// Domains that a name without enough dots is tried in.
    pub(crate) search: Vec<String>,
    pub(crate) dots: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: usize,
}

/// The most that the C library takes, too.
const MOST_DOTS: usize = 15;
const MOST_SECONDS: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

impl ResolvConf {
    /// Reads the file's text. The error names the line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut conf = Self { servers: Vec::new(), search: Vec::new(), dots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let word = words.next().unwrap_or_default();
                    let server =
                        server(word).ok_or_else(|| format!("line {number}: not the address of a name server: \"{word}\""))?;
                    conf.servers.push(server);
                }
                Some("domain" | "search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            // resolv.conf(5): the name server on the local machine.
            conf.servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        Ok(conf)
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u64>() else { return };
        match name {
            "ndots" => self.dots = (value as usize).min(MOST_DOTS),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, MOST_SECONDS)),
            "attempts" => self.attempts = (value as usize).clamp(1, MOST_ATTEMPTS),
            _ => {}
        }
    }
}

fn server(word: &str) -> Option<SocketAddr> {
    // A link-local address may name its interface, which is nothing that could be asked through another.
    let plain = word.split('%').next().unwrap_or_default();
    plain.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).ok().or_else(|| word.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_manual_page_has() {
        let text = "# made by hand\nnameserver 10.0.0.1 ; first\nnameserver ::1\nnameserver 127.0.0.1:5353\nnameserver [::1]:54\n\
                    search a.example b.example\noptions ndots:2 timeout:3 attempts:9 rotate edns0\nsortlist 10.0.0.0\n";
        let conf = ResolvConf::read(text).unwrap();
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353", "[::1]:54"]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!((conf.dots, conf.timeout.as_secs(), conf.attempts), (2, 3, MOST_ATTEMPTS));
    }

    #[test]
    fn nothing_and_nonsense() {
        assert_eq!(ResolvConf::read("").unwrap().servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(
            ResolvConf::read("\nnameserver ns.example").unwrap_err(),
            "line 2: not the address of a name server: \"ns.example\""
        );
    }
}
