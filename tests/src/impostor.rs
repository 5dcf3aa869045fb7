//! Servers that are not PostgreSQL and say what a case wants them to.

use crate::frontend::{GSSENC_REQUEST, SSL_REQUEST, message, strings};
use crate::{Message, Port};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// One that listens until the test's process ends.
#[derive(Debug)]
pub struct Impostor {
    port: Port,
}

impl Impostor {
    /// Every connection has a thread to itself, which runs `talk` once the startup packet has come and closes the connection when it returns.
    pub fn start(talk: impl Fn(&mut Peer) + Send + Sync + 'static) -> Impostor {
        let port = Port::take();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        let talk = Arc::new(talk);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let talk = Arc::clone(&talk);
                std::thread::spawn(move || {
                    let mut peer = Peer(stream);
                    // Whatever comes before the startup packet is an encryption request: no.
                    while let Some(SSL_REQUEST | GSSENC_REQUEST) = peer.read_packet() {
                        peer.send(b"N");
                    }
                    talk(&mut peer);
                });
            }
        });
        Impostor { port }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

/// Who has connected to an impostor.
#[derive(Debug)]
pub struct Peer(TcpStream);

impl Peer {
    /// Sends bytes; that the other side has gone is none of the impostor's business.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Lets the client in without a password.
    pub fn welcome(&mut self) {
        let parameter = |name, value| message(b'S', &strings(&[name, value]));
        self.send(&authentication(0, &[]));
        self.send(&[parameter("server_version", "15.0"), parameter("client_encoding", "UTF8")].concat());
        self.send(&[message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), message(b'Z', b"I")].concat());
    }

    /// The next message; `None` when the connection has ended.
    pub fn read(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        self.0.read_exact(&mut header).ok()?;
        let [kind, length @ ..] = header;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.0.read_exact(&mut body).ok()?;
        Some(Message { kind, body })
    }

    /// Reads until the other side closes.
    pub fn listen(&mut self) {
        while self.0.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
    }

    /// Reads a packet without a type byte; returns its code.
    fn read_packet(&mut self) -> Option<u32> {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).ok()?;
        let (length, code) = header.split_at(4);
        let mut body = vec![0; u32::from_be_bytes(length.try_into().unwrap()) as usize - 8];
        self.0.read_exact(&mut body).ok()?;
        Some(u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// An Authentication… message.
pub fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), data].concat())
}
