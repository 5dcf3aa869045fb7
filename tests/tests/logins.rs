//! Every way to prove who one is, by every driver.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::tls::Authority;
use end_to_end::{Client, Fleet, Postgres, driver, program};
use std::process::Command;

/// Each driver's program, and what it is told before all else.
const DRIVERS: [(&str, &[&str]); 4] =
    [("login.py", &["psycopg"]), ("login.py", &["asyncpg"]), ("login.js", &[]), ("Login.java", &[])];

fn log_in((program, first): (&str, &[&str]), port: u16, arguments: &[&str]) -> String {
    driver::run(program, port, &[first, arguments].concat())
}

#[test]
fn passwords() {
    let server = Postgres::start();
    let verifier: String =
        server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0);
    for method in ["plain", "md5", "scram-sha-256"] {
        let fleet = Fleet::builder(&server)
            .workers(2)
            .setting("auth_type", method)
            .secret("scram_user", &verifier)
            .secret("plain_user", "plain-password")
            .start();
        for driver in DRIVERS {
            let logins = "plain_user:plain-password,scram_user:scram-password,plain_user:wrong";
            let said = log_in(driver, fleet.port(), &[logins, "disable"]);
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said[..2], ["plain_user clear", "scram_user clear"], "{method} {driver:?}");
            assert!(said[2].starts_with("refused"), "{method} {driver:?}: {said:?}");
        }
    }
}

/// A login by psql inside TLS, said as the drivers' programs say it.
fn log_in_by_psql(port: u16, user: &str, password: &str, files: &str) -> String {
    let url = format!("host=localhost port={port} user={user} password={password} dbname=app sslmode=verify-full {files}");
    match program::psql(&url, "select current_user") {
        Ok(user) => format!("{user} tls"),
        Err(error) => format!("refused {error}"),
    }
}

#[test]
fn passwords_inside_tls() {
    let (server, authority) = (Postgres::start(), Authority::new());
    let ca = authority.file("ca.crt").display().to_string();
    let verifier: String =
        server.admin().query_one("select rolpassword from pg_authid where rolname = 'scram_user'", &[]).unwrap().get(0);
    for method in ["plain", "md5", "scram-sha-256"] {
        let fleet = Fleet::builder(&server)
            .workers(2)
            .setting("auth_type", method)
            .client_tls(&authority, "require")
            .secret("scram_user", &verifier)
            .secret("plain_user", "plain-password")
            .start();
        for driver in DRIVERS {
            let logins = "plain_user:plain-password,scram_user:scram-password,plain_user:wrong,scram_user:wrong";
            let said = log_in(driver, fleet.port(), &[logins, "verify-full", &ca]);
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said[..2], ["plain_user tls", "scram_user tls"], "{method} {driver:?}");
            assert!(said[2..].iter().all(|said| said.starts_with("refused")), "{method} {driver:?}: {said:?}");
        }
        for (user, password, outcome) in
            [("plain_user", "plain-password", "plain_user tls"), ("scram_user", "scram-password", "scram_user tls")]
        {
            let psql = |password| log_in_by_psql(fleet.port(), user, password, &format!("sslrootcert={ca}"));
            assert_eq!(psql(password), outcome, "{method}");
            assert!(psql("wrong").contains("authentication failed"), "{method}");
        }
    }
}

#[test]
fn certificates() {
    let (server, authority) = (Postgres::start(), Authority::new());
    authority.sign("app", &[]);
    authority.sign("somebody", &[]);
    let file = |name: &str| authority.file(name).display().to_string();
    let fleet = Fleet::builder(&server)
        .workers(2)
        .setting("auth_type", "cert")
        .client_tls(&authority, "verify-full")
        .setting("client_tls_ca_file", file("ca.crt"))
        .start();
    for (name, outcome) in [("app", "app tls"), ("somebody", "refused")] {
        let (certificate, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        for driver in DRIVERS {
            let key = if driver.0.ends_with("java") { pkcs8(&authority, name) } else { key.clone() };
            let said = log_in(driver, fleet.port(), &["app:unasked", "verify-full", &file("ca.crt"), &certificate, &key]);
            assert!(said.starts_with(outcome), "{name} {driver:?}: {said}");
        }
        let files = format!("sslrootcert={} sslcert={certificate} sslkey={key}", file("ca.crt"));
        let said = log_in_by_psql(fleet.port(), "app", "unasked", &files);
        assert!(said.starts_with(outcome), "{name} psql: {said}");
    }
}

/// The key as JDBC wants it.
fn pkcs8(authority: &Authority, name: &str) -> String {
    let (pem, der) = (authority.file(&format!("{name}.key")), authority.file(&format!("{name}.pk8")));
    let arguments = ["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"];
    let status = Command::new("openssl").args(arguments).arg(pem).arg("-out").arg(&der).status().unwrap();
    assert!(status.success());
    der.display().to_string()
}

/// PostgreSQL asks for the fleet's own certificate, and for a password besides; over TLS, in both versions.
#[test]
fn servers_that_ask_for_a_certificate() {
    let authority = Authority::new();
    authority.sign("app", &[]);
    let file = |name: &str| authority.file(name).display().to_string();
    let hba = authority.file("pg_hba.conf");
    std::fs::write(
        &hba,
        "local all postgres trust\nhostssl all app all cert\nhostssl all scram_user all scram-sha-256 clientcert=verify-ca\n\
         hostssl all md5_user all md5\nhostnossl all all all reject\n",
    )
    .unwrap();
    let settings = format!("{}ssl_ca_file = '{}'\nhba_file = '{}'\n", authority.postgres("server"), file("ca.crt"), hba.display());
    for server in [Postgres::start_with(&settings), Postgres::start_newest(&settings)] {
        let fleet = Fleet::builder(&server)
            .workers(2)
            .server_tls(&authority, "verify-full")
            .setting("server_tls_cert_file", file("app.crt"))
            .setting("server_tls_key_file", file("app.key"))
            .database("*", format!("host=localhost port={}", server.port()))
            .secret("app", "unasked")
            .secret("scram_user", "scram-password")
            .secret("md5_user", "md5-password")
            .setting("auth_type", "scram-sha-256")
            .start();
        for (user, password) in [("app", "unasked"), ("scram_user", "scram-password"), ("md5_user", "md5-password")] {
            let mut client = Client::tcp(fleet.port());
            client.start(&[("user", user), ("database", "app")], Some(password)).unwrap();
            let sql = "select current_user || ' ' || coalesce(client_dn, '-') from pg_stat_ssl where pid = pg_backend_pid()";
            let dn = client.value(sql);
            assert_eq!(dn, format!("{user} /CN=app"), "whatever PostgreSQL makes of it, it has seen the certificate");
        }
    }
}
