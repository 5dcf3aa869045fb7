//! Alerts: why one side ends a session (RFC 8446, 6; RFC 5246, 7.2).

use serde::{Deserialize, Serialize};

/// An alert's description, as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alert(pub u8);

impl Alert {
    pub(super) const CLOSE_NOTIFY: Self = Self(0);
    pub(super) const UNEXPECTED_MESSAGE: Self = Self(10);
    pub(super) const BAD_RECORD_MAC: Self = Self(20);
    pub(super) const RECORD_OVERFLOW: Self = Self(22);
    pub(super) const DECODE_ERROR: Self = Self(50);
    pub(super) const PROTOCOL_VERSION: Self = Self(70);
    pub(super) const INTERNAL_ERROR: Self = Self(80);
    pub(super) const USER_CANCELED: Self = Self(90);
    pub(super) const NO_RENEGOTIATION: Self = Self(100);

    /// Level and description.
    pub(super) fn encode(self) -> [u8; 2] {
        let warning = matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED | Self::NO_RENEGOTIATION);
        [if warning { 1 } else { 2 }, self.0]
    }
}

/// OpenSSL's words, which PgBouncer's log has.
impl std::fmt::Display for Alert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            0 => "close notify",
            10 => "unexpected message",
            20 => "bad record mac",
            22 => "record overflow",
            40 => "handshake failure",
            42 => "bad certificate",
            43 => "unsupported certificate",
            44 => "certificate revoked",
            45 => "certificate expired",
            46 => "certificate unknown",
            47 => "illegal parameter",
            48 => "unknown ca",
            49 => "access denied",
            50 => "decode error",
            51 => "decrypt error",
            70 => "protocol version",
            71 => "insufficient security",
            80 => "internal error",
            86 => "inappropriate fallback",
            90 => "user canceled",
            100 => "no renegotiation",
            109 => "missing extension",
            110 => "unsupported extension",
            112 => "unrecognized name",
            116 => "certificate required",
            120 => "no application protocol",
            other => return write!(f, "alert number {other}"),
        };
        f.write_str(name)
    }
}
