//! The reference page and the samples agree with the tables.

use super::super::{Effect, Settings, TABLE, check, load, reference, sample};
use super::{toml, toml_problems};
use std::path::{Path, PathBuf};

fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Compares a file with what it should hold; `UPDATE_DOCS=1` rewrites it.
fn is_current(name: &str, text: &str) {
    let path = in_repository(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{name} is not what the settings table says: run UPDATE_DOCS=1 cargo test -p shared config");
}

#[test]
fn the_reference_page_is_current() {
    let page = reference();
    is_current("docs/settings.md", &page);
    assert!(TABLE.iter().all(|s| page.contains(&format!("\n| `{}` |", s.name))));
}

#[test]
fn the_sample_is_current_and_says_the_defaults() {
    let text = sample();
    is_current("conf/pgfleet.toml", &text);
    assert_eq!(toml_problems(&text), [] as [&str; 0], "as it is");

    // Take the # away from everything: it loads, and the settings are the defaults.
    let active: Vec<&str> = text.lines().map(|l| if l.starts_with("# ") { l } else { l.strip_prefix('#').unwrap_or(l) }).collect();
    let config = toml(&active.join("\n")).unwrap();
    let defaults = Settings::default();
    for setting in TABLE.iter().filter(|s| s.name != "conffile" && !matches!(s.effect, Effect::Never(_))) {
        assert!(active.iter().any(|l| l.starts_with(&format!("{} = ", setting.name))), "{} is missing", setting.name);
        assert_eq!(config.settings.value(setting.name), defaults.value(setting.name), "{}", setting.name);
    }
    assert!(config.databases.contains_key("app") && config.fallback.is_some() && config.users.contains_key("batch"));
}

#[test]
fn the_example_of_pgbouncers_format_loads() {
    let path = in_repository("conf/pgbouncer.ini");
    let config = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.databases.len() > 1 && config.fallback.is_some() && !config.secrets.is_empty());
    let problems = check(&path);
    assert!(problems.iter().all(|p| p.message.contains("can be read by everyone")), "{problems}");
}
