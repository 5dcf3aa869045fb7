//! A client of the model: it sends pipelines that make sense to it, and knows what a connection of its own would answer.

use super::super::frontend::Rules;
use super::super::rig::ClientEnd;
use super::postgres::{Postgres, Transaction};
use super::{close, message, tags};
use rand::RngExt;
use rand::rngs::SmallRng;
use shared::wire::frontend::write_parse;
use std::collections::BTreeSet;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Texts to prepare, and how a simple query would run them. The last character of a `select` is how many rows it gives.
const TEXTS: [&str; 16] = [
    "select 1",
    "select x1",
    "select y2",
    "select z3",
    "select 0",
    "fail",
    "syntax",
    "unbound",
    "unbound since",
    "begin",
    "commit",
    "rollback",
    "copy in",
    "copy out",
    "notice",
    "",
];

/// One client, and the server that it would have had to itself.
pub(super) struct Client {
    pub(super) end: ClientEnd,
    /// Sent, and not yet at the pooler.
    pub(super) outbox: Vec<u8>,
    pub(super) private: Postgres,
    /// All that its own server has said.
    pub(super) expected: Vec<u8>,
    /// Names that it could use now, by what it has sent.
    names: BTreeSet<&'static str>,
    /// The unnamed statement is there, by what it has sent, and will be on whatever server.
    unnamed: bool,
    /// Names of which it cannot know before it has been answered.
    doubtful: BTreeSet<&'static str>,
    /// Names that it has prepared or closed since it began the batch.
    touched: BTreeSet<&'static str>,
    /// It has forgotten all its statements by SQL: it waits for the answers before it goes on.
    waits: bool,
    rules: Rules,
}

impl Client {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            end: ClientEnd::default(),
            outbox: Vec::new(),
            private: Postgres::default(),
            expected: Vec::new(),
            names: BTreeSet::new(),
            unnamed: false,
            doubtful: BTreeSet::new(),
            touched: BTreeSet::new(),
            waits: false,
            rules,
        }
    }

    /// Everything that it asked has been answered.
    pub(super) fn is_answered(&self) -> bool {
        self.end.received.len() == self.expected.len()
    }

    /// Its names are those of the server that it would have had.
    #[track_caller]
    pub(super) fn assert_names(&self) {
        for name in NAMES {
            let (have, want) = (self.end.front.statements.get(name.as_bytes()), self.private.statements.get(name.as_bytes()));
            assert_eq!(have.is_some(), want.is_some(), "whether the name {name} is there");
            if let (Some(have), Some(want)) = (have, want) {
                assert!(have.identity.starts_with(want) && have.identity[want.len()] == 0, "the text of {name}");
            }
        }
    }

    fn is_tracked(&self) -> bool {
        self.rules.max_statements > 0
    }

    fn say(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
        self.private.receive(bytes, &mut self.expected);
    }

    /// One more batch or query.
    pub(super) fn ask(&mut self, random: &mut SmallRng) {
        if self.is_answered() {
            self.doubtful.clear();
            self.waits = false;
        }
        if self.waits {
            return;
        }
        let before = self.expected.len();
        self.names = NAMES.into_iter().filter(|name| self.private.statements.contains_key(name.as_bytes())).collect();
        if !self.private.statements.contains_key(&b""[..])
            || !self.rules.reuse_unnamed && self.private.transaction == Transaction::None
        {
            self.unnamed = false;
        }
        match random.random_range(0..10) {
            0..=3 => self.simple(random),
            _ => self.batch(random),
        }
        self.unnamed &= self.private.statements.contains_key(&b""[..]);
        let failed = has_error(&self.expected[before..]);
        // What an error has made of the names in the same batch it learns from the answers only.
        if failed {
            self.doubtful.append(&mut self.touched);
        }
        self.touched.clear();
        // Its Parse may have been skipped, and what was there before is another server's.
        self.unnamed &= !failed;
    }

    /// Leaves no transaction behind.
    pub(super) fn finish(&mut self) {
        if self.private.transaction != Transaction::None {
            self.say(&query("rollback"));
        }
    }

    fn simple(&mut self, random: &mut SmallRng) {
        self.unnamed = false;
        let failed = self.private.transaction == Transaction::Failed;
        let text = match random.random_range(0..16) {
            0 => "select 1;select y2".to_owned(),
            1 => "select 1;fail;select 1".to_owned(),
            2 => "begin;select 1".to_owned(),
            3 if self.is_answered() && self.is_tracked() => ["discard all", "deallocate all"][random.random_range(0..2)].to_owned(),
            4 | 5 if self.is_answered() => match self.pick(random) {
                Some(name) if random.random_range(0..2) == 0 => format!("deallocate {name}"),
                Some(name) if !self.executes_oddly(name) => format!("execute {name}"),
                _ => "select 1".to_owned(),
            },
            _ if failed => "rollback".to_owned(),
            6 => return self.say(&message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")),
            _ => TEXTS[random.random_range(0..TEXTS.len())].to_owned(),
        };
        self.waits = text.ends_with(" all");
        self.say(&query(&text));
        if text.ends_with(" all") || text.starts_with("deallocate") {
            self.names = NAMES.into_iter().filter(|name| self.private.statements.contains_key(name.as_bytes())).collect();
        }
        if text == "copy in" {
            self.copy_data(random);
        }
    }

    /// What EXECUTE in SQL would not run, or would run in another way than Bind and Execute.
    fn executes_oddly(&self, name: &str) -> bool {
        let text = self.private.statements.get(name.as_bytes());
        text.is_none_or(|text| !text.starts_with(b"select") && text != b"fail")
    }

    fn copy_data(&mut self, random: &mut SmallRng) {
        for _ in 0..random.random_range(0..4) {
            let data: &[u8] = if random.random_range(0..6) == 0 { b"bad" } else { b"good" };
            self.say(&message(b'd', data));
        }
        if random.random_range(0..5) == 0 {
            self.say(&message(b'f', b"no\0"));
        } else {
            self.say(&message(b'c', b""));
        }
    }

    fn pick(&self, random: &mut SmallRng) -> Option<&'static str> {
        let name = NAMES[random.random_range(0..NAMES.len())];
        (self.names.contains(name) && !self.doubtful.contains(name)).then_some(name)
    }

    fn batch(&mut self, random: &mut SmallRng) {
        // In a failed transaction PostgreSQL prepares nothing: a Parse that the pooler answers itself would succeed, and a statement that
        // the server does not hold yet could not be described.
        let may_parse = self.private.transaction != Transaction::Failed;
        let mut copies = false;
        for _ in 0..random.random_range(1..7) {
            match random.random_range(0..12) {
                0..=2 if may_parse => {
                    let name = NAMES[random.random_range(0..NAMES.len())];
                    if self.is_tracked() && !self.names.contains(name) && !self.doubtful.contains(name) {
                        let text = TEXTS[random.random_range(0..TEXTS.len())];
                        self.say(&parse(name, text));
                        self.names.insert(name);
                        self.touched.insert(name);
                    }
                }
                3 | 4 if may_parse => {
                    let text = TEXTS[random.random_range(0..TEXTS.len())];
                    self.say(&parse("", text));
                    self.unnamed = true;
                    copies |= self.run(random, "");
                }
                5..=7 => {
                    if let Some(name) = self.pick(random) {
                        copies |= self.run(random, name);
                    } else if self.unnamed {
                        copies |= self.run(random, "");
                    }
                }
                8 if may_parse => {
                    if let Some(name) = self.pick(random) {
                        self.say(&describe(b'S', name));
                    }
                }
                9 => {
                    let name = NAMES[random.random_range(0..NAMES.len())];
                    if self.is_tracked() && !self.doubtful.contains(name) {
                        self.say(&close(name));
                        self.names.remove(name);
                        self.touched.insert(name);
                    }
                }
                10 => self.say(&message(b'C', b"Pp\0")),
                _ => self.say(&message(b'H', b"")),
            }
            if copies {
                break;
            }
        }
        self.say(&message(b'S', b""));
    }

    /// Binds a statement and executes its portal, all at once or in pieces. True: that may have been COPY.
    fn run(&mut self, random: &mut SmallRng, name: &str) -> bool {
        let portal = ["", "", "p"][random.random_range(0..3)];
        self.say(&bind(portal, name));
        if random.random_range(0..2) == 0 {
            self.say(&describe(b'P', portal));
        }
        for _ in 0..random.random_range(0..3) {
            self.say(&execute(portal, random.random_range(0..3)));
            if self.private.is_copying() {
                // libpq's way: a Sync that goes unnoticed.
                if random.random_range(0..2) == 0 {
                    self.say(&message(b'S', b""));
                }
                self.copy_data(random);
                return true;
            }
        }
        false
    }
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_parse(&mut out, name.as_bytes(), &[text.as_bytes(), b"\0\0\0"].concat());
    out
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat())
}

fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[kind], name.as_bytes(), b"\0"].concat())
}

fn execute(portal: &str, most: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &most.to_be_bytes()].concat())
}

fn has_error(answers: &[u8]) -> bool {
    tags(answers).contains('E')
}
