//! The first bytes of a connection: whole, in pieces, wrong, hostile. Whoever sends nonsense hears why, or is closed, and nobody else
//! notices: after every case a well-behaved client works as before.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::{self, GSSENC_REQUEST, SSL_REQUEST, startup, startup_version, untyped};
use end_to_end::{Client, Fields, Fleet, Postgres, SOON, wait_until};
use std::time::Duration;

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

fn started(build: impl Fn(end_to_end::Builder) -> end_to_end::Builder) -> (Fleet, Postgres) {
    let server = Postgres::start();
    (build(Fleet::builder(&server)).start(), server)
}

/// What the fleet says to `bytes` before it closes.
#[track_caller]
fn refusal(fleet: &Fleet, bytes: &[u8]) -> Fields {
    let mut client = Client::tcp(fleet.port());
    client.send(bytes);
    let fields = client.refusal();
    assert_eq!((fields.severity(), fields.code()), ("FATAL", "08P01"), "{fields:?}");
    fields
}

#[track_caller]
fn assert_serves(fleet: &Fleet) {
    assert_eq!(fleet.client().value("select 'alive'"), "alive");
}

#[test]
fn encryption_is_declined_and_the_login_goes_on() {
    let (fleet, _server) = started(|builder| builder);
    let mut client = Client::tcp(fleet.port());
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        client.send(&untyped(code, &[]));
        assert_eq!(client.read_byte(), b'N');
    }
    client.start(&APP, None).unwrap();
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn data_behind_an_encryption_request_is_refused() {
    let (fleet, _server) = started(|builder| builder);
    for (code, text) in [
        (SSL_REQUEST, "received unencrypted data after SSL request"),
        (GSSENC_REQUEST, "received unencrypted data after GSSAPI encryption request"),
    ] {
        let fields = refusal(&fleet, &[untyped(code, &[]), startup(&APP)].concat());
        assert_eq!(fields.text(), text);
    }
    assert_serves(&fleet);
}

#[test]
fn a_startup_packet_may_come_byte_by_byte() {
    let (fleet, _server) = started(|builder| builder);
    let mut client = Client::tcp(fleet.port());
    for byte in [untyped(SSL_REQUEST, &[])].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.read_byte(), b'N');
    for byte in startup(&APP) {
        client.send(&[byte]);
    }
    client.authenticate("app", None).unwrap();
    for byte in frontend::query("select 'in pieces'") {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().value(), "in pieces");
}

#[test]
fn a_login_and_its_first_query_may_come_in_one_packet() {
    let (fleet, _server) = started(|builder| builder);
    let mut client = Client::tcp(fleet.port());
    client.send(&[startup(&APP), frontend::query("select 'glued'")].concat());
    client.authenticate("app", None).unwrap();
    assert_eq!(client.answer().value(), "glued");
}

#[test]
fn nonsense_is_told_so() {
    let (fleet, _server) = started(|builder| builder);
    let code = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
    assert_eq!(refusal(&fleet, &startup_version(0x0002_0000, &APP)).text(), "old V2 protocol not supported");
    for bytes in [
        startup_version(0x0004_0000, &APP),
        untyped(code([0x12, 0x34, 0x56, 0x78]), &[]),
        // Shorter than its own header.
        vec![0, 0, 0, 4, 0, 3, 0, 0],
        vec![0, 0, 0, 0, 0, 0, 0, 0],
        // Longer than any startup packet.
        vec![0, 1, 0, 0, 0, 3, 0, 0],
        vec![0, 0xff, 0xff, 0xff, 0, 3, 0, 0],
    ] {
        let fields = refusal(&fleet, &bytes);
        let start = bytes[..8].iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        assert_eq!(fields.text(), format!("bad packet header: '{start:016x}'"));
    }
    assert_serves(&fleet);
}

#[test]
fn a_password_before_the_startup_packet_is_refused() {
    let (fleet, _server) = started(|builder| builder);
    assert_eq!(refusal(&fleet, &frontend::password(b"secret\0")).text(), "client password pkt before startup packet");
}

/// What looks like the start of a typed packet is waited for, up to client_login_timeout; a length that cannot be, is refused at once.
#[test]
fn other_protocols_knocking_are_closed() {
    let (fleet, _server) = started(|builder| builder.setting("client_login_timeout", 1));
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"[..],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
        &[0xff; 64],
        b"SSH-2.0-client\r\n",
    ] {
        let mut client = Client::tcp(fleet.port());
        client.send(bytes);
        // With a reason or without; but closed, and soon.
        let mut closed = false;
        wait_until("the connection to be closed", SOON, || {
            closed = closed || !matches!(client.try_read(), Ok(Some(_)));
            closed
        });
    }
    assert_serves(&fleet);
}

/// The declared length of the message behind the startup packet, where memory could be reserved for it.
#[test]
fn lengths_that_cannot_be_are_refused_after_login_too() {
    let (fleet, _server) = started(|builder| builder);
    let before = end_to_end::process::memory(&fleet.processes());
    for length in [0_u32, 1, 3, 0x8000_0000, 0xffff_ffff, 0xffff_fffc] {
        let mut client = fleet.client();
        client.send(&[&b"Q"[..], &length.to_be_bytes(), b"select 1\0"].concat());
        let fields = client.refusal();
        assert_eq!((fields.severity(), fields.code()), ("FATAL", "08P01"), "length {length:#x}: {fields:?}");
        assert!(fields.text().starts_with("bad packet header: '51"), "length {length:#x}: {fields:?}");
    }
    let grown = end_to_end::process::memory(&fleet.processes()).saturating_sub(before);
    assert!(grown < 8 << 20, "memory grew by {grown} bytes");
    assert_serves(&fleet);
}

/// A length above 2^31 in an authentication message looped for ever in another pooler, before any password was checked.
#[test]
fn lengths_that_cannot_be_are_refused_before_a_password_is_checked() {
    let (fleet, _server) = started(|builder| builder.setting("auth_type", "scram-sha-256").setting("client_login_timeout", 2));
    for length in [0_u32, 3, 0x0010_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let mut client = Client::tcp(fleet.port());
        client.send(&startup(&APP));
        assert_eq!(client.read().kind, b'R');
        client.send(&[&b"p"[..], &length.to_be_bytes(), b"SCRAM-SHA-256\0"].concat());
        let fields = client.refusal();
        assert_eq!(fields.severity(), "FATAL", "length {length:#x}");
    }
    let mut client = Client::tcp(fleet.port());
    client.start(&APP, Some("app-password")).unwrap();
}

/// SCRAM messages that end too soon, name lengths that are not theirs, or lack a nonce: each took a pooler down once.
#[test]
fn malformed_scram_messages_fail_that_login_only() {
    let (fleet, _server) = started(|builder| builder.setting("auth_type", "scram-sha-256"));
    let initial = |mechanism: &str, length: u32, data: &[u8]| {
        frontend::password(&[frontend::strings(&[mechanism]), length.to_be_bytes().to_vec(), data.to_vec()].concat())
    };
    for user in ["app", "stranger"] {
        let parameters = [("user", user), ("database", "app")];
        let first = b"n,,n=,r=0123456789abcdef";
        for message in [
            initial("SCRAM-SHA-256", 0xffff_ffff, first),
            initial("SCRAM-SHA-256", 0x7fff_ffff, first),
            initial("SCRAM-SHA-256", 4, first),
            initial("SCRAM-SHA-256", first.len() as u32, b"n,,"),
            initial("SCRAM-SHA-256", 0, b""),
            initial("SCRAM-SHA-256", 3, b"n,,"),
            initial("SCRAM-SHA-256", 6, b"x,,n=,"),
            initial("SCRAM-SHA-256-PLUS", first.len() as u32, first),
            frontend::password(b""),
            frontend::password(b"SCRAM-SHA-256"),
        ] {
            let mut client = Client::tcp(fleet.port());
            client.send(&startup(&parameters));
            assert_eq!(client.read().kind, b'R');
            client.send(&message);
            assert_eq!(client.refusal().severity(), "FATAL", "{user}: {message:?}");
        }
        for last in
            [&b""[..], b"c=biws", b"c=biws,r=", b"c=biws,p=AAAA", b"r=x,p=", b"c=biws,r=0123456789abcdef,p=AAAA", b"\xff\xff"]
        {
            let mut client = Client::tcp(fleet.port());
            client.send(&[startup(&parameters), initial("SCRAM-SHA-256", first.len() as u32, first)].concat());
            assert_eq!((client.read().kind, client.read().kind), (b'R', b'R'));
            client.send(&frontend::password(last));
            assert_eq!(client.refusal().code(), "28P01", "{user}: {last:?}");
        }
    }
    let mut client = Client::tcp(fleet.port());
    client.start(&APP, Some("app-password")).unwrap();
}

/// The first startup packet names a database that does not exist, the second another user: once that logged in as the other.
#[test]
fn a_second_startup_packet_during_the_login_is_refused() {
    let (fleet, _server) = started(|builder| builder.setting("auth_type", "scram-sha-256"));
    for database in ["app", "nowhere"] {
        let mut client = Client::tcp(fleet.port());
        client.send(&startup(&[("user", "app"), ("database", database)]));
        assert_eq!(client.read().kind, b'R');
        client.send(&startup(&[("user", "other"), ("database", "app")]));
        let fields = client.refusal();
        assert_eq!((fields.severity(), fields.code()), ("FATAL", "08P01"), "{fields:?}");
    }
}

#[test]
fn the_user_must_be_named() {
    let (fleet, _server) = started(|builder| builder);
    for parameters in [&[("database", "app")][..], &[("user", ""), ("database", "app")], &[]] {
        assert_eq!(refusal(&fleet, &startup(parameters)).text(), "no username supplied");
    }
    let long = "x".repeat(128);
    assert_eq!(refusal(&fleet, &startup(&[("user", &long), ("database", "app")])).text(), "username too long");
    fleet.wait_for_log(&format!("login failed: db=app user={long}"));
    // A database that is not named is the user's.
    assert_eq!(Client::login(fleet.port(), "app", "app").value("select current_database()"), "app");
    let mut client = Client::tcp(fleet.port());
    client.start(&[("user", "app")], None).unwrap();
    assert_eq!(client.value("select current_database()"), "app");
}

#[test]
fn the_parameters_must_end_where_the_packet_ends() {
    let (fleet, _server) = started(|builder| builder);
    let good = frontend::strings(&["user", "app", "database", "app"]);
    for body in [
        // No terminator.
        good.clone(),
        // More behind it.
        [good.clone(), vec![0], b"junk".to_vec()].concat(),
        [good.clone(), vec![0, 0]].concat(),
        // A name without a value, a text without its end.
        [good.clone(), b"application_name\0".to_vec()].concat(),
        [good, b"application_name".to_vec()].concat(),
        vec![],
    ] {
        let fields = refusal(&fleet, &untyped(frontend::VERSION_3, &body));
        assert_eq!(fields.text(), "invalid startup packet layout: expected terminator as last byte", "{body:?}");
    }
    assert_serves(&fleet);
}

#[test]
fn options_are_taken_apart() {
    let (fleet, _server) = started(|builder| builder);
    for options in ["-c datestyle=German -c timezone=Asia/Tokyo", "-cdatestyle=German --timezone=Asia/Tokyo"] {
        let mut client = Client::tcp(fleet.port());
        client.start(&[APP[0], APP[1], ("options", options)], None).unwrap();
        assert_eq!(client.value("show datestyle"), "German, DMY", "{options}");
        assert_eq!(client.value("show timezone"), "Asia/Tokyo", "{options}");
    }
    let mut client = Client::tcp(fleet.port());
    client.start(&[APP[0], APP[1], ("options", "-c application_name=two\\ words")], None).unwrap();
    assert_eq!(client.value("show application_name"), "two words");
    let other = "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed";
    for options in ["-d 5", "nonsense", "-c", "-c novalue", "--"] {
        assert_eq!(refusal(&fleet, &startup(&[APP[0], APP[1], ("options", options)])).text(), other, "{options:?}");
    }
    assert_serves(&fleet);
}

/// An empty name in `options` made a pooler spin for ever.
#[test]
fn options_with_an_empty_name_do_not_hang_the_worker() {
    let (fleet, _server) = started(|builder| builder.workers(1));
    for options in ["-c=", "-c =", "-c=x", "--=", "-c\\", "-", "--", "\\", "-c -c -c", "=", "-c  ="] {
        let mut client = Client::tcp(fleet.port());
        client.send(&startup(&[APP[0], APP[1], ("options", options)]));
        let _ = client.try_read();
        assert_serves(&fleet);
    }
}

#[test]
fn parameters_that_are_listed_are_ignored() {
    let (fleet, _server) = started(|builder| builder.setting("ignore_startup_parameters", "extra_float_digits, search_path"));
    let mut client = Client::tcp(fleet.port());
    client.start(&[APP[0], APP[1], ("extra_float_digits", "-15"), ("search_path", "nowhere")], None).unwrap();
    assert_eq!(client.value("show extra_float_digits"), "1");
    assert_eq!(client.value("show search_path"), "\"$user\", public");
}

#[test]
fn protocol_3_2_is_negotiated_down() {
    let (fleet, _server) = started(|builder| builder);
    for (version, parameters, unknown) in [
        (0x0003_0002, &APP[..], &[][..]),
        (0x0003_0001, &APP, &[]),
        (0x0003_0000, &[APP[0], APP[1], ("_pq_.feature", "1"), ("_pq_.other", "x")], &["_pq_.feature", "_pq_.other"]),
        (0x0003_270f, &[APP[0], APP[1], ("_pq_.grease", "")], &["_pq_.grease"]),
    ] {
        let mut client = Client::tcp(fleet.port());
        client.send(&startup_version(version, parameters));
        let message = client.read();
        assert_eq!(message.kind, b'v', "version {version:#x}");
        let mut expected = frontend::VERSION_3.to_be_bytes().to_vec();
        expected.extend((unknown.len() as u32).to_be_bytes());
        expected.extend(frontend::strings(unknown));
        assert_eq!(message.body, expected, "version {version:#x}");
        client.authenticate("app", None).unwrap();
        assert_eq!(client.key.len(), 8, "an 8-byte cancel key, as in 3.0");
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn a_client_that_stops_in_the_middle_is_dropped_after_client_login_timeout() {
    let (fleet, _server) = started(|builder| builder.setting("client_login_timeout", 1));
    let packet = startup(&APP);
    let mut stopped: Vec<Client> = [0, 1, 4, 8, 12, packet.len() - 1]
        .into_iter()
        .map(|length| {
            let mut client = Client::tcp(fleet.port());
            client.send(&packet[..length]);
            client
        })
        .collect();
    assert_serves(&fleet);
    for client in &mut stopped {
        let fields = client.refusal();
        assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "client_login_timeout"));
    }
    // Leaving in the middle is nobody's business.
    for length in [0, 3, 9, packet.len() - 1] {
        let mut client = Client::tcp(fleet.port());
        client.send(&packet[..length]);
        client.finish_sending();
        client.expect_end();
    }
    assert_serves(&fleet);
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_query_holds_up_nobody() {
    let (fleet, _server) = started(|builder| builder.workers(1).pool_size(1));
    let mut halfway = fleet.client();
    let query = frontend::query("select 'whole at last'");
    halfway.send(&query[..4]);
    for _ in 0..3 {
        assert_serves(&fleet);
    }
    halfway.send(&query[4..]);
    assert_eq!(halfway.answer().value(), "whole at last");
    let mut gone = fleet.client();
    gone.send(&query[..12]);
    drop(gone);
    assert_serves(&fleet);
}

#[test]
fn an_unknown_message_ends_that_connection_only() {
    let (fleet, _server) = started(|builder| builder);
    let mut bystander = fleet.client();
    for bytes in [frontend::message(b'!', b"what"), frontend::message(0xff, b""), startup(&APP)] {
        let mut client = fleet.client();
        client.send(&bytes);
        let fields = client.refusal();
        assert_eq!((fields.severity(), fields.code(), fields.text()), ("FATAL", "08P01", "unknown pkt"), "{bytes:?}");
    }
    assert_eq!(bystander.value("select 1"), "1");
}

#[test]
fn logins_that_only_connect_and_leave_are_not_logged_as_errors() {
    let (fleet, _server) = started(|builder| builder);
    for _ in 0..10 {
        drop(Client::tcp(fleet.port()));
    }
    assert_serves(&fleet);
    assert_eq!(fleet.logged("ERROR") + fleet.logged("WARNING"), 0, "{}", fleet.log());
    let mut idle = Client::tcp(fleet.port());
    idle.expect_silence(Duration::from_millis(200));
}
