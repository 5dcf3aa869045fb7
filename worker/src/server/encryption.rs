//! TLS with PostgreSQL: asked for before the startup message, or begun at once where the entry says so.

use super::ServerState;
use super::login::Stage;
use crate::worker::{Source, Worker};
use shared::address::Address;
use shared::config::{SslMode, SslNegotiation};
use shared::tls::{Handshake, HandshakeError, Progress, Role};
use shared::wire::encode;

/// How far a server connection is on its way to TLS.
pub(crate) enum Securing {
    /// It was asked whether it will.
    Asked,
    Handshake {
        handshake: Box<Handshake>,
        /// What has come waits in the connection's input for the end of the turn.
        queued: bool,
    },
}

/// What a server's answer to SSLRequest means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing yet.
    None,
    Handshake,
    /// It will not, and need not.
    InClear,
    Failed(&'static str),
}

/// Judges it. Bytes behind the answer were not sent by who will be at the other end of TLS (CVE-2021-23222).
pub(crate) fn judge(data: &[u8], mode: SslMode) -> Answer {
    match (data, mode) {
        ([], _) => Answer::None,
        (b"S", _) => Answer::Handshake,
        (b"N", SslMode::Disable | SslMode::Allow | SslMode::Prefer) => Answer::InClear,
        (b"N", _) => Answer::Failed("server refused SSL"),
        ([b'S' | b'N', ..], _) => Answer::Failed("received unencrypted data after SSL response"),
        _ => Answer::Failed("bad sslreq answer"),
    }
}

impl Worker {
    /// A connection to a server is there: TLS comes first where it is wanted. False: it is not.
    pub(super) fn begin_server_tls(&mut self, index: usize) -> bool {
        let server = &self.servers[index];
        if self.encryption.contexts.connector.is_none() || matches!(server.address, Address::Unix(..)) {
            return false;
        }
        if self.pools.get(server.pool).entry.sslnegotiation == SslNegotiation::Direct {
            self.begin_server_handshake(index);
            return true;
        }
        self.set_stage(index, Stage::Securing(Securing::Asked));
        if self.servers[index].conn.send(encode::SSL_REQUEST, &mut self.buffers).is_err() {
            self.server_failed(index, "failed to send SSL request");
        }
        true
    }

    fn set_stage(&mut self, index: usize, stage: Stage) {
        if let ServerState::Login(login) = &mut self.servers[index].state {
            login.stage = stage;
        }
    }

    fn begin_server_handshake(&mut self, index: usize) {
        let host = &self.servers[index].host;
        match self.encryption.contexts.connector.as_ref().map(|connector| connector.connect(host)) {
            Some(Ok(handshake)) => {
                self.set_stage(index, Stage::Securing(Securing::Handshake { handshake, queued: false }));
                // Its first message waits for nothing.
                self.advance_server(index, &[]);
            }
            Some(Err(error)) => self.server_tls_failed(index, &error),
            None => self.server_failed(index, "TLS settings changed"),
        }
    }

    /// What a server has sent on the way to TLS. Gives how much of it is done with.
    pub(super) fn securing_input(&mut self, index: usize, data: &[u8]) -> usize {
        let ServerState::Login(login) = &mut self.servers[index].state else { return data.len() };
        match &mut login.stage {
            Stage::Securing(Securing::Asked) => {
                match judge(data, self.config.settings.server_tls_sslmode) {
                    Answer::None => {}
                    Answer::Handshake => self.begin_server_handshake(index),
                    Answer::InClear => self.send_startup(index),
                    Answer::Failed(text) => {
                        log::warn!("{} {text}", self.server_prefix(index));
                        self.server_failed(index, text);
                    }
                }
                data.len()
            }
            Stage::Securing(Securing::Handshake { queued, .. }) => {
                if !std::mem::replace(queued, true) {
                    self.encryption.enqueue(Source::Server(index));
                }
                0
            }
            Stage::Startup => data.len(),
        }
    }

    /// Works on a handshake.
    pub(crate) fn server_handshake(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else { return };
        let ServerState::Login(login) = &server.state else { return };
        if !login.awaits_handshake() {
            return;
        }
        let input = std::mem::take(&mut server.conn.input);
        self.advance_server(index, &input);
        self.buffers.give(input);
        if self.servers.get(index).is_some_and(|server| server.conn.readable) {
            self.again.push(Source::Server(index));
        }
    }

    fn advance_server(&mut self, index: usize, input: &[u8]) {
        let server = &mut self.servers[index];
        let ServerState::Login(login) = &mut server.state else { return };
        let Stage::Securing(Securing::Handshake { handshake, .. }) = std::mem::take(&mut login.stage) else { return };
        self.replies.clear();
        let progress = handshake.advance(input, &mut self.replies);
        // A broken socket is noticed by the next read.
        let _ = server.conn.send(&self.replies, &mut self.buffers);
        match progress {
            Ok(Progress::Pending(handshake)) => {
                login.stage = Stage::Securing(Securing::Handshake { handshake, queued: false });
            }
            Ok(Progress::Done(established)) => {
                login.agreed = Some(Box::new(established.agreed.clone()));
                let plain = server.conn.secure(Source::Server(index).into(), Role::Client, *established, &mut self.buffers);
                server.conn.keep(&plain, &mut self.buffers);
                if self.config.settings.log_connections {
                    let label = self.servers[index].conn.tls_label();
                    log::info!("{} SSL established: {label}", self.server_prefix(index));
                }
                self.send_startup(index);
            }
            Err(error) => self.server_tls_failed(index, &error),
        }
    }

    fn server_tls_failed(&mut self, index: usize, error: &HandshakeError) {
        log::warn!("{} TLS handshake failed: {error}", self.server_prefix(index));
        self.server_failed(index, "TLS handshake failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_with_one_byte() {
        use SslMode::{Prefer, Require, VerifyFull};
        assert_eq!(judge(b"", Require), Answer::None);
        assert_eq!([Prefer, Require, VerifyFull].map(|mode| judge(b"S", mode)), [Answer::Handshake; 3]);
        assert_eq!(judge(b"N", Prefer), Answer::InClear);
        assert_eq!(judge(b"N", Require), Answer::Failed("server refused SSL"));
        let more = Answer::Failed("received unencrypted data after SSL response");
        assert_eq!((judge(b"SE", Prefer), judge(b"Nx", Prefer)), (more, more));
        assert_eq!(judge(b"E\0\0\0\x10", Prefer), Answer::Failed("bad sslreq answer"));
    }
}
