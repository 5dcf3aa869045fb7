//! The reference page and the samples agree with the tables.

use super::super::{Effect, Settings, TABLE, check, load, reference, sample};
use super::{toml, toml_problems};
use std::path::{Path, PathBuf};

/// The settings of PgBouncer 1.26.
const PGBOUNCERS: &str = "\
    admin_users application_name_add_host auth_dbname auth_file auth_hba_file auth_ident_file auth_ldap_options auth_query \
    auth_type auth_user autodb_idle_timeout cancel_wait_timeout client_idle_timeout client_login_timeout client_tls13_ciphers \
    client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams client_tls_ecdhcurve client_tls_key_file \
    client_tls_protocols client_tls_sslmode conffile default_pool_size disable_pqexec dns_max_ttl dns_nxdomain_ttl \
    dns_zone_check_period idle_transaction_timeout ignore_startup_parameters job_name listen_addr listen_backlog listen_port \
    log_connections log_disconnections log_pooler_errors log_stats logfile login_notify_message max_client_conn \
    max_db_client_connections max_db_connections max_packet_size max_prepared_statements max_user_client_connections \
    max_user_connections min_pool_size peer_id pidfile pkt_buf pool_mode pool_idle_timeout query_timeout query_wait_notify \
    query_wait_timeout reserve_pool_size reserve_pool_timeout resolv_conf sbuf_loopcnt scram_iterations server_check_delay \
    server_check_query server_connect_timeout server_fast_close server_idle_timeout server_lifetime server_login_retry \
    server_reset_query server_reset_query_always server_round_robin server_tls13_ciphers server_tls_ca_file server_tls_cert_file \
    server_tls_ciphers server_tls_key_file server_tls_protocols server_tls_sslmode so_reuseport stats_period stats_users \
    suspend_timeout syslog syslog_facility syslog_ident tcp_defer_accept tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl \
    tcp_socket_buffer tcp_user_timeout track_extra_parameters transaction_timeout unix_socket_dir unix_socket_group \
    unix_socket_mode user verbose";

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

#[test]
fn the_settings_of_our_own_are_listed_and_none_of_pgbouncers_is_missing() {
    let text = std::fs::read_to_string(in_repository("docs/differences.md")).unwrap();
    let (_, list) = text.split_once("Settings that PgBouncer does not have:").unwrap();
    let (list, _) = list.split_once('.').unwrap();
    let listed = list.split(',').map(|name| name.trim().trim_matches('`'));
    let mut expected: Vec<&str> = listed.chain(PGBOUNCERS.split_whitespace()).collect();
    let mut names: Vec<&str> = TABLE.iter().map(|setting| setting.name).collect();
    expected.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, expected);
}
