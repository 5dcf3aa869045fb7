//! The time of a line, local, formatted once a second.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// One second as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    second: i64,
    /// `2026-09-23 10:11:12`.
    pub(super) date_time: String,
    /// `CEST`, or `+03` where the zone has no letters.
    pub(super) zone: String,
    /// `Sep 23 10:11:12`, for syslog.
    pub(super) syslog: String,
}

thread_local! {
    static LAST: RefCell<Option<Stamp>> = const { RefCell::new(None) };
}

/// Calls `with` with this second's text and the milliseconds into it.
pub(super) fn now<R>(with: impl FnOnce(&Stamp, u32) -> R) -> R {
    // A clock before 1970 is shown as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, milliseconds) = (since.as_secs() as i64, since.subsec_millis());
    let mut last = LAST.try_with(RefCell::take).ok().flatten().filter(|stamp| stamp.second == second);
    let stamp = last.get_or_insert_with(|| Stamp::at(second, TimeZone::system()));
    let result = with(stamp, milliseconds);
    // While the thread ends there is nowhere to keep it.
    let _ = LAST.try_with(|cell| cell.replace(last));
    result
}

impl Stamp {
    fn at(second: i64, zone: TimeZone) -> Self {
        // Without a zone of its own the system is at UTC, for libc and so for PgBouncer.
        let zone = if zone.is_unknown() { TimeZone::UTC } else { zone };
        let time = Zoned::new(Timestamp::from_second(second).unwrap_or(Timestamp::MAX), zone);
        let format = |format: &str| time.strftime(format).to_string();
        Self { second, date_time: format("%Y-%m-%d %H:%M:%S"), zone: format("%Z"), syslog: format("%b %e %H:%M:%S") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn local_time_with_the_abbreviation_of_its_season() {
        let berlin = || TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let summer = Stamp::at(1_790_150_400, berlin());
        assert_eq!((summer.date_time.as_str(), summer.zone.as_str()), ("2026-09-23 10:00:00", "CEST"));
        assert_eq!(summer.syslog, "Sep 23 10:00:00");
        let winter = Stamp::at(1_767_225_600, berlin());
        assert_eq!((winter.date_time.as_str(), winter.zone.as_str()), ("2026-01-01 01:00:00", "CET"));
        assert_eq!(winter.syslog, "Jan  1 01:00:00", "RFC 3164 pads the day with a space");
    }

    #[test]
    fn a_system_without_a_zone_is_at_utc() {
        assert_eq!(Stamp::at(0, TimeZone::unknown()).zone, "UTC");
        assert_eq!(Stamp::at(i64::MAX, TimeZone::UTC).zone, "UTC", "out of range");
    }
}
