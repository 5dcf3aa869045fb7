//! A client that speaks the wire protocol itself: it sends any bytes and reads message by message, so that a case can look at the
//! things that a driver hides. Nothing waits for ever: a read without an answer panics after [`SOON`].

use crate::frontend;
use crate::wait::SOON;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use postgres_protocol::authentication::{md5_hash, sasl};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type byte.
    pub kind: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// The fields of an ErrorResponse or NoticeResponse by their letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub BTreeMap<char, String>);

impl Fields {
    /// `S`: FATAL, ERROR, NOTICE …
    pub fn severity(&self) -> &str {
        self.get('S')
    }

    /// `C`: the SQLSTATE.
    pub fn code(&self) -> &str {
        self.get('C')
    }

    /// `M`: the text.
    pub fn text(&self) -> &str {
        self.get('M')
    }

    fn get(&self, letter: char) -> &str {
        self.0.get(&letter).map_or("", String::as_str)
    }
}

impl Message {
    /// The zero-terminated texts of the body.
    pub fn strings(&self) -> Vec<String> {
        let mut texts: Vec<String> =
            self.body.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        texts.pop();
        texts
    }

    /// An error's or a notice's fields.
    pub fn fields(&self) -> Fields {
        let fields = self.strings().into_iter().filter(|field| !field.is_empty());
        Fields(fields.map(|field| (field.chars().next().unwrap(), field[1..].to_owned())).collect())
    }

    /// A DataRow's values.
    pub fn values(&self) -> Vec<Option<String>> {
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            let taken = usize::try_from(length).unwrap_or(0);
            values.push((length >= 0).then(|| String::from_utf8_lossy(&rest[..taken]).into_owned()));
            rest = &rest[taken..];
        }
        values
    }

    /// A NotificationResponse's channel.
    pub fn channel(&self) -> String {
        let end = self.body[4..].iter().position(|&byte| byte == 0).unwrap();
        String::from_utf8_lossy(&self.body[4..4 + end]).into_owned()
    }

    /// A RowDescription's columns: name and type.
    pub fn columns(&self) -> Vec<(String, u32)> {
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            let kind = u32::from_be_bytes(rest[end + 7..end + 11].try_into().unwrap());
            columns.push((String::from_utf8_lossy(&rest[..end]).into_owned(), kind));
            rest = &rest[end + 19..];
        }
        columns
    }
}

/// All that came up to a ReadyForQuery.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The messages' types in order, ReadyForQuery included, asynchronous ones (`N`, `S`, `A`) left out.
    pub order: String,
    /// The last RowDescription.
    pub columns: Vec<(String, u32)>,
    /// Every row.
    pub rows: Vec<Vec<Option<String>>>,
    /// Every CommandComplete's tag.
    pub tags: Vec<String>,
    /// Every error.
    pub errors: Vec<Fields>,
    /// Every notice.
    pub notices: Vec<Fields>,
    /// The channel of every notification.
    pub notified: Vec<String>,
    /// Bytes of CopyData.
    pub copied: Vec<u8>,
    /// `I`, `T` or `E`.
    pub status: char,
}

impl Answer {
    /// Adds what a message says.
    pub(crate) fn take(&mut self, message: Message) {
        if !matches!(message.kind, b'N' | b'S' | b'A') {
            self.order.push(char::from(message.kind));
        }
        match message.kind {
            b'T' => self.columns = message.columns(),
            b'D' => self.rows.push(message.values()),
            b'C' => self.tags.extend(message.strings()),
            b'E' => self.errors.push(message.fields()),
            b'N' => self.notices.push(message.fields()),
            b'A' => self.notified.push(message.channel()),
            b'd' => self.copied.extend(message.body),
            b'Z' => self.status = char::from(message.body[0]),
            _ => {}
        }
    }

    /// The value of a single row with a single column.
    #[track_caller]
    pub fn value(&self) -> &str {
        assert!(self.errors.is_empty() && self.rows.len() == 1 && self.rows[0].len() == 1, "not a single value: {self:?}");
        self.rows[0][0].as_deref().unwrap_or("")
    }

    /// The column `name` of every row; NULL is an empty text.
    #[track_caller]
    pub fn column(&self, name: &str) -> Vec<String> {
        let index = self.columns.iter().position(|(column, _)| column == name);
        let index = index.unwrap_or_else(|| panic!("no column {name}: {self:?}"));
        self.rows.iter().map(|row| row[index].clone().unwrap_or_default()).collect()
    }

    /// The column `name` of the first row whose column `key` is `value`.
    #[track_caller]
    pub fn lookup(&self, key: &str, value: &str, name: &str) -> String {
        self.find(key, value, name).unwrap_or_else(|| panic!("no row with {key} = {value}: {self:?}"))
    }

    /// As [`Answer::lookup`], when there may be no such row yet.
    #[track_caller]
    pub fn find(&self, key: &str, value: &str, name: &str) -> Option<String> {
        let at = self.column(key).iter().position(|found| found == value)?;
        Some(self.column(name).swap_remove(at))
    }

    /// The only error.
    #[track_caller]
    pub fn error(&self) -> &Fields {
        assert_eq!(self.errors.len(), 1, "not one error: {self:?}");
        &self.errors[0]
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    input: Vec<u8>,
    taken: usize,
    /// What ParameterStatus has said, the latest value of each.
    pub parameters: BTreeMap<String, String>,
    /// The 8 bytes of BackendKeyData.
    pub key: Vec<u8>,
    /// Notices that came during the login.
    pub notices: Vec<Fields>,
}

impl Client {
    /// Connects to 127.0.0.1 and says nothing yet.
    pub fn tcp(port: u16) -> Client {
        Self::try_tcp(port).unwrap_or_else(|error| panic!("could not connect to port {port}: {error}"))
    }

    /// As [`Client::tcp`], for cases in which a refusal is an answer.
    pub fn try_tcp(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), SOON)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        Ok(Self::over(Stream::Tcp(stream)))
    }

    /// Connects to 127.0.0.1 from another address of the loopback network.
    pub fn tcp_from(from: Ipv4Addr, port: u16) -> Client {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
        connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self::over(Stream::Tcp(stream))
    }

    /// The bare connection, between two answers.
    pub fn into_tcp(self) -> TcpStream {
        assert_eq!(self.taken, self.input.len(), "nothing unread");
        match self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(_) | Stream::Tls(_) => panic!("not a bare TCP connection"),
        }
    }

    /// Connects to the Unix socket of a server with this port number in `folder`.
    pub fn unix(folder: &Path, port: u16) -> Client {
        Self::unix_at(&folder.join(format!(".s.PGSQL.{port}")))
    }

    /// Connects to a Unix socket.
    pub fn unix_at(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self::over(Stream::Unix(stream))
    }

    fn over(stream: Stream) -> Client {
        Client { stream, input: Vec::new(), taken: 0, parameters: BTreeMap::new(), key: Vec::new(), notices: Vec::new() }
    }

    /// Asks for TLS and shakes hands.
    #[track_caller]
    pub fn tls(port: u16, config: &Arc<ClientConfig>) -> Client {
        let mut client = Self::tcp(port);
        client.send(&frontend::untyped(frontend::SSL_REQUEST, b""));
        assert_eq!(client.read_byte(), b'S', "the answer to SSLRequest");
        client.encrypt(config).unwrap()
    }

    /// Shakes hands at once, as libpq does with sslnegotiation=direct.
    #[track_caller]
    pub fn direct_tls(port: u16, config: &Arc<ClientConfig>) -> Client {
        Self::tcp(port).encrypt(config).unwrap()
    }

    /// Goes on inside TLS; the handshake is over when this returns.
    pub fn encrypt(self, config: &Arc<ClientConfig>) -> std::io::Result<Client> {
        let mut stream = StreamOwned::new(crate::tls::begin(config), self.into_tcp());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::over(Stream::Tls(Box::new(stream))))
    }

    /// The session and the socket beneath it, for cases that play with records.
    pub fn tls_parts(&mut self) -> (&mut ClientConnection, &mut TcpStream) {
        match &mut self.stream {
            Stream::Tls(stream) => (&mut stream.conn, &mut stream.sock),
            _ => panic!("a connection in the clear"),
        }
    }

    /// What the peer has shown of itself inside TLS.
    pub fn peer_certificate(&mut self) -> CertificateDer<'static> {
        self.tls_parts().0.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Connects over TCP and logs in without a password.
    #[track_caller]
    pub fn login(port: u16, user: &str, database: &str) -> Client {
        let mut client = Self::tcp(port);
        if let Err(error) = client.start(&[("user", user), ("database", database)], None) {
            panic!("login refused: {error:?}");
        }
        client
    }

    /// Sends a startup packet, answers what the server asks for with `password`, and reads up to the first ReadyForQuery.
    #[track_caller]
    pub fn start(&mut self, parameters: &[(&str, &str)], password: Option<&str>) -> Result<(), Fields> {
        self.send(&frontend::startup(parameters));
        let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, user)| user);
        self.authenticate(user, password)
    }

    /// The part of [`Client::start`] behind the startup packet.
    #[track_caller]
    pub fn authenticate(&mut self, user: &str, password: Option<&str>) -> Result<(), Fields> {
        let mut scram = None;
        loop {
            let message = self.read();
            match message.kind {
                b'R' => {
                    let kind = u32::from_be_bytes(message.body[..4].try_into().unwrap());
                    let data = &message.body[4..];
                    let given = || password.expect("a password is asked for").as_bytes();
                    match kind {
                        0 => {}
                        3 => self.send(&frontend::password(&[given(), &[0]].concat())),
                        5 => {
                            let hash = md5_hash(user.as_bytes(), given(), data.try_into().unwrap());
                            self.send(&frontend::password(&frontend::strings(&[&hash])));
                        }
                        10 => {
                            let (mechanism, binding) = self.binding(data);
                            let state = sasl::ScramSha256::new(given(), binding);
                            self.send(&frontend::sasl_initial(mechanism, state.message()));
                            scram = Some(state);
                        }
                        11 => {
                            let state = scram.as_mut().unwrap();
                            state.update(data).unwrap();
                            let last = state.message().to_vec();
                            self.send(&frontend::password(&last));
                        }
                        12 => scram.as_mut().unwrap().finish(data).unwrap(),
                        other => panic!("authentication request {other}"),
                    }
                }
                b'K' => self.key = message.body,
                b'N' => self.notices.push(message.fields()),
                b'E' => return Err(message.fields()),
                b'S' => {}
                b'Z' => return Ok(()),
                other => panic!("unexpected {:?} in login", char::from(other)),
            }
        }
    }

    /// The best of the mechanisms offered, which must be those of this connection, and what binds it.
    #[track_caller]
    fn binding(&self, offered: &[u8]) -> (&'static str, sasl::ChannelBinding) {
        if let Some(hash) = self.endpoint() {
            assert_eq!(offered, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", "the mechanisms offered inside TLS");
            ("SCRAM-SHA-256-PLUS", sasl::ChannelBinding::tls_server_end_point(hash))
        } else {
            assert_eq!(offered, b"SCRAM-SHA-256\0\0", "the mechanisms offered in the clear");
            ("SCRAM-SHA-256", sasl::ChannelBinding::unsupported())
        }
    }

    /// Begins a SCRAM login to the database `app`, and returns what the server says first: nonce, salt and iterations.
    #[track_caller]
    pub fn scram_challenge(&mut self, user: &str) -> String {
        self.send(&frontend::startup(&[("user", user), ("database", "app")]));
        assert_eq!(self.read().kind, b'R');
        self.send(&frontend::sasl_initial("SCRAM-SHA-256", b"n,,n=,r=0123456789abcdef"));
        String::from_utf8(self.read().body[4..].to_vec()).unwrap()
    }

    /// The hash of the certificate that the server has shown, if it has.
    pub fn endpoint(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = &self.stream else { return None };
        crate::tls::endpoint(&stream.conn.peer_certificates().unwrap()[0])
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("could not send: {error}");
        }
    }

    /// Sends bytes to a server that may have closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Closes the sending direction.
    pub fn finish_sending(&self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Tls(stream) => stream.sock.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// How long a read may take before it counts as no answer.
    pub fn patience(&mut self, limit: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(limit)).unwrap(),
        }
    }

    /// The TCP port on this side, as log lines and SHOW CLIENTS name it.
    pub fn local_port(&self) -> u16 {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().unwrap().port(),
            Stream::Unix(_) => 0,
            Stream::Tls(stream) => stream.sock.local_addr().unwrap().port(),
        }
    }

    /// Reads one byte that is no message (the answer to SSLRequest).
    #[track_caller]
    pub fn read_byte(&mut self) -> u8 {
        assert!(self.fill(1).expect("one byte"), "closed instead of a byte");
        self.taken += 1;
        self.input[self.taken - 1]
    }

    /// Reads the next message; panics when there is none.
    #[track_caller]
    pub fn read(&mut self) -> Message {
        // Not in a closure: the panic is to name the case's line.
        match self.try_read() {
            Ok(Some(message)) => message,
            Ok(None) => panic!("closed instead of a message"),
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// Reads the next message. `None`: the connection was closed. An error: it was reset, or nothing came.
    pub fn try_read(&mut self) -> std::io::Result<Option<Message>> {
        if !self.fill(5)? {
            return Ok(None);
        }
        let header = &self.input[self.taken..self.taken + 5];
        let kind = header[0];
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        assert!((4..1 << 30).contains(&length), "the server announces a message {:?} of {length} bytes", char::from(kind));
        if !self.fill(1 + length)? {
            return Ok(None);
        }
        let body = self.input[self.taken + 5..self.taken + 1 + length].to_vec();
        self.taken += 1 + length;
        let message = Message { kind, body };
        if kind == b'S'
            && let [name, value] = message.strings().as_slice()
        {
            self.parameters.insert(name.clone(), value.clone());
        }
        Ok(Some(message))
    }

    /// Makes sure that `wanted` unread bytes are there; false when the connection ends first.
    fn fill(&mut self, wanted: usize) -> std::io::Result<bool> {
        const CHUNK: usize = 64 * 1024;
        if self.taken > CHUNK {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        while self.input.len() - self.taken < wanted {
            let have = self.input.len();
            self.input.resize(have + CHUNK, 0);
            let result = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut self.input[have..]),
                Stream::Unix(stream) => stream.read(&mut self.input[have..]),
                Stream::Tls(stream) => stream.read(&mut self.input[have..]),
            };
            self.input.truncate(have + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads up to ReadyForQuery.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        while !self.read_into(&mut answer) {}
        answer
    }

    /// Reads up to ReadyForQuery, or to the end behind an error. `None`: the connection was closed without one.
    pub fn try_answer(&mut self) -> std::io::Result<Option<Answer>> {
        let mut answer = Answer::default();
        while let Some(message) = self.try_read()? {
            let ready = message.kind == b'Z';
            answer.take(message);
            if ready {
                return Ok(Some(answer));
            }
        }
        // An error and then the end is an error.
        Ok((!answer.errors.is_empty()).then_some(answer))
    }

    /// Reads up to and including a message of type `kind`.
    #[track_caller]
    pub fn answer_until(&mut self, kind: u8) -> Answer {
        let mut answer = Answer::default();
        while !answer.order.ends_with(char::from(kind)) {
            self.read_into(&mut answer);
        }
        answer
    }

    #[track_caller]
    fn read_into(&mut self, answer: &mut Answer) -> bool {
        let message = self.read();
        let ready = message.kind == b'Z';
        answer.take(message);
        ready
    }

    /// Sends a simple query and reads its answer.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Answer {
        self.send(&frontend::query(sql));
        self.answer()
    }

    /// The single value that `sql` gives.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        self.query(sql).value().to_owned()
    }

    /// Expects an ErrorResponse, at most the start of an answer before it, and the end of the connection behind it.
    #[track_caller]
    pub fn refusal(&mut self) -> Fields {
        let fields = loop {
            let message = self.read();
            match message.kind {
                b'E' => break message.fields(),
                b'R' | b'S' | b'N' | b'K' | b'T' => {}
                other => panic!("{:?} instead of a refusal: {message:?}", char::from(other)),
            }
        };
        self.expect_end();
        fields
    }

    /// Expects the connection to be closed without another message.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.try_read() {
            Ok(None) => {}
            Ok(Some(message)) => panic!("a message instead of the end: {message:?}"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}"),
        }
    }

    /// Expects that nothing comes for as long as `time`: the connection is open and silent.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        self.patience(time);
        match self.try_read() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => self.patience(SOON),
            other => panic!("{other:?} instead of silence"),
        }
    }

    /// Asks the server on `port` to cancel what this client is doing; returns when the server has closed the request's connection.
    #[track_caller]
    pub fn cancel(&self, port: u16) {
        let mut request = Self::tcp(port);
        request.send(&frontend::cancel(&self.key));
        request.expect_end();
    }
}
