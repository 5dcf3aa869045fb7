//! Both directions together, without a socket.

#![allow(clippy::unwrap_used)]

mod client;
mod pool;
mod postgres;

use super::frontend::{Frontend, Need, Rules, Stop, cancel_first, need};
use super::rig::{ClientEnd, ServerEnd};
use super::statements::{Registry, Scope};
use shared::wire::encode;
use shared::wire::frontend::write_parse;

const TRACKING: Rules = Rules { max_packet: 1 << 20, max_statements: 2, reuse_unnamed: false, refuse_simple: false };
const PLAIN: Rules = Rules { max_packet: 1 << 20, max_statements: 0, reuse_unnamed: false, refuse_simple: false };

/// One client and one server.
#[derive(Default)]
struct Exchange {
    client: ClientEnd,
    server: ServerEnd,
    registry: Registry,
}

impl Exchange {
    fn client(&mut self, rules: Rules, bytes: &[u8]) -> Stop {
        self.client.send(&mut self.server, &mut self.registry, rules, bytes)
    }

    fn server(&mut self, bytes: &[u8]) {
        let (_, violation) = self.server.answer(Some(&mut self.client), &mut self.registry, bytes);
        assert_eq!(violation, None);
    }

    fn is_free(&self) -> bool {
        self.server.back.is_free()
    }

    fn tags(&mut self) -> (String, String) {
        (tags(&std::mem::take(&mut self.server.received)), tags(&std::mem::take(&mut self.client.received)))
    }
}

/// The types of the messages in `bytes`, all of which must be whole.
fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let [tag, a, b, c, d, ..] = *bytes {
        tags.push(char::from(tag));
        bytes = &bytes[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    assert!(bytes.is_empty());
    tags
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, tag, |b| b.extend_from_slice(body));
    out
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_parse(&mut out, name.as_bytes(), &[sql.as_bytes(), b"\0\0\0"].concat());
    out
}

fn bind(name: &str) -> Vec<u8> {
    message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
}

fn close(name: &str) -> Vec<u8> {
    message(b'C', &[b"S", name.as_bytes(), b"\0"].concat())
}

fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

fn error() -> Vec<u8> {
    message(b'E', b"SERROR\0VERROR\0C42601\0Mno\0\0")
}

#[test]
fn a_statement_the_server_holds_is_not_parsed_again() {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), bind("a"), execute(), sync()].concat());
    x.server(&[message(b'1', b""), message(b'2', b""), complete(), ready()].concat());
    assert_eq!(x.tags(), ("PBES".into(), "12CZ".into()));
    assert!(x.is_free());
    // Another name for the same text: answered here, in its place before the server's BindComplete.
    x.client(TRACKING, &[parse("b", "select 1"), bind("b"), execute(), sync()].concat());
    x.server(&[message(b'2', b""), complete(), ready()].concat());
    assert_eq!(x.tags(), ("BES".into(), "12CZ".into()));
    assert!(x.is_free());
}

#[test]
fn a_bind_brings_its_statement_along_and_the_oldest_goes() {
    let mut x = Exchange::default();
    for (name, sql) in [("a", "select 1"), ("b", "select 2")] {
        x.client(TRACKING, &[parse(name, sql), sync()].concat());
        x.server(&[message(b'1', b""), ready()].concat());
    }
    x.tags();
    x.client(TRACKING, &[parse("c", "select 3"), sync()].concat());
    // Room first (Close of the first), then the Parse; the client sees one answer.
    x.server(&[message(b'3', b""), message(b'1', b""), ready()].concat());
    assert_eq!(x.tags(), ("CPS".into(), "1Z".into()));
    x.client(TRACKING, &[bind("a"), execute(), sync()].concat());
    x.server(&[message(b'3', b""), message(b'1', b""), message(b'2', b""), complete(), ready()].concat());
    assert_eq!(x.tags(), ("CPBES".into(), "2CZ".into()));
}

#[test]
fn a_failed_parse_frees_the_name_and_forgets_the_statement() {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "selec"), bind("a"), execute(), sync()].concat());
    x.server(&[error(), ready()].concat());
    assert_eq!(x.tags(), ("PBES".into(), "EZ".into()));
    assert_eq!(x.server.back.statements.len(), 0);
    assert_eq!(x.client(TRACKING, &[parse("a", "select 1"), sync()].concat()), Stop::No);
    assert_eq!(x.tags().0, "PS");
}

#[test]
fn what_an_error_makes_the_server_ignore_is_undone() {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    x.tags();
    // The Close comes after the failing Execute: PostgreSQL would have ignored it, so the name is still there.
    x.client(TRACKING, &[bind("a"), execute(), close("a"), parse("b", "select 1"), sync()].concat());
    x.server(&[message(b'2', b""), error(), ready()].concat());
    assert_eq!(x.tags(), ("BES".into(), "2EZ".into()));
    assert!(x.client.front.statements.get(b"a").is_some() && x.client.front.statements.get(b"b").is_none());
    assert_eq!(x.client(TRACKING, &[close("a"), sync()].concat()), Stop::No);
    x.server(&ready());
    assert_eq!(x.tags(), ("S".into(), "3Z".into()));
    assert!(x.client.front.statements.get(b"a").is_none());
}

#[test]
fn local_answers_need_no_server_answer_to_go_out() {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    x.tags();
    x.client(TRACKING, &[parse("b", "select 1"), message(b'H', b"")].concat());
    assert_eq!(x.tags(), ("H".into(), "1".into()));
    assert!(!x.is_free(), "a batch without Sync keeps the server");
    x.client(TRACKING, &sync());
    x.server(&ready());
    assert!(x.is_free());
}

#[test]
fn discard_all_clears_both_sides() {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    x.client(TRACKING, &message(b'Q', b"discard all\0"));
    x.server(&[message(b'C', b"DISCARD ALL\0"), ready()].concat());
    assert!(x.client.front.statements.get(b"a").is_none());
    assert_eq!(x.server.back.statements.len(), 0);
}

#[test]
fn copy_in_with_its_two_syncs_ends_settled() {
    let mut x = Exchange::default();
    x.client(PLAIN, &[parse("", "copy t from stdin"), bind(""), execute(), sync()].concat());
    x.server(&[message(b'1', b""), message(b'2', b""), message(b'G', b"\0\0\0")].concat());
    assert!(!x.is_free());
    x.client(PLAIN, &[message(b'd', b"1\n"), message(b'c', b""), sync()].concat());
    x.server(&[message(b'C', b"COPY 1\0"), ready()].concat());
    assert!(x.is_free());
    assert_eq!(x.tags(), ("PBESdcS".into(), "12GCZ".into()));
}

/// The second Sync is the one that counts, and the first was there before PostgreSQL said that it takes data: the server was kept for ever.
#[test]
fn a_copy_that_is_sent_whole_before_it_begins_ends_settled() {
    for first_sync in [sync(), Vec::new()] {
        let mut x = Exchange::default();
        let start = [parse("", "copy t from stdin"), bind(""), execute(), first_sync].concat();
        x.client(PLAIN, &[start, message(b'd', b"1\n"), message(b'c', b""), sync()].concat());
        x.server(&[message(b'1', b""), message(b'2', b""), message(b'G', b"\0\0\0")].concat());
        assert!(!x.is_free());
        x.server(&[message(b'C', b"COPY 1\0"), ready()].concat());
        assert!(x.is_free());
    }
    // It is refused: the first Sync is answered, and the data is not for anyone.
    let mut x = Exchange::default();
    x.client(PLAIN, &[parse("", "copy t from stdin"), bind(""), execute(), sync(), message(b'c', b""), sync()].concat());
    x.server(&[message(b'1', b""), message(b'2', b""), error(), ready()].concat());
    assert!(!x.is_free());
    x.server(&ready());
    assert!(x.is_free());
}

/// A statement that made room in the batch in which its own Parse failed was taken for held.
#[test]
fn what_is_undone_is_undone_backwards() {
    let rules = Rules { max_statements: 1, ..TRACKING };
    let mut x = Exchange::default();
    x.client(rules, &[parse("a", "selec"), parse("b", "select 1"), sync()].concat());
    x.server(&[error(), ready()].concat());
    assert_eq!(x.server.back.statements.len(), 0);
    // A name that was closed and taken anew is what it was.
    x.client(rules, &[parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    let before = x.client.front.statements.get(b"a").unwrap().id;
    x.client(rules, &[bind("a"), close("a"), parse("a", "select 2"), sync()].concat());
    x.server(&[error(), ready()].concat());
    assert_eq!(x.client.front.statements.get(b"a").unwrap().id, before);
}

#[test]
fn an_unnamed_statement_survives_a_parse_that_is_ignored() {
    let rules = Rules { reuse_unnamed: true, ..TRACKING };
    let mut x = Exchange::default();
    x.client(rules, &[parse("", "select 1"), bind(""), sync()].concat());
    x.server(&[message(b'1', b""), message(b'2', b""), ready()].concat());
    let before = x.client.front.statements.get(b"").unwrap().id;
    x.client(rules, &[bind(""), parse("", "select 2"), sync()].concat());
    x.server(&[error(), ready()].concat());
    assert_eq!(x.client.front.statements.get(b"").unwrap().id, before);
}

#[test]
fn cutting_the_streams_anywhere_changes_nothing() {
    let client =
        [parse("a", "select 1"), bind("a"), execute(), close("a"), sync(), message(b'Q', &[b'x'; 300]), message(b'H', b"")]
            .concat();
    let server = [
        message(b'1', b""),
        message(b'2', b""),
        message(b'D', &[7; 200]),
        complete(),
        ready(),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'D', &[7; 9]),
        complete(),
        ready(),
    ]
    .concat();
    let run = |step: usize| {
        let mut x = Exchange::default();
        client.chunks(step).for_each(|chunk| assert_eq!(x.client(TRACKING, chunk), Stop::No));
        server.chunks(step).for_each(|chunk| x.server(chunk));
        assert!(x.is_free() && x.client.held.is_empty() && x.server.held.is_empty());
        (x.server.received, x.client.received)
    };
    let whole = run(usize::MAX);
    assert_eq!(tags(&whole.1), "12DC3ZSDCZ");
    (1..64).for_each(|step| assert_eq!(run(step), whole, "in steps of {step}"));
}

/// Binds that take turns between two long statements on a server that may hold one: 64 KB of them once made gigabytes.
#[test]
fn short_binds_of_long_statements_go_out_in_portions() {
    let rules = Rules { max_statements: 1, ..TRACKING };
    let mut x = Exchange::default();
    let text = "x".repeat(100_000);
    x.client(rules, &[parse("a", &format!("{text}a")), parse("b", &format!("{text}b"))].concat());
    x.client.held = [bind("a"), bind("b")].concat().repeat(1_000);
    let mut turns = 0;
    while !x.client.held.is_empty() {
        x.server.received.clear();
        let stop = x.client.turn(&mut x.server, &mut x.registry, rules);
        assert_eq!(stop == Stop::Enough, !x.client.held.is_empty());
        assert!(x.server.received.len() < 1 << 20, "{} bytes at once", x.server.received.len());
        turns += 1;
    }
    assert!(turns > 100);
}

fn describe_portal() -> Vec<u8> {
    message(b'D', b"P\0")
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

fn stale() -> Vec<u8> {
    message(b'E', b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0")
}

/// A client with the statement `a` on the server.
fn prepared() -> Exchange {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    x.tags();
    x
}

#[test]
fn a_batch_whose_columns_have_changed_is_sent_again_unseen() {
    let mut x = prepared();
    let old = x.client.front.statements.get(b"a").unwrap().server_name;
    x.client(TRACKING, &[bind("a"), describe_portal(), execute(), sync()].concat());
    x.tags();
    x.server(&[stale(), ready()].concat());
    // Close of the old statement, Parse of the new one, and the batch again.
    assert_eq!(tags(&x.server.received), "CPBDES");
    let new = x.client.front.statements.get(b"a").unwrap().server_name;
    assert_ne!(old, new);
    assert_eq!(x.server.received.windows(old.len()).filter(|w| **w == old).count(), 1, "in the Close alone");
    assert_eq!(x.server.received.windows(new.len()).filter(|w| **w == new).count(), 2, "in the Parse and the Bind");
    x.server(&[message(b'3', b""), message(b'1', b""), message(b'2', b""), message(b'T', b"\0\0"), complete(), ready()].concat());
    assert_eq!(x.tags().1, "2TCZ");
    assert!(x.is_free() && x.server.back.statements.len() == 1);
}

#[test]
fn a_client_that_would_misread_the_rows_sees_the_error_and_its_next_parse_helps() {
    let mut x = prepared();
    x.client(TRACKING, &[bind("a"), execute(), sync()].concat());
    x.server(&[stale(), ready()].concat());
    assert_eq!(x.tags(), ("BES".into(), "EZ".into()));
    x.client(TRACKING, &[close("a"), parse("a", "select 1"), sync()].concat());
    x.server(&[message(b'1', b""), ready()].concat());
    assert_eq!(x.tags(), ("PS".into(), "31Z".into()), "the same text is parsed anew");
}

#[test]
fn preparing_what_is_out_of_date_is_not_noticed() {
    // Parse is answered here; its Describe is what the server refuses.
    let mut x = prepared();
    x.client(TRACKING, &[parse("b", "select 1"), message(b'D', b"Sb\0"), bind("b"), execute(), sync()].concat());
    assert_eq!(tags(&x.server.received), "DBES");
    x.server.received.clear();
    x.server(&[stale(), ready()].concat());
    assert_eq!(tags(&x.server.received), "CPDBES");
    let rest = [message(b'3', b""), message(b'1', b""), message(b't', b"\0\0"), message(b'n', b""), message(b'2', b"")];
    x.server(&[rest.concat(), complete(), ready()].concat());
    assert_eq!(x.tags().1, "1tn2CZ");
    assert!(x.is_free());
}

#[test]
fn a_batch_that_fails_again_is_not_sent_a_third_time() {
    let mut x = prepared();
    x.client(TRACKING, &[bind("a"), describe_portal(), execute(), sync()].concat());
    x.server(&[stale(), ready()].concat());
    x.tags();
    x.server(&[message(b'3', b""), message(b'1', b""), stale(), ready()].concat());
    assert_eq!(x.tags(), (String::new(), "EZ".into()));
    assert!(x.is_free());
}

/// One client is an epoch behind, and what the server holds of the next one is out of date too.
#[test]
fn two_epochs_can_be_out_of_date_at_once() {
    let mut x = prepared();
    let identity = &b"select 1\0\0\0"[..];
    let first = x.registry.intern(Scope::default(), identity);
    x.registry.retire(first.id);
    let second = x.registry.intern(Scope::default(), identity);
    x.server.back.statements.insert(second.id);
    let batch = [bind("a"), describe_portal(), execute(), sync()].concat();
    x.client(TRACKING, &batch);
    x.tags();
    x.server(&[stale(), ready()].concat());
    assert_eq!(x.tags(), ("CBDES".into(), String::new()));
    x.server(&[message(b'3', b""), stale(), ready()].concat());
    assert_eq!(x.tags(), ("CPBDES".into(), String::new()));
    let answer = [message(b'2', b""), message(b'T', b"\0\0"), complete(), ready()].concat();
    x.server(&[message(b'3', b""), message(b'1', b""), answer].concat());
    assert_eq!(x.tags().1, "2TCZ");
    assert!(x.is_free());
}

#[test]
fn nothing_is_sent_again_in_a_transaction() {
    let mut x = prepared();
    x.client(TRACKING, &query("begin"));
    x.server(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat());
    x.client(TRACKING, &[bind("a"), describe_portal(), execute(), sync()].concat());
    x.server(&[stale(), message(b'Z', b"E")].concat());
    assert_eq!(x.tags(), ("QBDES".into(), "CZEZ".into()));
}

/// What a server says of a statement without parameters and with one column of this type.
fn description(type_oid: u8) -> Vec<u8> {
    let column = [b"\0\x01a\0\0\0\0\0\0\0\0\0\0".as_slice(), &[type_oid], b"\0\x04\xff\xff\xff\xff\0\0"].concat();
    [message(b't', b"\0\0"), message(b'T', &column)].concat()
}

fn describe(name: &str) -> Vec<u8> {
    message(b'D', &[b"S", name.as_bytes(), b"\0"].concat())
}

/// A client that has asked once what `a` is, and goes by that; the server holds it no more.
fn told() -> Exchange {
    let mut x = Exchange::default();
    x.client(TRACKING, &[parse("a", "select 1"), describe("a"), sync()].concat());
    x.server(&[message(b'1', b""), description(23), ready()].concat());
    assert_eq!(x.tags(), ("PDS".into(), "1tTZ".into()));
    x.server.back.statements.clear();
    x
}

#[test]
fn what_a_client_was_told_is_checked_when_its_statement_is_prepared_anew() {
    let mut x = told();
    let batch = [bind("a"), execute(), sync()].concat();
    x.client(TRACKING, &batch);
    assert_eq!(x.tags(), ("PDH".into(), String::new()), "nothing is executed before the server has described it");
    assert!(!x.is_free());
    x.server(&[message(b'1', b""), description(23)].concat());
    x.client(TRACKING, b"");
    x.server(&[message(b'2', b""), complete(), ready()].concat());
    assert_eq!(x.tags(), ("BES".into(), "2CZ".into()));
    assert!(x.is_free());
}

#[test]
fn a_client_that_would_misread_the_rows_is_told_instead() {
    let mut x = told();
    x.client(TRACKING, &[bind("a"), execute(), sync()].concat());
    x.server(&[message(b'1', b""), description(25)].concat());
    x.tags();
    // The text is another statement now: it is prepared under its new name and described, and is not what the client knows.
    x.client(TRACKING, b"");
    x.server(&[message(b'1', b""), description(25)].concat());
    assert_eq!(x.tags(), ("PDH".into(), String::new()));
    x.client(TRACKING, b"");
    assert!(x.server.received.windows(12).any(|w| w == b"pgfleet_gone"));
    x.server(&[message(b'E', b"SERROR\0VERROR\0C26000\0Mno such statement\0\0"), ready()].concat());
    assert!(
        x.client.received.windows(6).any(|w| w == b"C0A000")
            && x.client.received.windows(22).any(|w| w == b"RRevalidateCachedQuery")
    );
    assert_eq!(x.tags(), ("BES".into(), "EZ".into()));
    assert!(x.is_free());
    // Preparing it anew helps, as on a connection of its own.
    x.client(TRACKING, &[close("a"), parse("a", "select 1"), describe("a"), sync()].concat());
    x.server(&[description(25), ready()].concat());
    assert_eq!(x.tags(), ("DS".into(), "31tTZ".into()));
    x.client(TRACKING, &[bind("a"), execute(), sync()].concat());
    assert_eq!(x.tags().0, "BES");
}

#[test]
fn a_client_that_asks_each_time_waits_for_nothing() {
    let mut x = told();
    x.client(TRACKING, &[bind("a"), describe_portal(), execute(), sync()].concat());
    assert_eq!(x.tags().0, "PDBDES");
    let rest = [message(b'2', b""), message(b'T', b"\0\0"), complete(), ready()].concat();
    x.server(&[message(b'1', b""), description(25), rest].concat());
    assert_eq!(x.tags().1, "2TCZ");
    // Others who were told something else must not use what the server has made of it.
    assert!(x.is_free() && x.server.back.statements.in_order().is_empty());
}

#[test]
fn a_statement_that_cannot_be_prepared_anew_fails_with_the_servers_own_words() {
    let mut x = told();
    x.client(TRACKING, &[bind("a"), execute(), sync()].concat());
    x.server(&error());
    x.client(TRACKING, b"");
    x.server(&ready());
    assert_eq!(x.tags(), ("PDHS".into(), "EZ".into()));
    assert!(x.is_free());
}

#[test]
fn deallocate_of_a_statement_prepared_by_protocol_is_answered_here() {
    let mut x = prepared();
    x.client(TRACKING, &query("DEALLOCATE a"));
    assert_eq!(x.tags(), (String::new(), "CZ".into()));
    assert!(x.client.front.statements.is_empty() && x.is_free());
    // What the client has not prepared by protocol is PostgreSQL's to know.
    x.client(TRACKING, &query("DEALLOCATE a"));
    assert_eq!(x.tags().0, "Q");
    let mut replies = Vec::new();
    let mut x = prepared();
    let text = query("deallocate prepare \"a\";");
    assert_eq!(need(&mut x.client.front, TRACKING, &text, &mut replies), Need::Nothing(text.len()), "without a server");
    assert_eq!(tags(&replies), "CZ");
}

#[test]
fn execute_of_a_statement_prepared_by_protocol_is_given_its_server_name() {
    let mut x = prepared();
    let name = x.client.front.statements.get(b"a").unwrap().server_name;
    x.client(TRACKING, &query("execute a (1)"));
    assert_eq!(x.server.received, query(&format!("EXECUTE {} (1)", std::str::from_utf8(&name).unwrap())));
    x.server(&[complete(), ready()].concat());
    assert_eq!(x.tags().1, "CZ");
    // A server that does not hold it is given it first.
    x.server.back.statements.clear();
    x.client(TRACKING, &query("execute a (1)"));
    assert_eq!(tags(&x.server.received), "PSQ");
    x.server(&[message(b'1', b""), ready(), complete(), ready()].concat());
    assert_eq!(x.tags().1, "CZ");
    assert!(x.is_free());
}

#[test]
fn unnamed_statements_can_be_kept_too() {
    let rules = Rules { reuse_unnamed: true, ..TRACKING };
    let mut x = Exchange::default();
    for round in 0..3 {
        x.client(rules, &[parse("", "select 1"), message(b'D', b"S\0"), bind(""), execute(), sync()].concat());
        assert_eq!(tags(&x.server.received), if round == 0 { "PDBES" } else { "DBES" });
        let parsed = if round == 0 { message(b'1', b"") } else { Vec::new() };
        x.server(&[parsed, message(b't', b"\0\0"), message(b'n', b""), message(b'2', b""), complete(), ready()].concat());
        assert_eq!(x.tags().1, "1tn2CZ");
    }
    x.client(rules, &[parse("", "selec"), bind(""), sync()].concat());
    x.server(&[error(), ready()].concat());
    assert!(x.client.front.statements.is_empty(), "a failed Parse leaves no unnamed statement");
}

#[test]
fn a_waiting_request_that_is_cancelled_is_answered_as_postgresql_would() {
    let mut front = Frontend::default();
    let mut replies = Vec::new();
    let data = [query("select 1"), query("select 2")].concat();
    let taken = cancel_first(&mut front, &data, &mut replies);
    assert_eq!((tags(&replies).as_str(), taken), ("EZ", query("select 1").len()));
    replies.clear();
    let batch = [parse("", "select 1"), bind(""), execute()].concat();
    assert_eq!(cancel_first(&mut front, &batch, &mut replies), 0);
    assert_eq!(need(&mut front, TRACKING, &batch, &mut replies), Need::Nothing(batch.len()));
    assert_eq!(tags(&replies), "E");
    let rest = [sync(), query("select 2")].concat();
    assert_eq!(need(&mut front, TRACKING, &rest, &mut replies), Need::Server(sync().len()));
    assert_eq!(tags(&replies), "EZ");
}

#[test]
fn violations_name_the_message() {
    let violation = |bytes: &[u8]| Exchange::default().client(TRACKING, bytes);
    assert_eq!(violation(b"Q\0\0\0\x03"), Stop::BadHeader);
    assert_eq!(violation(&message(b'?', b"")), Stop::Violation("unknown pkt"));
    assert_eq!(violation(&message(b'P', b"a\0select")), Stop::Violation("broken Parse packet"));
    assert_eq!(violation(&message(b'P', b"")), Stop::Violation("broken Parse packet"));
    // Followed by a byte that would have made it one of the unnamed statement.
    assert_eq!(violation(&[message(b'P', b""), vec![0]].concat()), Stop::Violation("broken Parse packet"));
    assert_eq!(violation(&message(b'B', b"no end")), Stop::Violation("broken Bind packet"));
    assert_eq!(violation(&message(b'D', b"Xa\0")), Stop::Violation("broken Describe packet"));
    assert_eq!(violation(&message(b'C', b"")), Stop::Violation("broken Close packet"));
    assert_eq!(violation(&bind("unknown")), Stop::Violation("prepared statement did not exist"));
    assert_eq!(violation(&message(b'X', b"")), Stop::Terminate);
    let refusing = Rules { refuse_simple: true, ..PLAIN };
    assert_eq!(Exchange::default().client(refusing, &message(b'Q', b"select 1\0")), Stop::Violation("PQexec disallowed"));
}
