//! A cancel request for a backend whose connection is inside TLS travels inside TLS, as libpq's does from version 17 on.

use super::carry::{Aim, Stage};
use crate::server::{Answer, judge};
use crate::socket::Read;
use crate::worker::{Source, Worker};
use shared::address::Address;
use shared::config::SslNegotiation;
use shared::tls::{Handshake, HandshakeError, Progress, Role};
use shared::wire::encode;

/// How far it is on its way to TLS.
pub(super) enum Securing {
    Asked,
    Handshake(Box<Handshake>),
}

impl Worker {
    /// TLS comes first where the connection that the request is aimed at has it. False: not here.
    pub(super) fn begin_carrier_tls(&mut self, index: usize) -> bool {
        let carrier = &mut self.carriers[index];
        let Aim::Backend { pool, host: Some(host), .. } = &carrier.aim else { return false };
        let Some(connector) = &self.encryption.contexts.connector else { return false };
        let direct = self.pools.get(*pool).entry.sslnegotiation == SslNegotiation::Direct;
        let handshake = direct.then(|| connector.connect(host));
        let Stage::Connecting(mut conn, address) = std::mem::replace(&mut carrier.stage, Stage::Done) else { return false };
        let (securing, hello) = match handshake {
            None => (Securing::Asked, encode::SSL_REQUEST),
            Some(Ok(handshake)) => (Securing::Handshake(handshake), &[][..]),
            Some(Err(error)) => {
                carrier.stage = Stage::Connecting(conn, address.clone());
                self.carrier_failed(index, &address, &error.to_string());
                return true;
            }
        };
        // A broken socket is noticed by the next read.
        let _ = conn.send(hello, &mut self.buffers);
        carrier.stage = Stage::Securing(conn, address, securing);
        if direct {
            self.advance_carrier(index, &[]);
        }
        true
    }

    /// Something has come of the server's answer or of the handshake.
    pub(super) fn secure_carrier(&mut self, index: usize) {
        // Whoever has read for a client may hold the buffer that reads usually go to.
        let mut buffer = vec![0; 20 * 1024];
        while let Some(Stage::Securing(conn, address, securing)) = self.carriers.get_mut(index).map(|carrier| &mut carrier.stage) {
            let n = match conn.discard(&mut buffer) {
                Read::Full(n) | Read::Drained(n) => n,
                Read::Blocked => return,
                Read::End | Read::Broken => {
                    let address = address.clone();
                    return self.carrier_failed(index, &address, "server closed the connection");
                }
            };
            match securing {
                Securing::Asked => self.carrier_answered(index, &buffer[..n]),
                Securing::Handshake(_) => self.advance_carrier(index, &buffer[..n]),
            }
        }
    }

    fn carrier_answered(&mut self, index: usize, data: &[u8]) {
        let carrier = &mut self.carriers[index];
        let Stage::Securing(_, address, securing) = &mut carrier.stage else { return };
        // What it is aimed at was encrypted: a server that will not now must not be believed where that matters.
        match judge(data, self.config.settings.server_tls_sslmode) {
            Answer::None => {}
            Answer::Handshake => {
                let Aim::Backend { host: Some(host), .. } = &carrier.aim else { return };
                match self.encryption.contexts.connector.as_ref().map(|connector| connector.connect(host)) {
                    Some(Ok(handshake)) => {
                        *securing = Securing::Handshake(handshake);
                        self.advance_carrier(index, &[]);
                    }
                    Some(Err(error)) => self.carrier_tls_failed(index, &error),
                    None => {
                        let address = address.clone();
                        self.carrier_failed(index, &address, "TLS settings changed");
                    }
                }
            }
            Answer::InClear => self.send_request(index),
            Answer::Failed(text) => {
                let address = address.clone();
                self.carrier_failed(index, &address, text);
            }
        }
    }

    fn advance_carrier(&mut self, index: usize, data: &[u8]) {
        let carrier = &mut self.carriers[index];
        let Stage::Securing(mut conn, address, Securing::Handshake(handshake)) = std::mem::replace(&mut carrier.stage, Stage::Done)
        else {
            return;
        };
        let mut out = Vec::new();
        let progress = handshake.advance(data, &mut out);
        let _ = conn.send(&out, &mut self.buffers);
        match progress {
            Ok(Progress::Pending(handshake)) => {
                carrier.stage = Stage::Securing(conn, address, Securing::Handshake(handshake));
            }
            Ok(Progress::Done(established)) => {
                conn.secure(Source::Carrier(index).into(), Role::Client, *established, &mut self.buffers);
                carrier.stage = Stage::Connecting(conn, address);
                self.send_request(index);
            }
            Err(error) => {
                carrier.stage = Stage::Connecting(conn, address);
                self.carrier_tls_failed(index, &error);
            }
        }
    }

    fn carrier_tls_failed(&mut self, index: usize, error: &HandshakeError) {
        let carrier = &self.carriers[index];
        let (Stage::Connecting(_, address) | Stage::Securing(_, address, _)) = &carrier.stage else { return };
        let address: Address = address.clone();
        log::warn!("{} TLS handshake failed: {error}", self.carrier_prefix(carrier.id, &carrier.aim, &address));
        self.carrier_failed(index, &address, "TLS handshake failed");
    }
}
