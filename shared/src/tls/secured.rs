//! A session together with what belongs to it wherever it goes.

use super::session::Session;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A connection's TLS, as whoever has the socket keeps it.
#[derive(Serialize, Deserialize)]
pub struct Secured {
    /// The session.
    pub session: Session,
    /// The beginning of a record whose end has not come.
    #[serde(with = "serde_bytes")]
    pub partial: Vec<u8>,
    /// As log lines and the console name it: `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
    pub label: Box<str>,
}

impl Secured {
    /// For another process, with which this one shares nothing but the socket, not even the build.
    pub fn pack(&self) -> Packed {
        // Nothing in it can fail to be written.
        Packed(crate::encoding::encode_named(&[], self).unwrap_or_default())
    }
}

/// A [`Secured`] on its way. Its bytes open the connection: nobody prints them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Packed(#[serde(with = "serde_bytes")] Vec<u8>);

impl Packed {
    /// What was packed. `None`: by a build that knows of sessions what this one does not.
    pub fn unpack(&self) -> Option<Secured> {
        crate::encoding::decode_named(&self.0).ok()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{Keys, TrafficSecret};
    use super::Packed;
    use crate::shm::TicketKey;
    use zeroize::ZeroizeOnDrop;

    #[test]
    fn keys_are_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Keys>();
        wiped::<TrafficSecret>();
        wiped::<Packed>();
        wiped::<TicketKey>();
    }
}
