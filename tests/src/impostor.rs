//! Servers that are not PostgreSQL and say what a case wants them to.

use crate::frontend::{GSSENC_REQUEST, SSL_REQUEST, message, strings};
use crate::tls::Authority;
use crate::{Message, Port};
use rustls::{ServerConnection, StreamOwned};
use std::fmt::Debug;
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
        Self::start_with(talk, |mut stream| {
            // Whatever comes before the startup packet is an encryption request: no.
            while let Some(SSL_REQUEST | GSSENC_REQUEST) = read_packet(&mut stream) {
                let _ = stream.write_all(b"N");
            }
            Some(Peer(Box::new(stream)))
        })
    }

    /// The same inside TLS, with the certificate `server` of this authority.
    pub fn inside_tls(authority: &Authority, talk: impl Fn(&mut Peer) + Send + Sync + 'static) -> Impostor {
        let config = authority.server("server");
        Self::start_with(talk, move |mut stream| {
            assert_eq!(read_packet(&mut stream), Some(SSL_REQUEST));
            stream.write_all(b"S").ok()?;
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            read_packet(&mut stream)?;
            Some(Peer(Box::new(stream)))
        })
    }

    fn start_with(
        talk: impl Fn(&mut Peer) + Send + Sync + 'static,
        begin: impl Fn(TcpStream) -> Option<Peer> + Send + Sync + 'static,
    ) -> Impostor {
        let port = Port::take();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        let each = Arc::new(move |stream| {
            if let Some(mut peer) = begin(stream) {
                talk(&mut peer);
            }
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let each = Arc::clone(&each);
                std::thread::spawn(move || each(stream));
            }
        });
        Impostor { port }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

/// A connection, in the clear or inside TLS.
trait Stream: Read + Write + Send + Debug {}

impl<T: Read + Write + Send + Debug> Stream for T {}

/// Who has connected to an impostor.
#[derive(Debug)]
pub struct Peer(Box<dyn Stream>);

impl Peer {
    /// Sends bytes; that the other side has gone is none of the impostor's business.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
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
}

/// Reads a packet without a type byte; returns its code.
fn read_packet(stream: &mut impl Read) -> Option<u32> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let (length, code) = header.split_at(4);
    let mut body = vec![0; u32::from_be_bytes(length.try_into().unwrap()) as usize - 8];
    stream.read_exact(&mut body).ok()?;
    Some(u32::from_be_bytes(code.try_into().unwrap()))
}

/// An Authentication… message.
pub fn authentication(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), data].concat())
}
