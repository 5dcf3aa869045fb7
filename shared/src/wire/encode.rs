//! Writes messages: the body by a closure, the length patched in afterwards.

/// Appends one typed message to `out`.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    length_prefixed(out, body);
}

/// Appends a length that counts itself, and the body: a typed message without its tag, or an untyped first packet.
pub fn length_prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends `text` and a zero byte.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, &[]);
}

/// An Authentication… request of `kind` (0 Ok, 3 CleartextPassword, 5 MD5Password, 10 SASL, 11 SASLContinue, 12 SASLFinal).
pub fn authentication(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    message(out, b'R', |b| {
        b.extend_from_slice(&kind.to_be_bytes());
        b.extend_from_slice(data);
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |b| {
        cstr(b, name.as_bytes());
        cstr(b, value.as_bytes());
    });
}

/// BackendKeyData: process id and secret, as one 8-byte cancel key.
pub fn backend_key_data(out: &mut Vec<u8>, key: [u8; 8]) {
    message(out, b'K', |b| b.extend_from_slice(&key));
}

/// ReadyForQuery with a transaction status of `I`, `T` or `E`.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, b'Z', |b| b.push(status));
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |b| cstr(b, tag.as_bytes()));
}

/// Query.
pub fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, b'Q', |b| cstr(b, sql.as_bytes()));
}

/// PasswordMessage, SASLInitialResponse or SASLResponse: all of tag `p`.
pub fn password(out: &mut Vec<u8>, body: &[u8]) {
    message(out, b'p', |b| b.extend_from_slice(body));
}

/// NegotiateProtocolVersion: the newest version we speak (3.0, as the whole number) and the `_pq_.` options we do not know.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, unknown_options: &[String]) {
    message(out, b'v', |b| {
        b.extend_from_slice(&super::startup::PROTOCOL_3_0.to_be_bytes());
        b.extend_from_slice(&(unknown_options.len() as u32).to_be_bytes());
        for option in unknown_options {
            cstr(b, option.as_bytes());
        }
    });
}

/// StartupMessage of protocol 3.0.
pub fn startup<'a>(out: &mut Vec<u8>, parameters: impl Iterator<Item = (&'a str, &'a str)>) {
    length_prefixed(out, |b| {
        b.extend_from_slice(&super::startup::PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            cstr(b, name.as_bytes());
            cstr(b, value.as_bytes());
        }
        b.push(0);
    });
}

/// The cancel key of a backend: its process id and secret, as BackendKeyData gave them.
pub fn cancel_key(pid: u32, secret: u32) -> [u8; 8] {
    (u64::from(pid) << 32 | u64::from(secret)).to_be_bytes()
}

/// CancelRequest with an 8-byte key.
pub fn cancel_request(key: [u8; 8]) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[..4].copy_from_slice(&16_u32.to_be_bytes());
    packet[4..8].copy_from_slice(&super::startup::CANCEL_REQUEST.to_be_bytes());
    packet[8..].copy_from_slice(&key);
    packet
}

/// SSLRequest, whole.
pub const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
/// ParseComplete, whole.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// CloseComplete, whole.
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// Flush, whole.
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
/// Terminate, whole.
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_request_carries_process_and_secret() {
        let packet = cancel_request(cancel_key(258, 0xffff_fffe));
        assert_eq!(packet, *b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\x02\xff\xff\xff\xfe");
    }
}
