//! Errors and notices the pooler itself makes: PgBouncer's texts, with the fields S, C and M only.

use super::encode;

/// The SQLSTATEs the pooler uses (PostgreSQL documentation, appendix "PostgreSQL Error Codes").
pub mod sqlstate {
    /// protocol_violation: PgBouncer's for everything; ours for violations, the pooler's timeouts and console command errors.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// invalid_password: wrong password or unknown user.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// invalid_authorization_specification: no rule, rejected, certificate, peer.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// invalid_catalog_name: no such database.
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    /// too_many_connections: max_client_conn and the other client limits.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// admin_shutdown: shutting down, killed from the console.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// query_canceled: cancelled while queued.
    pub const QUERY_CANCELED: &str = "57014";
    /// successful_completion: notices.
    pub const SUCCESSFUL_COMPLETION: &str = "00000";
}

/// Appends an ErrorResponse of severity FATAL.
pub fn fatal(out: &mut Vec<u8>, sqlstate: &str, text: &str) {
    report(out, b'E', "FATAL", sqlstate, text);
}

/// Appends an ErrorResponse of severity ERROR.
pub fn error(out: &mut Vec<u8>, sqlstate: &str, text: &str) {
    report(out, b'E', "ERROR", sqlstate, text);
}

/// Appends a NoticeResponse.
pub fn notice(out: &mut Vec<u8>, text: &str) {
    report(out, b'N', "NOTICE", sqlstate::SUCCESSFUL_COMPLETION, text);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, sqlstate: &str, text: &str) {
    encode::message(out, tag, |b| {
        for (field, value) in [(b'S', severity), (b'C', sqlstate), (b'M', text)] {
            b.push(field);
            encode::cstr(b, value.as_bytes());
        }
        b.push(0);
    });
}
