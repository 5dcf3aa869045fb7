//! The zones of the names in use: every dns_zone_check_period their serial numbers are asked for, and a zone that has another has all its
//! names looked up again, without waiting for dns_max_ttl.

use super::{Resolver, look_up_aside};
use crate::office::Office;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is seen whether a check is due: a reload may have changed the period.
const BEAT: Duration = Duration::from_millis(250);

/// Serial numbers by zone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Serials(BTreeMap<String, u32>);

impl Serials {
    /// Notes a zone's serial number. Gives the one before, if it was another.
    pub(super) fn note(&mut self, zone: &str, serial: u32) -> Option<u32> {
        self.0.insert(zone.to_owned(), serial).filter(|old| *old != serial)
    }
}

/// The zone of a name: the text after its first dot.
pub(super) fn zone_of(name: &str) -> Option<&str> {
    name.trim_end_matches('.').split_once('.').map(|(_, zone)| zone).filter(|zone| !zone.is_empty())
}

impl Resolver {
    /// Every zone, its serial number if that is known, and how many of the names are in it (SHOW DNS_ZONES).
    pub(crate) fn zones(&self) -> Vec<(String, u32, usize)> {
        let mut zones: BTreeMap<String, usize> = BTreeMap::new();
        for name in self.names().0.keys() {
            if let Some(zone) = zone_of(name) {
                *zones.entry(zone.to_owned()).or_default() += 1;
            }
        }
        let serials = self.serials();
        let row = |(zone, count): (String, usize)| {
            let serial = serials.0.get(&zone).copied().unwrap_or(0);
            (zone, serial, count)
        };
        zones.into_iter().map(row).collect()
    }
}

/// Starts the thread that checks.
pub(crate) fn start(office: Arc<Office>) -> io::Result<()> {
    let run = move || {
        let mut last = Instant::now();
        loop {
            std::thread::sleep(BEAT);
            let period = office.config().settings.dns_zone_check_period;
            if !period.is_zero() && last.elapsed() >= period {
                last = Instant::now();
                check(&office);
            }
        }
    };
    std::thread::Builder::new().name("dns zones".into()).spawn(run)?;
    Ok(())
}

fn check(office: &Arc<Office>) {
    let zones = office.names.zones();
    if zones.is_empty() {
        return;
    }
    let client = match office.names.client(&office.config().settings) {
        Ok(client) => client,
        Err(error) => return log::warn!("zones are not checked: {error}"),
    };
    for (zone, ..) in zones {
        let office = Arc::clone(office);
        client.serial(&zone.clone(), move |serial| match serial {
            Ok(serial) => checked(&office, &zone, serial),
            Err(error) => log::debug!("zone '{zone}': {error}"),
        });
    }
}

fn checked(office: &Arc<Office>, zone: &str, serial: u32) {
    let Some(old) = office.names.serials().note(zone, serial) else { return };
    log::info!("zone '{zone}' serial changed: old={old} new={serial}");
    let again = office.names.names().refresh(zone);
    for host in again {
        look_up_aside(office, &host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_what_follows_the_first_dot() {
        for (name, zone) in [("db.a.example", Some("a.example")), ("db.local.", Some("local")), ("localhost", None), ("db.", None)]
        {
            assert_eq!(zone_of(name), zone, "{name}");
        }
    }

    #[test]
    fn another_serial_is_a_change_and_the_first_is_none() {
        let mut serials = Serials::default();
        assert_eq!([serials.note("z", 1), serials.note("z", 1), serials.note("z", 2)], [None, None, Some(1)]);
        assert_eq!(serials.note("z", 1), Some(2), "downwards too: a zone may have been made anew");
    }
}
