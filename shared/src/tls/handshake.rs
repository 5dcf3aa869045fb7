//! A handshake, sans-IO: bytes from the peer in, bytes for the peer out, and in the end a [`Session`].

use super::acceptor::Acceptor;
use super::certificate::Certificate;
use super::names::Names;
use super::secrets::{self, Heard};
use super::session::{Role, Session};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use std::sync::Arc;

/// The most of a flight that waits for its end, in bytes. A server's may hold as long a chain of certificates as rustls takes, 64 KiB.
const LONGEST_FROM_SERVER: usize = 128 * 1024;

/// Whoever has found the port can make us keep so much.
const LONGEST_FROM_CLIENT: usize = 64 * 1024;

/// It holds a ticket at most: see [`LONGEST_TICKET`](super::tickets::LONGEST_TICKET).
const LONGEST_CLIENT_HELLO: usize = 20 * 1024;

/// Type, version and length (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;

/// change_cipher_spec, alert, handshake, application_data.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=23;

/// TLS 1.2 lets encryption add up to 2048 bytes (RFC 5246, section 6.2.3).
const LONGEST_RECORD: usize = RECORD_HEADER + 16 * 1024 + 2048;

/// A handshake under way.
pub struct Handshake {
    side: Side,
    heard: Heard,
    /// What the peer has sent and rustls has not taken yet.
    input: Vec<u8>,
    /// So much of it has been shown to rustls: whole records.
    offered: usize,
    /// What the peer has sent inside the session before it was ours.
    plain: Vec<u8>,
}

enum Side {
    /// With what the client is received by.
    Server(UnbufferedServerConnection, Acceptor),
    Client(UnbufferedClientConnection),
}

/// A handshake that is over.
pub struct Established {
    /// The session.
    pub session: Session,
    /// What the peer has sent inside it already.
    pub plain: Vec<u8>,
    /// What has come behind that and is still sealed.
    pub sealed: Vec<u8>,
    /// What was agreed on.
    pub agreed: Agreed,
}

/// How far a handshake is.
pub enum Progress {
    /// More must come from the peer.
    Pending(Box<Handshake>),
    /// It is over.
    Done(Box<Established>),
}

/// What a handshake has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// As OpenSSL prints it, `TLSv1.3`.
    pub version: &'static str,
    /// As OpenSSL prints it.
    pub cipher: &'static str,
    /// The key exchange: `X25519`, `prime256v1`.
    pub group: &'static str,
    /// The peer's certificate and what it sent to prove it, leaf first.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The application protocol, if any was agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Begun with a ticket of an earlier session.
    pub resumed: bool,
    /// What a login inside the session is bound to: `tls-server-end-point` of the certificate that the server has shown in it. `None`: none
    /// is defined for that certificate.
    pub endpoint: Option<Arc<[u8]>>,
}

impl Agreed {
    /// The peer's own certificate, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.peer_certificates.first()
    }

    /// The names in it. A client's was verified, or there would be none.
    pub fn peer_names(&self) -> Option<Names> {
        Some(Certificate::parse(self.peer_certificate()?).ok()?.names())
    }

    /// As log lines and the console name it: `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
    pub fn label(&self) -> String {
        let Self { version, cipher, group, .. } = self;
        let curve = if group.is_empty() { String::new() } else { format!("/ECDH={group}") };
        format!("{version}/{cipher}{curve}")
    }
}

/// Why a handshake has failed. The peer's alert, if there is one to send, was put out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// rustls's reason.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The peer ended it.
    #[error("connection closed")]
    Closed,
    /// It goes on for too long.
    #[error("handshake too long")]
    TooLong,
    /// The host whose certificate is to be verified has a name that no certificate could have.
    #[error("\"{0}\" is not a host name")]
    Name(String),
    /// rustls agreed on something that we do not know.
    #[error("unknown cipher suite")]
    Unknown,
}

/// What follows from one step.
enum Next {
    Again,
    Blocked,
    Ready,
    Closed,
}

impl Handshake {
    /// The peer is a client.
    pub(super) fn accept(acceptor: Acceptor) -> Result<Box<Self>, HandshakeError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&acceptor.config)).map_err(HandshakeError::Tls)?;
        Ok(Self::new(Side::Server(connection, acceptor)))
    }

    /// The peer is a server; `name` is what it is asked for and its certificate is compared with.
    pub(super) fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Box<Self>, HandshakeError> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        Ok(Self::new(Side::Client(connection)))
    }

    fn new(side: Side) -> Box<Self> {
        Box::new(Self { side, heard: Heard::default(), input: Vec::new(), offered: 0, plain: Vec::new() })
    }

    /// Takes `bytes` from the peer and appends to `out` what it is to be sent, also when this fails.
    pub fn advance(mut self: Box<Self>, bytes: &[u8], out: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        self.input.extend_from_slice(bytes);
        loop {
            match self.step(out) {
                Ok(Next::Again) => {}
                Ok(Next::Blocked) if self.offer_more() => {}
                Ok(Next::Blocked) if self.input.len() > self.longest_input() => return Err(HandshakeError::TooLong),
                Ok(Next::Blocked) => return Ok(Progress::Pending(self)),
                Ok(Next::Ready) => return self.finish().map(|established| Progress::Done(Box::new(established))),
                Ok(Next::Closed) => return Err(HandshakeError::Closed),
                Err(error) => {
                    self.say_why(out);
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Result<Next, HandshakeError> {
        let Self { side, heard, input, offered, plain } = self;
        let records = &mut input[..*offered];
        let (discard, next) = heard.during(|| match side {
            Side::Server(connection, _) => handle(connection.process_tls_records(records), out, plain),
            Side::Client(connection) => handle(connection.process_tls_records(records), out, plain),
        });
        let discard = discard.min(*offered);
        input.drain(..discard);
        *offered -= discard;
        match next {
            Ok(Next::Ready) if self.is_unfinished() => Ok(Next::Blocked),
            other => other,
        }
    }

    /// Shows rustls one more record: what is behind the end of the handshake is not its to open. False: no other is there as a whole.
    fn offer_more(&mut self) -> bool {
        let rest = &self.input[self.offered..];
        let Some(&[kind, _, _, high, low]) = rest.first_chunk() else { return false };
        let length = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
        if !RECORD_KINDS.contains(&kind) || length > LONGEST_RECORD {
            // No record: rustls says what is wrong.
            self.offered = self.input.len();
        } else if length <= rest.len() {
            self.offered += length;
        } else {
            return false;
        }
        true
    }

    fn longest_input(&self) -> usize {
        match &self.side {
            // A ClientHello settles the version.
            Side::Server(connection, _) if connection.protocol_version().is_none() => LONGEST_CLIENT_HELLO,
            Side::Server(..) => LONGEST_FROM_CLIENT,
            Side::Client(_) => LONGEST_FROM_SERVER,
        }
    }

    fn is_unfinished(&self) -> bool {
        let handshaking = match &self.side {
            Side::Server(connection, _) => connection.is_handshaking(),
            Side::Client(connection) => connection.is_handshaking(),
        };
        handshaking || self.has_output()
    }

    /// After an error rustls has an alert to send. Once that is out it must not be asked again: it would look for messages in input that
    /// is gone.
    fn say_why(&mut self, out: &mut Vec<u8>) {
        while self.has_output() && matches!(self.step(out), Ok(Next::Again)) {}
    }

    fn has_output(&self) -> bool {
        match &self.side {
            Side::Server(connection, _) => connection.wants_write(),
            Side::Client(connection) => connection.wants_write(),
        }
    }

    fn finish(self: Box<Self>) -> Result<Established, HandshakeError> {
        let mut agreed = match &self.side {
            Side::Server(connection, _) => agreed(connection),
            Side::Client(connection) => agreed(connection),
        }
        .ok_or(HandshakeError::Unknown)?;
        if let Side::Server(_, acceptor) = &self.side
            && agreed.resumed
        {
            acceptor.verify_again(&agreed.peer_certificates)?;
        }
        agreed.endpoint = match &self.side {
            Side::Server(_, acceptor) => acceptor.binding.clone(),
            Side::Client(_) => agreed.peer_certificate().and_then(|shown| Certificate::parse(shown).ok()?.endpoint_binding()),
        };
        let (role, extracted) = match self.side {
            Side::Server(connection, _) => {
                (Role::Server, connection.dangerous_into_kernel_connection().map(|(secrets, _)| secrets))
            }
            Side::Client(connection) => (Role::Client, connection.dangerous_into_kernel_connection().map(|(secrets, _)| secrets)),
        };
        let extracted = extracted.map_err(HandshakeError::Tls)?;
        let tls13 = agreed.version == "TLSv1.3";
        let session = secrets::session(role, tls13, extracted, self.heard).ok_or(HandshakeError::Unknown)?;
        Ok(Established { session, plain: self.plain, sealed: self.input, agreed })
    }
}

/// Does what rustls asks for; gives how much of the input is done with.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> (usize, Result<Next, HandshakeError>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let encoded = encode(out, |buffer| data.encode(buffer));
            encoded.map(|()| Next::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(HandshakeError::Tls(error)),
                None => break Ok(Next::Again),
            }
        },
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Ready),
        // Early data is never offered and never accepted.
        Ok(_) => Ok(Next::Closed),
        Err(error) => Err(HandshakeError::Tls(error)),
    };
    (discard, next)
}

fn encode(out: &mut Vec<u8>, mut into: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), HandshakeError> {
    let start = out.len();
    out.resize(start + 1024, 0);
    loop {
        match into(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => out.resize(start + size.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => {
                out.truncate(start);
                return Ok(());
            }
        }
    }
}

fn agreed<Data>(connection: &rustls::unbuffered::UnbufferedConnectionCommon<Data>) -> Option<Agreed> {
    let version = match connection.protocol_version()? {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => return None,
    };
    let group = connection.negotiated_key_exchange_group().map_or("", |group| group_name(group.name()));
    Some(Agreed {
        version,
        cipher: cipher_name(connection.negotiated_cipher_suite()?.suite()),
        group,
        peer_certificates: connection.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect(),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        endpoint: None,
    })
}

/// OpenSSL's name of a cipher suite.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "?",
    }
}

/// OpenSSL's name of a key exchange.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "prime256v1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::secp521r1 => "secp521r1",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        _ => "?",
    }
}
