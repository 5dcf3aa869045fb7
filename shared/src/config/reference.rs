//! The reference page and the sample configuration, written from the tables.

use super::convert::value;
use super::settings::{Effect, Group, Key, Setting};
use super::{DATABASE_KEYS, Kind, PEER_KEYS, TABLE, USER_KEYS};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Settings

<!-- Written from the settings table (shared/src/config/table.rs) by its tests: UPDATE_DOCS=1 cargo test -p shared config -->

A configuration is a TOML file (its name ends in `.toml`) or a `pgbouncer.ini`; both know the same settings by the same names.
`pgfleet check FILE` names every problem of one, `pgfleet convert FILE` prints it as TOML.

| value | in TOML | in pgbouncer.ini |
|---|---|---|
| switch | `true`, `false` (or 1, 0) | `1`, `0` |
| number | `20`, `0o777`, `0x10` | `20`, `0777`, `0x10` |
| time | a number of seconds (`15`, `0.5`), or `\"100ms\"`, `\"10s\"`, `\"5min\"`, `\"1h\"`, `\"7d\"` | a number of seconds: `15`, `0.5` |
| text | `\"text\"` | the rest of the line; quotes are part of it |
| words | `[\"alice\", \"bob\"]` | `alice, bob` |

Every limit is a total over all workers. \"At a reload\" says whether RELOAD and SIGHUP apply a new value, or only a restart does; a reload with
any error in it changes nothing. A setting may also stand in a `[databases]` (D) or `[users]` (U) entry where the column \"also in\" says so.
";

/// `docs/settings.md`.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    for group in Group::ALL {
        let _ = write!(out, "\n## {}\n\n", group.title()); // writing to a String does not fail, here and below
        out.push_str("| setting | default | value | at a reload | also in | meaning |\n|---|---|---|---|---|---|\n");
        for setting in TABLE.iter().filter(|s| s.group == group) {
            let also = [setting.database_key().map(|_| "D"), setting.user_key().map(|_| "U")];
            let also: Vec<&str> = also.into_iter().flatten().collect();
            let reload = if setting.reloadable { "yes" } else { "no" };
            let (name, kind, also, meaning) =
                (setting.name, describe(&setting.kind), also.join(", "), meaning(setting.help, setting.effect));
            let _ = writeln!(out, "| `{name}` | {} | {kind} | {reload} | {also} | {meaning} |", default(setting.default));
        }
    }
    let databases = "Each is a name that clients ask for. `*` stands for every name that has no entry of its own. The names `pgbouncer` and \
                     `pgfleet` are the console's.\n\nIn TOML `[databases.app]` with a line for each key; in pgbouncer.ini `app = host=10.0.0.1 dbname=app` under `[databases]`.";
    keys(&mut out, "Entries of `[databases]`", databases, DATABASE_KEYS);
    keys(&mut out, "Entries of `[users]`", "Each is a user's name. A user who has no entry has the settings' values.", USER_KEYS);
    keys(&mut out, "Entries of `[peers]`", "Each is the peer_id of another fleet behind the same address.", PEER_KEYS);
    out
}

fn keys(out: &mut String, title: &str, text: &str, keys: &[Key]) {
    let _ = write!(out, "\n## {title}\n\n{text}\n\n| key | default | value | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            key.name,
            key.default.map_or_else(String::new, |d| format!("`{d}`")),
            describe(&key.kind),
            meaning(key.help, key.effect)
        );
    }
}

fn default(default: Option<&str>) -> String {
    match default {
        None => "none".into(),
        Some("") => "empty".into(),
        Some(text) => format!("`{text}`"),
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Switch => "switch".into(),
        Kind::Int { min, max, unit } => {
            let range = if *max == i64::from(i32::MAX) { format!("{min} or more") } else { format!("{min} to {max}") };
            if unit.is_empty() { range } else { format!("{range} {unit}") }
        }
        Kind::Mode => "file mode".into(),
        Kind::Seconds => "time".into(),
        Kind::Text | Kind::Secret => "text".into(),
        Kind::Words => "words".into(),
        Kind::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
    }
}

fn meaning(help: &str, effect: Effect) -> String {
    match effect {
        Effect::Works => help.to_owned(),
        Effect::NotYet => format!("{help} **Has no effect yet.**"),
        Effect::Never(why) => format!("{help} **Has no effect:** {why}."),
    }
}

/// `conf/pgfleet.toml`: every setting with its default, commented out.
pub fn sample() -> String {
    let mut out = "\
# pgfleet's configuration: every setting with its default. Take the # away from what you change.
# docs/settings.md says more about each; `pgfleet check` tells what is wrong with a file.

[pgfleet]
"
    .to_owned();
    for group in Group::ALL {
        let _ = writeln!(out, "\n# ---- {} ----", group.title());
        for setting in TABLE.iter().filter(|s| s.group == group && !matches!(s.effect, Effect::Never(_))) {
            sample_setting(&mut out, setting);
        }
    }
    out.push_str(SAMPLE_ENTRIES);
    out
}

fn sample_setting(out: &mut String, setting: &Setting) {
    out.push('\n');
    let mut notes = setting.help.to_owned();
    if let Kind::Choice(words) = setting.kind {
        let _ = write!(notes, " One of: {}.", words.join(", "));
    }
    if !setting.reloadable {
        notes.push_str(" A new value needs a stop and a start.");
    }
    if setting.effect == Effect::NotYet {
        notes.push_str(" Has no effect yet.");
    }
    wrap(out, &notes);
    let default = setting.default.or(matches!(setting.kind, Kind::Int { .. }).then_some("0")).unwrap_or("");
    let _ = writeln!(out, "#{} = {}", setting.name, value(&setting.kind, default).unwrap_or_default());
}

/// Writes `text` as comment lines of at most 100 characters.
fn wrap(out: &mut String, text: &str) {
    let mut line = "#".to_owned();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            let _ = writeln!(out, "{line}");
            "#".clone_into(&mut line);
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(out, "{line}");
}

const SAMPLE_ENTRIES: &str = r#"
# ---- Databases: a table for each name that clients ask for ----

#[databases.app]
#host = "10.0.0.5"
#port = 5432
#dbname = "app"
#pool_size = 40

# Several hosts, one pool for all users, another pool mode:
#[databases.reports]
#host = "10.0.0.6,10.0.0.7"
#user = "reporter"
#pool_mode = "session"

# Every other name, on the machine itself:
#[databases."*"]
#host = "127.0.0.1"

# ---- Users: limits of their own ----

#[users.batch]
#pool_size = 5
#query_timeout = "1h"

# ---- Peers: other fleets behind the same address ----

#[peers.1]
#host = "10.0.1.1"
"#;
