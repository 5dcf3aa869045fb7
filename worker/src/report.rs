//! What the console asks for: this worker's pools, clients and servers as rows.

use crate::client::{Client, ClientState, Link, Session};
use crate::pool::PoolIndex;
use crate::server::{Server, ServerState};
use crate::socket::Conn;
use crate::worker::Worker;
use shared::control::{Buffered, ConnectionRow, PoolRow, Replication, ReportKind, ReportRows, ToSupervisor};
use std::os::fd::{AsFd, AsRawFd};

impl Worker {
    /// Answers the supervisor's request.
    pub(crate) fn report(&mut self, id: u32, what: ReportKind) {
        self.recall(|_| true);
        let mut rows = ReportRows {
            pools: self.pools.indices().into_iter().map(|pool| self.pool_row(pool)).collect(),
            connections: match what {
                ReportKind::Pools | ReportKind::Memory => Vec::new(),
                ReportKind::Clients => {
                    let askers = self.carriers.iter().flat_map(|(_, c)| self.asker_rows(c));
                    self.clients.iter().filter_map(|(_, c)| self.client_row(c)).chain(askers).collect()
                }
                ReportKind::Servers => {
                    let carriers = self.carriers.iter().filter_map(|(_, c)| self.carrier_row(c));
                    self.servers.iter().filter_map(|(_, s)| self.server_row(s)).chain(carriers).collect()
                }
                ReportKind::Sockets => self.socket_rows(),
            },
            peers: self.peer_rows(),
            memory: if what == ReportKind::Memory { self.memory_rows() } else { Vec::new() },
            used_servers: self.servers.len() as u32,
            ..ReportRows::default()
        };
        for (_, client) in &self.clients {
            rows.used_clients += 1;
            rows.login_clients += u32::from(matches!(client.state, ClientState::Login(_)));
        }
        for (_, carrier) in &self.carriers {
            rows.used_clients += u32::from(carrier.is_asked_for());
            rows.used_servers += u32::from(carrier.is_connected());
        }
        let written = self
            .control
            .tongue
            .encode_long(&rows)
            .map_err(|e| e.to_string())
            .and_then(|bytes| shared::sys::memfd::create_sealed("pgfleet-report", &bytes).map_err(|e| e.to_string()));
        match written {
            Ok(fd) => {
                self.control.send(&ToSupervisor::Report { id }, &[fd.as_fd()]);
            }
            Err(error) => log::error!(target: "process", "a report could not be written: {error}"),
        }
    }

    pub(crate) fn pool_row(&self, index: PoolIndex) -> PoolRow {
        let pool = self.pools.get(index);
        let stats = pool.stats;
        let mut row = PoolRow {
            database: pool.entry.name.clone(),
            user: pool.user.clone(),
            cl_waiting: (pool.waiting + pool.to_greet.len()) as u32,
            cl_active: pool.clients.saturating_sub(pool.waiting) as u32,
            server_assignment_count: stats.server_assignment_count,
            xact_count: stats.xact_count,
            query_count: stats.query_count,
            bytes_received: stats.bytes_received,
            bytes_sent: stats.bytes_sent,
            xact_time_us: stats.xact_time_us,
            query_time_us: stats.query_time_us,
            wait_time_us: stats.wait_time_us,
            client_parse_count: stats.client_parse_count,
            server_parse_count: stats.server_parse_count,
            bind_count: stats.bind_count,
            client_login_count: stats.client_login_count,
            ..PoolRow::default()
        };
        let waiter = pool.waiters.iter().find(|w| self.clients.get(w.client).is_some_and(|c| c.id == w.id && c.is_waiting()));
        row.maxwait_us = waiter.map_or(0, |w| (crate::clock::now() - w.since).as_micros() as u64);
        for (_, server) in self.servers.iter().filter(|(_, s)| s.pool == index) {
            match server.state {
                ServerState::Linked(_) | ServerState::Setting(_) | ServerState::Looking(_) => row.sv_active += 1,
                ServerState::Idle if self.must_check(server) => row.sv_used += 1,
                ServerState::Idle => row.sv_idle += 1,
                ServerState::Resetting | ServerState::Checking => row.sv_tested += 1,
                ServerState::Connecting | ServerState::Login(_) => row.sv_login += 1,
                ServerState::BeingCanceled => row.sv_being_canceled += 1,
                ServerState::Closing | ServerState::Dead => {}
            }
        }
        self.count_cancels(index, &mut row);
        row
    }

    /// Clients and servers in SHOW SOCKETS' words, clients in login included.
    fn socket_rows(&self) -> Vec<ConnectionRow> {
        let clients = self.clients.iter().filter_map(|(_, client)| {
            let row = self.client_row(client).or_else(|| self.login_row(client))?;
            let state = match row.state.as_str() {
                "waiting" => "cl_waiting",
                "login" => "cl_login",
                _ => "cl_active",
            };
            Some(ConnectionRow { state: state.to_owned(), ..row })
        });
        let servers = self.servers.iter().filter_map(|(_, server)| {
            let row = self.server_row(server)?;
            let state = match row.state.as_str() {
                "active" => "sv_active",
                "idle" => "sv_idle",
                "tested" => "sv_tested",
                "new" => "sv_login",
                _ => return None,
            };
            Some(ConnectionRow { state: state.to_owned(), ..row })
        });
        clients.chain(servers).collect()
    }

    fn login_row(&self, client: &Client) -> Option<ConnectionRow> {
        let ClientState::Login(login) = &client.state else { return None };
        let (database, user) = login.names();
        let port = self.config.settings.listen_port;
        let (local_addr, local_port) = local_address(client.conn.as_fd(), port);
        Some(ConnectionRow {
            id: client.id,
            user: user.unwrap_or("(nouser)").to_owned(),
            database: database.unwrap_or("(nodb)").to_owned(),
            replication: Replication::None,
            state: if login.awaits_server() { "waiting" } else { "login" }.to_owned(),
            addr: client.peer.address(),
            port: client.peer.port(port),
            local_addr,
            local_port,
            connect_time: client.connected_at.to_wall(),
            request_time: client.last_request.to_wall(),
            wait_us: 0,
            close_needed: false,
            link: None,
            remote_pid: client.peer.pid(),
            tls: client.conn.tls_label().to_owned(),
            application_name: String::new(),
            prepared_statements: 0,
            fd: client.conn.as_fd().as_raw_fd(),
            cancel_key: 0,
            buffered: buffered(&client.conn, 0),
        })
    }

    fn client_row(&self, client: &Client) -> Option<ConnectionRow> {
        let session = client.session()?;
        let now = crate::clock::now();
        let (state, link) = match session.link {
            Link::None => ("idle", None),
            Link::Waiting(_) => ("waiting", None),
            Link::Linked(server) => ("active", Some(self.servers[server].id)),
        };
        let port = self.config.settings.listen_port;
        let local = local_address(client.conn.as_fd(), port);
        Some(ConnectionRow {
            id: client.id,
            user: session.who.user.clone(),
            database: session.who.database.clone(),
            replication: session.replication,
            state: state.to_owned(),
            addr: client.peer.address(),
            port: client.peer.port(port),
            local_addr: local.0,
            local_port: local.1,
            connect_time: client.connected_at.to_wall(),
            request_time: client.last_request.to_wall(),
            wait_us: session.query_start.map_or(0, |start| (now - start).as_micros() as u64),
            close_needed: false,
            link,
            remote_pid: client.peer.pid(),
            tls: client.conn.tls_label().to_owned(),
            application_name: application_name(session),
            prepared_statements: session.front.statements.len() as u32,
            fd: client.conn.as_fd().as_raw_fd(),
            cancel_key: u64::from_be_bytes(session.key),
            buffered: buffered(&client.conn, session.front.still_to_come()),
        })
    }

    fn server_row(&self, server: &Server) -> Option<ConnectionRow> {
        let state = match server.state {
            ServerState::Linked(_) | ServerState::Setting(_) | ServerState::Looking(_) => "active",
            ServerState::Idle if self.must_check(server) => "used",
            ServerState::Idle => "idle",
            ServerState::Resetting | ServerState::Checking => "tested",
            ServerState::Connecting | ServerState::Login(_) => "new",
            ServerState::BeingCanceled => "being_canceled",
            ServerState::Closing => "closing",
            ServerState::Dead => return None,
        };
        let pool = self.pools.get(server.pool);
        let (addr, port) = server.address.columns();
        let local = local_address(server.conn.as_fd(), port);
        Some(ConnectionRow {
            id: server.id,
            user: pool.user.clone(),
            database: pool.entry.name.clone(),
            replication: server.dedication.as_ref().map_or(Replication::None, |dedication| dedication.replication),
            state: state.to_owned(),
            addr,
            port,
            local_addr: local.0,
            local_port: local.1,
            connect_time: server.connected_at.to_wall(),
            request_time: server.last_activity.to_wall(),
            wait_us: 0,
            close_needed: server.close_reason.is_some(),
            link: server.client().and_then(|c| self.clients.get(c)).map(|c| c.id),
            remote_pid: server.backend_key.0,
            tls: server.conn.tls_label().to_owned(),
            application_name: server.params.as_ref().and_then(|p| p.get("application_name")).unwrap_or("").to_owned(),
            prepared_statements: server.back.statements.len() as u32,
            fd: server.conn.as_fd().as_raw_fd(),
            cancel_key: u64::from(server.backend_key.0) << 32 | u64::from(server.backend_key.1),
            buffered: buffered(&server.conn, server.back.still_to_come()),
        })
    }
}

/// What a connection holds back, with the bytes that its last message still lacks.
fn buffered(conn: &Conn, still_to_come: usize) -> Buffered {
    let (sent, unsent) = conn.backlog();
    Buffered { received: conn.input.len() as u32, still_to_come: still_to_come as u32, sent: sent as u32, unsent: unsent as u32 }
}

fn application_name(session: &Session) -> String {
    session.params.get("application_name").unwrap_or("").to_owned()
}

/// The socket's own address; for a Unix socket `unix` and the port in its name.
pub(crate) fn local_address(fd: std::os::fd::BorrowedFd<'_>, unix_port: u16) -> (String, u16) {
    match socket2::SockRef::from(&fd).local_addr().ok().and_then(|a| a.as_socket()) {
        Some(address) => (address.ip().to_string(), address.port()),
        None => ("unix".to_owned(), unix_port),
    }
}
