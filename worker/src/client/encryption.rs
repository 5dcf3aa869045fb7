//! A client that wants TLS: SSLRequest or a ClientHello right away, the handshake, and what is refused around it.

use super::login::Stage;
use super::{Client, ClientState, Ending, Peer};
use crate::worker::{Source, Worker};
use shared::config::SslMode;
use shared::tls::{Handshake, Progress, Role};

/// The first byte of a TLS record that carries a ClientHello, and of no message of PostgreSQL's.
const HANDSHAKE_RECORD: u8 = 0x16;

/// A handshake with a client.
pub(super) struct Handshaking {
    handshake: Box<Handshake>,
    /// It is going to be worked on: nothing more is read until then.
    queued: bool,
}

impl Handshaking {
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }
}

impl Worker {
    /// Whether this client may have TLS: whoever has one already has not, nor has the Unix socket.
    fn offers_tls(&self, index: usize) -> bool {
        let client = &self.clients[index];
        self.encryption.contexts.acceptor.is_some() && matches!(client.peer, Peer::Tcp(_)) && !client.conn.is_secured()
    }

    /// Direct TLS: the client begins with its handshake. True: what it has sent belongs to that.
    pub(super) fn begins_with_tls(&mut self, index: usize, data: &[u8]) -> bool {
        let direct = data.first() == Some(&HANDSHAKE_RECORD) && self.offers_tls(index);
        if direct {
            self.begin_client_handshake(index);
        }
        direct
    }

    /// SSLRequest. Bytes that came in the same breath were meant to be encrypted and may be an attacker's (CVE-2021-3935).
    pub(super) fn encryption_asked_for(&mut self, index: usize, more: bool) {
        const TOO_EARLY: &str = "received unencrypted data after SSL request";
        if self.clients[index].conn.is_secured() {
            return self.close_client(index, &Ending::Silent("SSL req inside SSL"));
        }
        if !self.offers_tls(index) {
            return self.refuse_encryption(index, more, TOO_EARLY);
        }
        if more {
            return self.close_client(index, &Ending::violation(TOO_EARLY));
        }
        if self.clients[index].conn.send(b"S", &mut self.buffers).is_err() {
            return self.close_client(index, &Ending::Silent("failed to ack SSL"));
        }
        self.begin_client_handshake(index);
    }

    /// Answers `N`.
    pub(super) fn refuse_encryption(&mut self, index: usize, more: bool, text: &str) {
        if more {
            return self.close_client(index, &Ending::violation(text));
        }
        if self.clients[index].conn.send(b"N", &mut self.buffers).is_err() {
            self.close_client(index, &Ending::Silent("failed to nak SSL"));
        }
    }

    /// What client_tls_sslmode demands of a client that begins its session.
    pub(super) fn check_encryption(&self, index: usize) -> Result<(), Ending> {
        use SslMode::{Require, VerifyCa, VerifyFull};
        let client = &self.clients[index];
        let demanded = matches!(self.config.settings.client_tls_sslmode, Require | VerifyCa | VerifyFull);
        if demanded && matches!(client.peer, Peer::Tcp(_)) && !client.conn.is_secured() {
            return Err(Ending::violation("SSL required"));
        }
        Ok(())
    }

    fn begin_client_handshake(&mut self, index: usize) {
        let begun = self.encryption.contexts.acceptor.as_ref().map(shared::tls::Acceptor::accept);
        let ClientState::Login(login) = &mut self.clients[index].state else { return };
        match begun {
            Some(Ok(handshake)) => login.stage = Stage::Handshake(Handshaking { handshake, queued: false }),
            Some(Err(error)) => self.handshake_failed(index, &error),
            None => {}
        }
    }

    /// More has come of a handshake; it is worked on at the end of the turn.
    pub(super) fn handshake_input(&mut self, index: usize) {
        if let ClientState::Login(login) = &mut self.clients[index].state
            && let Stage::Handshake(handshaking) = &mut login.stage
            && !std::mem::replace(&mut handshaking.queued, true)
        {
            self.encryption.enqueue(Source::Client(index));
        }
    }

    /// Works on a handshake.
    pub(crate) fn client_handshake(&mut self, index: usize) {
        let Some(Client { conn, state: ClientState::Login(login), .. }) = self.clients.get_mut(index) else { return };
        if !matches!(&login.stage, Stage::Handshake(handshaking) if handshaking.queued) {
            return;
        }
        let Stage::Handshake(Handshaking { handshake, .. }) = std::mem::replace(&mut login.stage, Stage::Over) else { return };
        let input = std::mem::take(&mut conn.input);
        self.replies.clear();
        let progress = handshake.advance(&input, &mut self.replies);
        self.buffers.give(input);
        // A broken socket is noticed by the next read.
        let _ = conn.send(&self.replies, &mut self.buffers);
        match progress {
            Ok(Progress::Pending(handshake)) => login.stage = Stage::Handshake(Handshaking { handshake, queued: false }),
            Ok(Progress::Done(established)) => {
                login.encryption = Some(Box::new(established.agreed.clone()));
                login.stage = Stage::First { anything: true };
                let plain = conn.secure(Source::Client(index).into(), Role::Server, *established, &mut self.buffers);
                if !plain.is_empty() {
                    self.client_input(index, &plain);
                }
            }
            Err(error) => return self.handshake_failed(index, &error),
        }
        // It was not read while the handshake waited for its turn.
        if self.clients.get(index).is_some_and(|client| client.conn.readable) {
            self.again.push(Source::Client(index));
        }
    }

    fn handshake_failed(&mut self, index: usize, error: &shared::tls::HandshakeError) {
        let prefix = self.clients[index].prefix(self.config.settings.listen_port);
        log::warn!("{prefix} TLS handshake failed: {error}");
        self.close_client(index, &Ending::Told("TLS handshake failed"));
    }
}
