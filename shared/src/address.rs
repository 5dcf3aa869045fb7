//! Where a server listens, as both sides of a hand-over understand it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// An IP address and its port.
    Tcp(SocketAddr),
    /// A Unix socket's directory (`@name`: in the abstract namespace) and the port in its name.
    Unix(PathBuf, u16),
}

impl Address {
    /// The address as the console's columns have it: IP address or `unix`, and the port.
    pub fn columns(&self) -> (String, u16) {
        match self {
            Address::Tcp(address) => (address.ip().to_string(), address.port()),
            Address::Unix(_, port) => ("unix".to_owned(), *port),
        }
    }
}

/// As log lines have it: `127.0.0.1:5432`, `unix:5432`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(_, port) => write!(f, "unix:{port}"),
        }
    }
}
