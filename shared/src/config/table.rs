//! The settings: one row each. Files, SET, SHOW CONFIG, the reference page, the sample files and a test per row come from here.
//!
//! The order is SHOW CONFIG's, which is PgBouncer's with ours sorted in. Columns: name, type, default, kind, chapter of the reference, whether
//! RELOAD applies it, whether it does anything yet, and its meaning.

use super::choices::{AuthType, ChannelBinding, PoolMode, SYSLOG_FACILITIES, SslMode, StartupParameters};
use super::field::Field;
use super::kind::Kind;
use super::kind::Kind::{Mode, Seconds, Switch, Text, Words as WordList};
use super::settings::Effect::{Never, Works};
use super::settings::{Group, SetError, Setting, default_text, default_value, settings};
use super::words::Words;
use crate::auth::LdapOptions;
use crate::auth::demands::RequireAuth;
use crate::ids::MOST_WORKERS;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MAX: i64 = i32::MAX as i64;

/// The most clients a fleet can have: the seats that shared memory has room for.
pub const MAX_CLIENTS: i64 = 262_144;

/// A whole number within bounds.
pub(super) const fn int(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Int { min, max, unit }
}

/// One of some words.
pub(super) const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice(words)
}

/// The table's fifth column.
enum Change {
    Reload,
    Restart,
}

settings! {
    accept_balance: bool = "1", Switch, Network, Reload, Works,
        "Whether a worker that has more than its share of the clients passes a newly accepted one to the emptiest worker.";
    admin_users: Words = "", WordList, Auth, Reload, Works,
        "Users who may run every console command.";
    application_name_add_host: bool = "0", Switch, Pools, Reload, Works,
        "Whether the client's address and port are appended to its application_name at login.";
    auth_dbname: Option<String> = NULL, Text, Auth, Reload, Works,
        "The [databases] entry in which auth_query runs. Without it: the one that the client asked for.";
    auth_file: Option<String> = NULL, Text, Auth, Reload, Works,
        "The file of users and their secrets, a line each: \"user\" \"password, md5 hash or SCRAM verifier\".";
    auth_hba_file: String = "", Text, Auth, Reload, Works,
        "The file of access rules for auth_type = hba, in the syntax of pg_hba.conf.";
    auth_ident_file: Option<String> = NULL, Text, Auth, Reload, Works,
        "The file of name maps that the rules of auth_hba_file refer to.";
    auth_ldap_options: Option<LdapOptions> = NULL, Kind::Secret, Auth, Reload, Works,
        "The options of auth_type = ldap, as in pg_hba.conf. SHOW CONFIG leaves out ldapbindpasswd.";
    auth_pam_service: String = "pgbouncer", Text, Auth, Reload, Works,
        "The PAM service that auth_type = pam asks: the name of a file in /etc/pam.d.";
    auth_query: String = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin", Text, Auth, Reload, Works,
        "The query that finds the secret of a user who is not in auth_file. It returns the user's name and secret.";
    auth_type: AuthType = "md5", choice(AuthType::WORDS), Auth, Reload, Works,
        "How clients prove who they are.";
    auth_user: Option<String> = NULL, Text, Auth, Reload, Works,
        "The user who runs auth_query. Without it there is none.";
    autodb_idle_timeout: Duration = "3600", Seconds, Timeouts, Reload, Works,
        "A database that the `*` entry stands in for is forgotten when nobody has used it for this long; 0: never.";
    cancel_on_disconnect: bool = "1", Switch, Servers, Reload, Works,
        "Whether the running query of a client that has vanished is cancelled in PostgreSQL.";
    cancel_wait_timeout: Duration = "10", Seconds, Timeouts, Reload, Works,
        "How long a cancel request may wait for a connection to its server.";
    client_idle_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "A client that has sent nothing for this long, outside a transaction, is disconnected; 0: never.";
    client_login_timeout: Duration = "60", Seconds, Timeouts, Reload, Works,
        "How long a client may take to log in; 0: for ever.";
    client_tls13_ciphers: Option<String> = NULL, Text, ClientTls, Reload, Works,
        "The TLS 1.3 cipher suites, separated by colons.";
    client_tls_ca_file: String = "", Text, ClientTls, Reload, Works,
        "The file of certificates that client certificates are checked against. Empty: the system's; rules with `cert` need it set.";
    client_tls_cert_file: String = "", Text, ClientTls, Reload, Works,
        "The file of the certificate that clients are shown.";
    client_tls_ciphers: String = "default", Text, ClientTls, Reload, Works,
        "The cipher suites up to TLS 1.2, as OpenSSL names them.";
    client_tls_dheparams: String = "auto", Text, ClientTls, Reload, Never("there is no finite-field Diffie-Hellman here; client_tls_ecdhcurve chooses the key exchange"),
        "Parameters of finite-field Diffie-Hellman.";
    client_tls_ecdhcurve: String = "auto", Text, ClientTls, Reload, Works,
        "The curve of the key exchange: `x25519`, `prime256v1` (also `secp256r1` or `p-256`), `secp384r1` (also `p-384`), or `auto` for any of them.";
    client_tls_key_file: String = "", Text, ClientTls, Reload, Works,
        "The file of the certificate's private key.";
    client_tls_protocols: String = "secure", Text, ClientTls, Reload, Works,
        "The TLS versions allowed: secure, all, tlsv1.2, tlsv1.3, several separated by commas.";
    client_tls_sslmode: SslMode = "disable", choice(SslMode::WORDS), ClientTls, Reload, Works,
        "Whether clients may or must use TLS, and whether they must show a certificate.";
    conffile: Option<String> = NULL, Text, Fleet, Reload, Works,
        "The configuration file that RELOAD reads. Without it: the one given on the command line.";
    control_dir: String = "", Text, Fleet, Restart, Works,
        "The directory, of the fleet's user alone, by which a supervisor that is started after a crash finds the workers that serve on. Empty: `.s.PGFLEET.<listen_port>` in unix_socket_dir.";
    default_pool_size: u32 = "20", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most server connections of one pool, that is of one user to one database, in the whole fleet; 0: no limit.";
    disable_pqexec: bool = "0", Switch, Pools, Reload, Works,
        "Whether simple-protocol queries are refused, so that nobody can append a statement to another.";
    dns_max_ttl: Duration = "15", Seconds, Network, Reload, Works,
        "How long the addresses of a host name are used before it is looked up again.";
    dns_nxdomain_ttl: Duration = "15", Seconds, Network, Reload, Works,
        "How long a failed lookup is believed.";
    dns_zone_check_period: Duration = "0", Seconds, Network, Reload, Works,
        "How often the serial numbers of the DNS zones in use are looked at; 0: never.";
    fairness_slack: Duration = "0.015", Seconds, Pools, Reload, Works,
        "How much longer a client of another worker must have waited to be served before one of this worker's own.";
    idle_transaction_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "A client that has been idle in a transaction for this long is disconnected; 0: never.";
    ignore_startup_parameters: Words = "", WordList, Pools, Reload, Works,
        "Startup parameters that are dropped without a word.";
    job_name: String = "pgbouncer", Text, Fleet, Restart, Never("it names a Windows service"),
        "The name of the Windows service.";
    listen_addr: Words = "", WordList, Network, Restart, Works,
        "The addresses to listen on for TCP: IPv4, IPv6 or host names, `*` for all. Empty: the Unix socket only.";
    listen_backlog: u32 = "128", int(1, MAX, "connections"), Network, Restart, Works,
        "How many connections the kernel may hold for each worker before they are accepted.";
    listen_port: u16 = "6432", int(1, 65535, ""), Network, Restart, Works,
        "The TCP port, and the number in the Unix socket's name.";
    log_connections: bool = "1", Switch, Logging, Reload, Works,
        "Whether each login attempt of a client is logged, before it has proved who it is, and each new connection to PostgreSQL.";
    log_disconnections: bool = "1", Switch, Logging, Reload, Works,
        "Whether disconnections are logged, with the reason.";
    log_pooler_errors: bool = "1", Switch, Logging, Reload, Works,
        "Whether errors that the pooler sends to clients are logged.";
    log_stats: bool = "1", Switch, Logging, Reload, Works,
        "Whether a line of totals is logged each stats_period.";
    logfile: String = "", Text, Logging, Reload, Works,
        "The log file. Empty: none.";
    login_notify_message: String = "", Text, Logging, Reload, Works,
        "A text that every client is sent as a notice when it has logged in. Empty: none.";
    max_client_conn: u32 = "100", int(0, MAX_CLIENTS, "connections"), Pools, Reload, Works,
        "The most clients in the whole fleet.";
    max_db_client_connections: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most clients of one database; 0: no limit.";
    max_db_connections: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most server connections of one database, whoever the users are; 0: no limit.";
    max_host_connections: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most server connections to one PostgreSQL host and port, whichever the databases are; a list of hosts counts as one. 0: no limit.";
    max_packet_size: u32 = "2147483647", int(1024, MAX, "bytes"), Network, Reload, Works,
        "The longest message that is let through.";
    max_prepared_statements: u32 = "200", int(0, MAX, "statements"), Pools, Reload, Works,
        "How many named prepared statements a server connection keeps in transaction and statement mode; 0: names are passed on as they are.";
    max_user_client_connections: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most clients of one user; 0: no limit.";
    max_user_connections: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "The most server connections of one user, whichever the databases are; 0: no limit.";
    min_pool_size: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "How many server connections a pool that is in use keeps open.";
    peer_id: u32 = "0", int(0, 65535, ""), Network, Reload, Works,
        "This fleet's number among its [peers]; 0: it has none.";
    pidfile: String = "", Text, Fleet, Restart, Works,
        "The file that holds the supervisor's process id. Empty: none; -d needs one.";
    pkt_buf: u32 = "4096", int(1, MAX, "bytes"), Network, Restart, Never("a worker has one read buffer for all its connections, and a connection owns none while it is idle"),
        "The size of a connection's buffer.";
    pool_mode: PoolMode = "session", choice(PoolMode::WORDS), Pools, Reload, Works,
        "When a server connection goes back to its pool: when the client disconnects, when its transaction ends, or after each statement.";
    pool_idle_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "A pool that nobody has used for this long is removed; 0: never.";
    proxy_protocol_addresses: Words = "", WordList, Network, Reload, Works,
        "The addresses of this host at which proxy_protocol_networks holds. Empty: all.";
    proxy_protocol_networks: Words = "", WordList, Network, Reload, Works,
        "The networks (10.0.0.0/8) of proxies: a TCP connection from there must begin with a PROXY header, version 1 or 2, and counts as the client's that the header names. From elsewhere no header is taken. Empty: none.";
    query_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "A client whose query runs longer than this is disconnected, and so is its server; 0: never.";
    query_wait_notify: Duration = "5", Seconds, Timeouts, Reload, Works,
        "A client that has waited longer than this for a server connection is sent a notice; 0: never.";
    query_wait_timeout: Duration = "120", Seconds, Timeouts, Reload, Works,
        "A client that has waited this long for a server connection is disconnected; 0: never.";
    report_backend_pid: bool = "0", Switch, Pools, Reload, Works,
        "Whether a client in session mode is linked to a server at login and told that server's process id, so that pg_terminate_backend and NOTIFY's sender id agree with what it knows.";
    reserve_pool_size: u32 = "0", int(0, MAX, "connections"), Pools, Reload, Works,
        "How many server connections a pool may have beyond its size when a client has waited for reserve_pool_timeout; 0: none.";
    reserve_pool_timeout: Duration = "5", Seconds, Pools, Reload, Works,
        "How long a client must have waited before the reserve is used; 0: it is not used.";
    resolv_conf: String = "", Text, Network, Restart, Works,
        "A resolv.conf to use in place of the system's.";
    reuse_unnamed_statements: bool = "0", Switch, Pools, Reload, Works,
        "Whether unnamed prepared statements are kept on server connections like named ones, so that a text that is sent again and again is parsed once; not in session mode.";
    sbuf_loopcnt: u32 = "5", int(0, MAX, ""), Network, Reload, Never("a worker bounds each connection's turn by itself"),
        "How often a connection may read and send before others have their turn.";
    scram_iterations: u32 = "4096", int(1, 1_000_000, "iterations"), Auth, Reload, Works,
        "The iterations of SCRAM verifiers that are made from clear-text passwords of auth_file.";
    server_channel_binding: ChannelBinding = "prefer", choice(ChannelBinding::WORDS), ServerTls, Reload, Works,
        "Whether SCRAM logins at PostgreSQL are bound to its certificate, so that nobody can be in between: `prefer` where it offers that, `require` always, and no password is given to a server that asks for it in another way. As libpq's channel_binding.";
    server_check_delay: Duration = "30", Seconds, Servers, Reload, Works,
        "A server connection that was idle for longer than this is checked before it is used again.";
    server_check_query: String = "<empty>", Text, Servers, Reload, Works,
        "The query of that check; `<empty>` sends an empty query, an empty text checks nothing.";
    server_connect_timeout: Duration = "15", Seconds, Timeouts, Reload, Works,
        "How long connecting and logging in to PostgreSQL may each take; 0: for ever.";
    server_fast_close: bool = "0", Switch, Servers, Reload, Works,
        "Whether a session-pooled server connection that is to be closed is closed as soon as no transaction is open, its client with it.";
    server_idle_timeout: Duration = "600", Seconds, Timeouts, Reload, Works,
        "A server connection that has been idle for this long is closed; 0: never.";
    server_lifetime: Duration = "3600", Seconds, Timeouts, Reload, Works,
        "A server connection older than this is closed when no client uses it; 0: after its first use.";
    server_login_retry: Duration = "15", Seconds, Timeouts, Reload, Works,
        "How long to wait after a failed connection to PostgreSQL before the next is tried.";
    server_require_auth: RequireAuth = "", WordList, Auth, Reload, Works,
        "How PostgreSQL may ask who we are: password, md5, scram-sha-256, none (not at all); or, each with a `!` in front, how it may not. A server that asks otherwise is told no password and is not logged in to. As libpq's require_auth. Empty: as it likes.";
    server_reset_query: String = "DISCARD ALL", Text, Servers, Reload, Works,
        "Run in session mode when a client has left its server connection. Empty: none.";
    server_reset_query_always: bool = "0", Switch, Servers, Reload, Works,
        "Whether server_reset_query is run in every pool mode.";
    server_round_robin: bool = "0", Switch, Servers, Reload, Works,
        "Whether idle server connections are used in turn, not the last used first.";
    server_tls13_ciphers: Option<String> = NULL, Text, ServerTls, Reload, Works,
        "The TLS 1.3 cipher suites, separated by colons.";
    server_tls_ca_file: String = "", Text, ServerTls, Reload, Works,
        "The file of certificates that servers' certificates are checked against. Empty: the system's.";
    server_tls_cert_file: String = "", Text, ServerTls, Reload, Works,
        "The file of the certificate that servers are shown.";
    server_tls_ciphers: String = "default", Text, ServerTls, Reload, Works,
        "The cipher suites up to TLS 1.2, as OpenSSL names them.";
    server_tls_key_file: String = "", Text, ServerTls, Reload, Works,
        "The file of the certificate's private key.";
    server_tls_protocols: String = "secure", Text, ServerTls, Reload, Works,
        "The TLS versions allowed: secure, all, tlsv1.2, tlsv1.3, several separated by commas.";
    server_tls_sslmode: SslMode = "prefer", choice(SslMode::WORDS), ServerTls, Reload, Works,
        "Whether TLS is used with PostgreSQL over TCP, and what of its certificate is verified.";
    shutdown_drain_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "With it, SIGTERM disconnects every client between two transactions, idle ones by and by, and cuts off at this time whoever is left; 0: SIGTERM waits for clients to leave, for ever.";
    so_reuseport: bool = "0", Switch, Network, Restart, Works,
        "Whether other fleets may listen on the same port. The workers of one fleet always share it.";
    startup_parameters: StartupParameters = "apply", choice(StartupParameters::WORDS), Pools, Reload, Works,
        "What becomes of startup parameters that are not tracked (search_path, options=-c ...): they are set on the client's server connection, or the client is refused as by PgBouncer.";
    stats_period: Duration = "60", Seconds, Logging, Reload, Works,
        "The period of averages in SHOW STATS and of the line of totals.";
    stats_users: Words = "", WordList, Auth, Reload, Works,
        "Users who may look at the console and change nothing.";
    suspend_timeout: Duration = "10", Seconds, Timeouts, Reload, Never("there is no SUSPEND, as in PgBouncer from 1.26"),
        "How long SUSPEND waits.";
    syslog: bool = "0", Switch, Logging, Reload, Works,
        "Whether to log to syslog.";
    syslog_facility: String = "daemon", choice(SYSLOG_FACILITIES), Logging, Reload, Works,
        "The facility of syslog messages.";
    syslog_ident: String = "pgbouncer", Text, Logging, Reload, Works,
        "The program's name in syslog messages.";
    tcp_defer_accept: u32 = "1", int(0, MAX, "seconds"), Network, Reload, Works,
        "TCP_DEFER_ACCEPT of the listeners: a connection is accepted when its first bytes are there; 0: at once.";
    tcp_keepalive: bool = "1", Switch, Network, Reload, Works,
        "Whether TCP keepalive is on.";
    tcp_keepcnt: u32 = "0", int(0, MAX, "probes"), Network, Reload, Works,
        "How many keepalive probes may go unanswered; 0: as the system has it.";
    tcp_keepidle: u32 = "0", int(0, MAX, "seconds"), Network, Reload, Works,
        "After how long without traffic keepalive probes begin; 0: as the system has it.";
    tcp_keepintvl: u32 = "0", int(0, MAX, "seconds"), Network, Reload, Works,
        "How long between keepalive probes; 0: as the system has it.";
    tcp_socket_buffer: u32 = "0", int(0, MAX, "bytes"), Network, Reload, Works,
        "The kernel's send and receive buffers of a connection; 0: as the system has it.";
    tcp_user_timeout: u32 = "0", int(0, MAX, "milliseconds"), Network, Reload, Works,
        "How long sent data may go unacknowledged before a connection is given up; 0: as the system has it.";
    track_extra_parameters: Words = "IntervalStyle", WordList, Pools, Reload, Works,
        "Parameters that follow each client from server to server, besides those that PostgreSQL reports by itself.";
    transaction_timeout: Duration = "0", Seconds, Timeouts, Reload, Works,
        "A client whose transaction takes longer than this is disconnected, and so is its server; 0: never.";
    unix_socket_dir: String = "/tmp", Text, Network, Restart, Works,
        "The directory of the Unix socket, for clients and for servers without a host; `@name` for the abstract namespace. Empty: none.";
    unix_socket_group: String = "", Text, Network, Restart, Works,
        "The group that the Unix socket is given to, by name or number.";
    unix_socket_mode: u32 = "0777", Mode, Network, Restart, Works,
        "The mode of the Unix socket.";
    user: Option<String> = NULL, Text, Fleet, Restart, Works,
        "The user to become when started as root.";
    verbose: u32 = NULL, int(0, 3, ""), Logging, Reload, Works,
        "How much is logged: 0 normal, 1 debug messages, 2 everything.";
    worker_hang_timeout: Duration = "10", Seconds, Fleet, Reload, Works,
        "A worker that has given no sign of life for this long is killed and replaced; 0: never.";
    workers: u32 = "0", int(0, MOST_WORKERS as i64, "processes"), Fleet, Reload, Works,
        "How many workers serve clients; 0: as many as there are CPUs. There is room for 64, and one place is for the successor of a worker that is being replaced. Those that are too many after a reload end when their clients have left; those that are added get new clients only.";
}

impl Settings {
    /// How many workers to run.
    pub fn worker_count(&self) -> usize {
        let wanted = match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n as usize,
        };
        wanted.min(MOST_WORKERS)
    }
}
