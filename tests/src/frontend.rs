//! Messages as a client sends them (PostgreSQL documentation, "Message Formats"), as plain bytes, so that a case can also send half
//! of one, or two glued together, or one that is wrong.

/// Protocol 3.0 as it stands in a startup packet.
pub const VERSION_3: u32 = 0x0003_0000;
/// "Will you speak TLS?"
pub const SSL_REQUEST: u32 = 80_877_103;
/// "Will you speak GSSAPI encryption?"
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// "Cancel what the client with this key is doing."
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// A packet without a type byte: length, code, body.
pub fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
    packet.extend(code.to_be_bytes());
    packet.extend(body);
    packet
}

/// A message: type, length, body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    packet.extend((body.len() as u32 + 4).to_be_bytes());
    packet.extend(body);
    packet
}

/// The texts, each with its terminating zero.
pub fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.bytes().chain([0])).collect()
}

/// A startup packet of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_version(VERSION_3, parameters)
}

/// A startup packet of any version.
pub fn startup_version(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = parameters.iter().flat_map(|(name, value)| strings(&[name, value])).collect();
    body.push(0);
    untyped(version, &body)
}

/// CancelRequest with the key of BackendKeyData.
pub fn cancel(key: &[u8]) -> Vec<u8> {
    untyped(CANCEL_REQUEST, key)
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &strings(&[sql]))
}

/// Parse, all parameter types left to the server.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = strings(&[name, sql]);
    body.extend([0, 0]);
    message(b'P', &body)
}

/// Bind with text parameters, results as text.
pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend([0, 0]);
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

/// Describe; `what` is `b'S'` or `b'P'`.
pub fn describe(what: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[what], strings(&[name]).as_slice()].concat())
}

/// Execute up to `rows` rows; 0 is all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = strings(&[portal]);
    body.extend(rows.to_be_bytes());
    message(b'E', &body)
}

/// Close; `what` is `b'S'` or `b'P'`.
pub fn close(what: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[what], strings(&[name]).as_slice()].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// CopyData.
pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &strings(&[reason]))
}

/// PasswordMessage; the same type carries every answer to an authentication request.
pub fn password(bytes: &[u8]) -> Vec<u8> {
    message(b'p', bytes)
}

/// SASLInitialResponse.
pub fn sasl_initial(mechanism: &str, first: &[u8]) -> Vec<u8> {
    password(&[&strings(&[mechanism])[..], &(first.len() as u32).to_be_bytes(), first].concat())
}

/// FunctionCall with text arguments and a text result.
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    message(b'F', &body)
}

/// An extended-protocol query through unnamed statement and portal, up to and including Sync.
pub fn extended(sql: &str, values: &[&str]) -> Vec<u8> {
    [parse("", sql), bind("", "", values), describe(b'P', ""), execute("", 0), sync()].concat()
}
