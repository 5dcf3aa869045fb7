//! One line of auth_hba_file.

use super::files::{Reader, Record};
use super::ident::Maps;
use super::token::{Field, Token};
use super::{Asked, Origin};
use crate::auth::{LdapOptions, Method};
use crate::config::CONSOLE_DATABASES;
use crate::network::{Network, NetworkError};
use serde::{Deserialize, Serialize};

/// A rule: whom it is about, and how they prove who they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    connection: Connection,
    databases: Vec<Databases>,
    users: Vec<Users>,
    /// `None`: wherever they come from.
    network: Option<Network>,
    /// How they log in.
    pub method: Method,
}

/// How the client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Databases {
    All,
    SameUser,
    /// No database at all: physical replication.
    Replication,
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Users {
    All,
    Named(String),
}

impl Rule {
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        let connection = match (self.connection, asked.from) {
            (Connection::Local, Origin::Unix) | (Connection::Host, Origin::Tcp { .. }) => true,
            (Connection::HostSsl, Origin::Tcp { tls, .. }) => tls,
            (Connection::HostNoSsl, Origin::Tcp { tls, .. }) => !tls,
            _ => false,
        };
        let network = match (&self.network, asked.from) {
            (Some(network), Origin::Tcp { address, .. }) => network.has(address),
            (Some(_), Origin::Unix) => false,
            (None, _) => true,
        };
        connection
            && network
            && self.databases.iter().any(|database| database.matches(asked))
            && self.users.iter().any(|user| user.matches(asked.user))
    }
}

impl Databases {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Replication => asked.physical_replication,
            _ if asked.physical_replication => false,
            Self::All => true,
            Self::SameUser => asked.database == asked.user,
            // The console has two names and is one thing: whoever is kept away from one must not come in by the other.
            Self::Named(name) if CONSOLE_DATABASES.contains(&asked.database) => CONSOLE_DATABASES.contains(&name.as_str()),
            Self::Named(name) => name == asked.database,
        }
    }

    fn read(token: &Token) -> Result<Self, String> {
        match token.text.as_str() {
            _ if token.quoted => {}
            "all" => return Ok(Self::All),
            "sameuser" => return Ok(Self::SameUser),
            "replication" => return Ok(Self::Replication),
            "samerole" | "samegroup" => {
                return Err(format!("{} is not supported: the pooler knows of no membership in roles", token.text));
            }
            _ => {}
        }
        name(token).map(Self::Named)
    }
}

impl Users {
    fn matches(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == user,
        }
    }

    fn read(token: &Token) -> Result<Self, String> {
        if token.is("all") {
            return Ok(Self::All);
        }
        if token.marked('+').is_some() {
            return Err(format!("{} is not supported: the pooler knows of no membership in roles", token.text));
        }
        name(token).map(Self::Named)
    }
}

fn name(token: &Token) -> Result<String, String> {
    match token.marked('/') {
        Some(_) => Err(format!("regular expressions are not supported: {}", token.text)),
        None => Ok(token.text.clone()),
    }
}

/// Reads a line; `None` for one that can match nobody.
pub(super) fn parse(record: &Record, maps: &Maps, reader: &mut Reader<'_>) -> Result<Option<Rule>, String> {
    let mut fields = record.fields.iter();
    let connection = match fields.next().and_then(Field::single).map(|token| token.text.as_str()) {
        Some("local") => Some(Connection::Local),
        Some("host" | "hostnogssenc") => Some(Connection::Host),
        Some("hostssl") => Some(Connection::HostSsl),
        Some("hostnossl") => Some(Connection::HostNoSsl),
        Some("hostgssenc") => None,
        Some(other) => return Err(format!("unknown type: {}", shown(other))),
        None => return Err("unknown type: more than one".to_owned()),
    };
    let databases = reader.expand(&record.place, &fields.next().ok_or("no database")?.tokens)?;
    let databases = databases.iter().map(Databases::read).collect::<Result<_, _>>()?;
    let users = reader.expand(&record.place, &fields.next().ok_or("no user")?.tokens)?;
    let users = users.iter().map(Users::read).collect::<Result<_, _>>()?;
    let network = if connection == Some(Connection::Local) { None } else { network(&mut fields)? };
    let method_field = fields.next().ok_or("no method")?;
    let method = method_field.single().ok_or("more than one method")?;
    let mut method = read_method(&method.text)?;
    if let Method::Ldap { options } = &mut method {
        let text = record.text[method_field.end..].trim();
        if !text.is_empty() {
            *options = Some(Box::new(LdapOptions::parse(text)?));
        }
    } else {
        for option in fields {
            read_option(option, &mut method, maps)?;
        }
    }
    let Some(connection) = connection else {
        reader.warn(&record.place, "hostgssenc matches nobody: there is no GSSAPI encryption here");
        return Ok(None);
    };
    if matches!(method, Method::Peer { .. }) && connection != Connection::Local {
        reader.warn(&record.place, "peer lets nobody in over TCP");
    }
    if matches!(method, Method::Cert { .. }) && matches!(connection, Connection::Local | Connection::HostNoSsl) {
        reader.warn(&record.place, "cert lets nobody in without TLS");
    }
    Ok(Some(Rule { connection, databases, users, network, method }))
}

fn network<'a>(fields: &mut impl Iterator<Item = &'a Field>) -> Result<Option<Network>, String> {
    let address = fields.next().ok_or("no address")?.single().ok_or("more than one address")?;
    let text = address.text.as_str();
    if address.is("all") {
        return Ok(None);
    }
    let network = if text.contains('/') {
        Network::parse(text)
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        let mask = fields.next().and_then(Field::single);
        let mask = mask.ok_or_else(|| format!("no mask: {text} needs /bits, or a mask in the next field"))?;
        Network::with_mask(text, &mask.text)
    } else {
        Err(NetworkError::NotAnAddress)
    };
    network.map(Some).map_err(|error| match error {
        NetworkError::NotAnAddress if address.is("samehost") || address.is("samenet") => format!("{text} is not supported"),
        NetworkError::NotAnAddress => format!("address {} {error}: host names are not supported", shown(text)),
        error => format!("address {text} {error}"),
    })
}

/// A word in the wrong place. It may be an option, and what is behind its name a password.
fn shown(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

fn read_method(word: &str) -> Result<Method, String> {
    Ok(match word {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "md5" => Method::Md5,
        "password" => Method::Plain,
        "peer" => Method::Peer { map: None },
        "cert" => Method::Cert { map: None },
        "scram-sha-256" => Method::ScramSha256,
        "ldap" => Method::Ldap { options: None },
        "pam" => Method::Pam,
        other => return Err(format!("unknown method: {}", shown(other))),
    })
}

/// The one supported option names a map.
fn read_option(option: &Field, method: &mut Method, maps: &Maps) -> Result<(), String> {
    let option = option.single().ok_or("an option must be NAME=VALUE")?;
    let (name, value) = option.text.split_once('=').ok_or("an option must be NAME=VALUE")?;
    match (name, method) {
        ("map", _) if !maps.has(value) => Err(format!("unknown ident map: {value}")),
        ("map", Method::Peer { map } | Method::Cert { map }) => {
            *map = Some(value.to_owned());
            Ok(())
        }
        ("map", _) => Err("option map is only for peer and cert".to_owned()),
        ("clientcert", _) => {
            Err("option clientcert is not supported: client_tls_sslmode says whether a certificate is needed".to_owned())
        }
        _ => Err(format!("unknown option: {name}")),
    }
}
