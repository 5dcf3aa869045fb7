//! Who may log in from where, and how: auth_hba_file in the syntax of `pg_hba.conf`, and the name maps of auth_ident_file.
//!
//! The supervisor reads both files with the configuration and publishes what they say in its snapshot; a worker asks [`Access::find`] once
//! for each login. The syntax is PostgreSQL's (its documentation, "The pg_hba.conf File", "User Name Maps"), cut down to what PgBouncer has. A line
//! that is not understood, in whatever way, makes the files unusable: to skip it would leave the decision to the lines behind it, which may be
//! less strict.

mod files;
mod ident;
mod rule;
mod token;

#[cfg(test)]
mod tests;

pub use files::{Files, Finding, System};
pub use ident::Maps;
pub use rule::Rule;

use super::Method;
use files::Reader;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;

/// Rules, first match first, and the maps that they refer to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Access {
    rules: Vec<Rule>,
    maps: Maps,
}

/// A login that is to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The database's name as the client gave it.
    pub database: &'a str,
    /// The user it wants to be.
    pub user: &'a str,
    /// It wants to be sent WAL (`replication=true`), and its database's name means nothing.
    pub physical_replication: bool,
    /// Where it comes from.
    pub from: Origin,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// The Unix socket.
    Unix,
    /// A TCP address, inside TLS or not.
    Tcp {
        /// The address.
        address: IpAddr,
        /// Whether the connection is encrypted.
        tls: bool,
    },
}

impl Access {
    /// Reads the rules in `hba_file`, and the maps in `ident_file` where there is one. What is wrong with them is appended to `findings`.
    pub fn read(hba_file: &Path, ident_file: Option<&Path>, files: &mut dyn Files, findings: &mut Vec<Finding>) -> Self {
        let mut maps = Maps::default();
        if let Some(path) = ident_file {
            let mut reader = Reader::new(files, self::files::IDENT);
            for record in reader.records(path) {
                if let Err(message) = maps.add(&record) {
                    reader.error(&record.place, &message);
                }
            }
            findings.append(&mut reader.findings);
        }
        let mut rules = Vec::new();
        let mut reader = Reader::new(files, self::files::HBA);
        for record in reader.records(hba_file) {
            match rule::parse(&record, &maps, &mut reader) {
                Ok(rule) => rules.extend(rule),
                Err(message) => reader.error(&record.place, &message),
            }
        }
        findings.append(&mut reader.findings);
        Self { rules, maps }
    }

    /// Whether the rules are the same.
    pub fn has_rules_of(&self, other: &Self) -> bool {
        self.rules == other.rules
    }

    /// Whether the maps are the same.
    pub fn has_maps_of(&self, other: &Self) -> bool {
        self.maps == other.maps
    }

    /// The first rule that matches; `None`: nobody may log in so.
    pub fn find(&self, asked: &Asked<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.matches(asked))
    }

    /// How those log in who may, in the order of the rules.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.rules.iter().map(|rule| &rule.method)
    }

    /// Whether `map` lets somebody log in as `user` whom one of its lines calls by a name that `is` theirs elsewhere.
    pub fn maps(&self, map: &str, user: &str, is: impl Fn(&str) -> bool) -> bool {
        self.maps.lets(map, user, is)
    }
}
