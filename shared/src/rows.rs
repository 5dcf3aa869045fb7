//! What a worker reports to the console: the rows of SHOW, as far as one worker can fill them.

use crate::ids::ConnectionId;
use serde::{Deserialize, Serialize};

/// A worker's answer to a report request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportRows {
    /// One for each pool this worker has clients or servers of.
    pub pools: Vec<PoolRow>,
    /// Clients or servers, as asked.
    pub connections: Vec<ConnectionRow>,
    /// Peers that cancel requests were forwarded to.
    pub peers: Vec<PeerRow>,
    /// What the worker keeps in memory, if asked.
    pub memory: Vec<MemoryRow>,
    /// Clients that have not finished logging in.
    pub login_clients: u32,
    /// Clients in all, those in login included.
    pub used_clients: u32,
    /// Server connections in all.
    pub used_servers: u32,
}

/// One pool as one worker sees it: the counts of SHOW POOLS and the counters of SHOW STATS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the names are SHOW POOLS's and SHOW STATS's own
pub struct PoolRow {
    pub database: String,
    pub user: String,
    pub cl_active: u32,
    pub cl_waiting: u32,
    pub cl_active_cancel_req: u32,
    pub cl_waiting_cancel_req: u32,
    pub sv_active: u32,
    pub sv_active_cancel: u32,
    pub sv_being_canceled: u32,
    pub sv_idle: u32,
    pub sv_used: u32,
    pub sv_tested: u32,
    pub sv_login: u32,
    pub maxwait_us: u64,
    pub server_assignment_count: u64,
    pub xact_count: u64,
    pub query_count: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub xact_time_us: u64,
    pub query_time_us: u64,
    pub wait_time_us: u64,
    pub client_parse_count: u64,
    pub server_parse_count: u64,
    pub bind_count: u64,
    pub client_login_count: u64,
}

/// One peer as one worker sees it: the columns of SHOW PEER_POOLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the names are the console's own
pub struct PeerRow {
    pub id: u16,
    pub cl_active_cancel_req: u32,
    pub cl_waiting_cancel_req: u32,
    pub sv_active_cancel: u32,
    pub sv_login: u32,
}

impl PoolRow {
    /// Whether there is any client or server.
    pub fn has_connections(&self) -> bool {
        let clients = self.cl_active + self.cl_waiting + self.cl_active_cancel_req + self.cl_waiting_cancel_req;
        let servers =
            self.sv_active + self.sv_active_cancel + self.sv_being_canceled + self.sv_idle + self.sv_used + self.sv_tested;
        clients + servers + self.sv_login > 0
    }
}

/// One connection: the columns of SHOW CLIENTS and SHOW SERVERS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the names are the console's own
pub struct ConnectionRow {
    pub id: ConnectionId,
    pub user: String,
    pub database: String,
    pub replication: Replication,
    /// SHOW CLIENTS' and SHOW SERVERS' word.
    pub state: String,
    pub addr: String,
    pub port: u16,
    pub local_addr: String,
    pub local_port: u16,
    /// Microseconds since 1970.
    pub connect_time: u64,
    /// Microseconds since 1970.
    pub request_time: u64,
    pub wait_us: u64,
    pub close_needed: bool,
    pub link: Option<ConnectionId>,
    pub remote_pid: u32,
    pub tls: String,
    pub application_name: String,
    pub prepared_statements: u32,
    /// The descriptor, for SHOW FDS.
    pub fd: i32,
    /// The cancel key, for SHOW FDS.
    pub cancel_key: u64,
    /// For SHOW SOCKETS.
    pub buffered: Buffered,
}

/// What waits in a connection's buffers, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Buffered {
    /// Read and not dealt with.
    pub received: u32,
    /// Not read yet of a message of which a part has been passed on.
    pub still_to_come: u32,
    /// Written of what did not go out at once.
    pub sent: u32,
    /// To be written.
    pub unsent: u32,
}

/// One line of SHOW MEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryRow {
    /// What it is.
    pub name: String,
    /// How many are in use.
    pub used: u64,
    /// How many more there is room for.
    pub free: u64,
    /// All of it, in bytes.
    pub bytes: u64,
}

/// The startup parameter `replication`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Replication {
    #[default]
    None,
    Logical,
    Physical,
}
