//! A client's and a server's end without sockets: what tests and fuzz targets drive.
//!
//! Each end keeps what was not dealt with and shows it again with more behind it, as the worker does, and collects what it was sent.

use super::backend::{Backend, Seen, relay};
use super::frontend::{Frontend, Need, Rules, Stop, forward, need};
use super::statements::Registry;

/// The client's end.
#[derive(Default)]
pub(crate) struct ClientEnd {
    pub(crate) front: Frontend,
    /// Sent by the client and not dealt with.
    pub(crate) held: Vec<u8>,
    /// What the client was sent.
    pub(crate) received: Vec<u8>,
}

/// The server's end.
#[derive(Default)]
pub(crate) struct ServerEnd {
    pub(crate) back: Backend,
    /// Sent by the server and not dealt with.
    pub(crate) held: Vec<u8>,
    /// What the server was sent.
    pub(crate) received: Vec<u8>,
}

impl ClientEnd {
    /// The client sends `bytes` while it has no server. What is left for a server stays held.
    pub(crate) fn ask(&mut self, rules: Rules, bytes: &[u8]) -> Need {
        self.held.extend_from_slice(bytes);
        let need = need(&mut self.front, rules, &self.held, &mut self.received);
        if let Need::Server(at) | Need::Nothing(at) | Need::BadHeader(at) = need {
            self.held.drain(..at);
        }
        need
    }

    /// The client sends `bytes` to the server that it is linked to.
    pub(crate) fn send(&mut self, server: &mut ServerEnd, registry: &mut Registry, rules: Rules, bytes: &[u8]) -> Stop {
        self.held.extend_from_slice(bytes);
        loop {
            let stop = self.turn(server, registry, rules);
            if stop != Stop::Enough {
                return stop;
            }
        }
    }

    /// Deals once with what is held.
    pub(crate) fn turn(&mut self, server: &mut ServerEnd, registry: &mut Registry, rules: Rules) -> Stop {
        let mut scratch = Vec::new();
        let done = forward(&mut self.front, server.back.side(), registry, rules, &self.held, &mut scratch, &mut self.received);
        server.received.extend_from_slice(done.to_server);
        let (consumed, stop) = (done.consumed, done.stop);
        self.held.drain(..consumed);
        stop
    }
}

impl ServerEnd {
    /// The server sends `bytes`; `None` for the client while nobody is linked to it. Gives what was seen and how it broke the protocol.
    pub(crate) fn answer(
        &mut self,
        client: Option<&mut ClientEnd>,
        registry: &mut Registry,
        bytes: &[u8],
    ) -> (Seen, Option<&'static str>) {
        self.held.extend_from_slice(bytes);
        let mut scratch = Vec::new();
        let (mut front, received) = client.map(|c| (&mut c.front, &mut c.received)).unzip();
        let done = relay(&mut self.back, front.as_deref_mut(), u32::MAX, &self.held, &mut scratch);
        if let Some(received) = received {
            received.extend_from_slice(done.to_client);
        }
        let (consumed, seen, violation) = (done.consumed, done.seen, done.violation);
        self.held.drain(..consumed);
        if let (Some(front), Some(rare)) = (front, &seen.rare) {
            self.received.extend_from_slice(&rare.settle(&mut self.back, front, registry));
        }
        (seen, violation)
    }
}
