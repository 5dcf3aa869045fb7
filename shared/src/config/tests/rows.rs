//! Each row of the table, by data.

use super::super::convert::value;
use super::super::kind::{parse_int, parse_seconds, print_seconds};
use super::super::{Config, Effect, Kind, SetError, Setting, Settings, TABLE};
use super::{ini, ini_problems, toml};

/// What SHOW CONFIG prints for a value that was given as `text`.
fn shown(kind: &Kind, text: &str) -> String {
    match kind {
        Kind::Switch => u8::from(parse_int(text).unwrap() != 0).to_string(),
        Kind::Int { .. } | Kind::Mode => parse_int(text).unwrap().to_string(),
        Kind::Seconds => print_seconds(parse_seconds(text).unwrap()),
        Kind::Choice(_) => text.to_lowercase(),
        Kind::Text | Kind::Secret | Kind::Words => text.to_owned(),
    }
}

/// A value that is not the default, and what SHOW CONFIG prints for it.
fn another(setting: &Setting) -> (String, String) {
    let given = match setting.kind {
        _ if setting.name == "auth_ldap_options" => "ldapserver=a ldapbasedn=dc=x".into(),
        Kind::Switch if setting.default == Some("1") => "0".into(),
        Kind::Switch => "1".into(),
        Kind::Int { min, max, .. } if setting.default == Some(max.to_string().as_str()) => format!("0x{:x}", min + 1),
        Kind::Int { min, max, .. } => format!("{}", (min + 77).min(max)),
        Kind::Mode => "0750".into(),
        Kind::Seconds => "12.25".into(),
        Kind::Text | Kind::Secret => "some text; 'quoted' # \"too\"".into(),
        Kind::Words if setting.name == "server_require_auth" => "!password,!md5 , !none".into(),
        Kind::Words => "alpha,beta , gamma".into(),
        Kind::Choice(words) => words.iter().find(|w| Some(**w) != setting.default).unwrap().to_uppercase(),
    };
    let shown = shown(&setting.kind, &given);
    (given, shown)
}

fn wrong(setting: &Setting) -> Vec<String> {
    let words = ["", "on", "10s", "-"].map(str::to_owned);
    match setting.kind {
        Kind::Switch => words.into(),
        Kind::Int { min, max, .. } => [words.to_vec(), vec![(min - 1).to_string(), (max + 1).to_string(), "1.5".into()]].concat(),
        Kind::Mode => [words.to_vec(), vec!["010000".into()]].concat(),
        Kind::Seconds => [words.to_vec(), vec!["-1".into(), "1e3".into(), "99999999999".into()]].concat(),
        Kind::Choice(_) => vec![String::new(), "nonsense".into()],
        Kind::Text | Kind::Secret | Kind::Words => Vec::new(),
    }
}

#[test]
fn every_default_is_a_value_of_its_setting() {
    let defaults = Settings::default();
    for setting in TABLE {
        let Some(default) = setting.default else {
            assert!(matches!(defaults.value(setting.name).as_deref(), None | Some("0")), "{}", setting.name);
            continue;
        };
        let mut settings = Settings::default();
        assert_eq!(settings.set(setting.name, default), Ok(()), "{}", setting.name);
        assert_eq!(settings.value(setting.name), defaults.value(setting.name), "{}", setting.name);
        assert_eq!(defaults.value(setting.name).unwrap(), shown(&setting.kind, default), "{}", setting.name);
    }
}

#[test]
fn every_setting_takes_another_value_and_shows_it() {
    for setting in TABLE {
        let (given, shown) = another(setting);
        let mut settings = Settings::default();
        assert_eq!(settings.set(setting.name, &given), Ok(()), "{}", setting.name);
        assert_eq!(settings.value(setting.name), Some(shown), "{}", setting.name);
        let differing: Vec<&str> = settings.differing(&Settings::default()).iter().map(|s| s.name).collect();
        assert_eq!(differing, [setting.name]);
    }
}

#[test]
fn every_setting_refuses_what_is_not_its_kind() {
    for setting in TABLE {
        for text in wrong(setting) {
            let mut settings = Settings::default();
            let outcome = settings.set(setting.name, &text);
            assert!(matches!(outcome, Err(SetError::Invalid(_))), "{} = {text}: {outcome:?}", setting.name);
            assert_eq!(settings, Settings::default(), "{} = {text}", setting.name);
            let problems = ini_problems(&format!("[pgbouncer]\n{} = {text}\n", setting.name));
            let prefix = format!("pgbouncer.ini:2: {}: invalid value \"{text}\": must be ", setting.name);
            assert!(problems.iter().any(|p| p.starts_with(&prefix)), "{problems:?}");
        }
    }
}

/// Values that `support` refuses are another test's, and what TLS is made of must be what it says.
fn loadable(setting: &Setting) -> bool {
    !matches!(setting.name, "auth_type" | "client_tls_sslmode" | "auth_file")
        && !setting.name.starts_with("server_tls")
        && !setting.name.starts_with("proxy_protocol")
}

#[test]
fn every_setting_means_the_same_in_both_formats() {
    for setting in TABLE.iter().filter(|s| loadable(s)) {
        let (given, shown) = another(setting);
        let from_ini = ini(&format!("[pgbouncer]\n{} = {given}\n", setting.name)).unwrap();
        assert_eq!(from_ini.settings.value(setting.name), Some(shown), "{}", setting.name);
        let native = value(&setting.kind, &given).unwrap();
        let mut from_toml = toml(&format!("[pgfleet]\n{} = {native}\n", setting.name)).unwrap();
        if setting.name != "conffile" {
            from_toml.settings.conffile.clone_from(&from_ini.settings.conffile);
        }
        assert_eq!(from_toml.settings, from_ini.settings, "{} = {native}", setting.name);
    }
}

#[test]
fn every_setting_without_effect_is_named() {
    for setting in TABLE.iter().filter(|s| loadable(s)) {
        let problems = ini_problems(&format!("[pgbouncer]\n{} = {}\n", setting.name, another(setting).0));
        match setting.effect {
            Effect::Works => assert_eq!(problems, [] as [&str; 0], "{}", setting.name),
            Effect::NotYet => assert_eq!(problems, [format!("pgbouncer.ini:2: {}: has no effect yet", setting.name)]),
            Effect::Never(why) => assert_eq!(problems, [format!("pgbouncer.ini:2: {}: has no effect: {why}", setting.name)]),
        }
    }
}

/// What the supervisor opens, binds or becomes before there is a worker. All else is read where it is used, in the configuration in force.
const FIXED: [&str; 13] = [
    "control_dir",
    "job_name",
    "listen_addr",
    "listen_backlog",
    "listen_port",
    "pidfile",
    "pkt_buf",
    "resolv_conf",
    "so_reuseport",
    "unix_socket_dir",
    "unix_socket_group",
    "unix_socket_mode",
    "user",
];

#[test]
fn a_reload_puts_every_setting_in_force_or_says_that_it_does_not() {
    let fixed: Vec<&str> = TABLE.iter().filter(|setting| !setting.reloadable).map(|setting| setting.name).collect();
    assert_eq!(fixed, FIXED);
    let running = Config::default();
    for setting in TABLE {
        let (given, shown) = another(setting);
        let mut new = running.clone();
        new.settings.set(setting.name, &given).unwrap();
        let news = running.news(&new, &running.changes(&new));
        new.keep_unchangeable(&running);
        let told = |lines: &[String]| lines.iter().any(|line| line.starts_with(&format!("{}: ", setting.name)));
        let works = !matches!(setting.effect, Effect::Never(_));
        assert_eq!(told(&news.changed), works && setting.reloadable, "{}: {news:?}", setting.name);
        assert_eq!(told(&news.needs_restart), works && !setting.reloadable, "{}: {news:?}", setting.name);
        let in_force = if setting.reloadable { Some(shown) } else { running.settings.value(setting.name) };
        assert_eq!(new.settings.value(setting.name), in_force);
    }
}

#[test]
fn show_config_is_in_pgbouncers_order() {
    let names: Vec<&str> = TABLE.iter().map(|s| s.name).collect();
    let mut sorted = names.clone();
    sorted.sort_by_key(|name| if *name == "pool_mode" { "pool_" } else { name });
    assert_eq!(names, sorted);
    assert!(TABLE.iter().all(|s| !s.help.is_empty() && s.help.ends_with('.')));
}
