//! Certificates that libpq's and OpenSSL's users have: what must be taken, and what must be refused all the same.

#![allow(clippy::unwrap_used)]
use super::certificates::{Authority, Identity, named, self_signed};
use super::contexts::{call, meets_client};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use std::time::Duration;

/// Made by OpenSSL, since rcgen makes none of version 1: see `v1.sh` beside them.
const V1_AUTHORITY: &str = include_str!("v1/ca.pem");
const V1_LEAF: &str = include_str!("v1/leaf.pem");
const V1_KEY: &str = include_str!("v1/leaf.key");

fn full(identity: &Identity, authorities: &str, host: &str) -> bool {
    call(identity, authorities, "verify-full", host).is_ok()
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_after = date_time_ymd(2001, 1, 1);
    params
}

fn authority(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[test]
fn a_common_name_is_enough_where_there_is_no_alternative() {
    let authority = Authority::new("authority");
    let common = authority.issues(&named("db.example.org", &[]));
    assert!(full(&common, &authority.certificate, "db.example.org"));
    assert!(!full(&common, &authority.certificate, "other.example.org"));
    let both = authority.issues(&named("db.example.org", &["other.example.org"]));
    assert!(!full(&both, &authority.certificate, "db.example.org"));
    let address = authority.issues(&named("", &["127.0.0.1"]));
    assert!(full(&address, &authority.certificate, "127.0.0.1") && !full(&address, &authority.certificate, "127.0.0.2"));
    let common_address = authority.issues(&named("127.0.0.1", &[]));
    assert!(full(&common_address, &authority.certificate, "127.0.0.1"));
}

#[test]
fn a_self_signed_certificate_is_its_own_authority() {
    for params in [named("db", &[]), authority(named("db", &["db"]))] {
        let identity = self_signed(&params);
        assert!(full(&identity, &identity.certificate, "db"));
        assert!(!full(&identity, &self_signed(&params).certificate, "db"), "one with the same name is another");
        assert!(!full(&identity, &Authority::new("x").certificate, "db"));
        let expired = self_signed(&expired(params));
        assert!(!full(&expired, &expired.certificate, "db"));
    }
}

#[test]
fn an_authoritys_certificate_may_be_a_servers() {
    let root = Authority::new("root");
    let server = root.issues(&authority(named("db", &["db"])));
    assert!(full(&server, &root.certificate, "db"));
    // Trusting it does not make it a root: it leads to one, or it does not.
    assert!(!full(&server, &server.certificate, "db"));
    assert!(!full(&server, &Authority::new("root").certificate, "db"));
    let mut clients_only = authority(named("db", &["db"]));
    clients_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert!(!full(&root.issues(&clients_only), &root.certificate, "db"));
    assert!(!full(&root.issues(&expired(authority(named("db", &["db"])))), &root.certificate, "db"));
}

#[test]
fn version_1_is_taken_with_its_authority() {
    let identity = Identity { certificate: V1_LEAF.to_owned(), key: V1_KEY.to_owned() };
    assert!(full(&identity, V1_AUTHORITY, "db.example.org"));
    assert!(!full(&identity, V1_AUTHORITY, "other.example.org"));
    assert!(!full(&identity, &Authority::new("v1 authority").certificate, "db.example.org"));
    assert!(call(&identity, V1_AUTHORITY, "require", "anything").is_ok());
    assert!(meets_client(&identity, V1_AUTHORITY).unwrap().peer_names().unwrap().is_user("db.example.org"));
    assert!(meets_client(&identity, &Authority::new("v1 authority").certificate).is_err());
}

#[test]
fn a_signature_that_was_changed_is_seen() {
    let mut der = pem_bytes(V1_LEAF);
    *der.last_mut().unwrap() ^= 1;
    let identity = Identity { certificate: pem_text(&der), key: V1_KEY.to_owned() };
    assert!(!full(&identity, V1_AUTHORITY, "db.example.org"));
}

#[test]
fn intermediates_are_shown_or_it_fails() {
    let root = Authority::new("root");
    let (between, issued) = root.issues_authority("between");
    let leaf = between.issues(&authority(named("db", &["db"])));
    let with = Identity { certificate: [leaf.certificate.as_str(), &issued].concat(), ..leaf.clone() };
    assert!(full(&with, &root.certificate, "db"));
    assert!(!full(&leaf, &root.certificate, "db"));
    let plain = between.issues(&named("db", &["db"]));
    let plain = Identity { certificate: [plain.certificate.as_str(), &issued].concat(), ..plain };
    assert!(full(&plain, &root.certificate, "db"));
    // A certificate that is no authority's cannot issue one, whatever it signs.
    let (impostor, its_own) = root.issues_issuer(named("impostor", &[]));
    let forged = impostor.issues(&authority(named("db", &["db"])));
    let forged = Identity { certificate: [forged.certificate.as_str(), &its_own].concat(), ..forged };
    assert!(!full(&forged, &root.certificate, "db"));
}

#[test]
fn an_authority_whose_time_is_over_is_none() {
    let old = Authority::of(expired(authority(named("old", &[]))));
    assert!(!full(&old.issues(&named("db", &["db"])), &old.certificate, "db"));
    assert!(!full(&old.issues(&authority(named("db", &["db"]))), &old.certificate, "db"));
}

/// So many authorities that have signed nothing, on six levels of the same few names, and some beside them: webpki would look for a path
/// through them for half a minute, whoever sends them.
#[test]
fn a_maze_of_certificates_is_no_work() {
    let root = Authority::new("root");
    let made_up = |subject: CertificateParams, issuer: &str| {
        let issuer = Authority::of(authority(named(issuer, &[])));
        issuer.issues(&subject)
    };
    let of_one_name = || (0..12).map(|_| made_up(authority(named("1", &[])), "1"));
    let on_levels = || {
        let level = |n: u32| std::iter::repeat_with(move || (n, n + 1)).take(7);
        let pairs = (1..=6).flat_map(level).map(|(subject, issuer)| (subject.to_string(), issuer.to_string()));
        let ways = pairs.map(|(subject, issuer)| made_up(authority(named(&subject, &[])), &issuer));
        ways.chain((0..60).map(|_| made_up(authority(named("j", &[])), "j")))
    };
    for maze in [of_one_name().collect::<Vec<_>>(), on_levels().collect()] {
        let leaf = made_up(named("bob", &["db"]), "1");
        let chain = maze.iter().map(|identity| identity.certificate.as_str());
        let identity = Identity { certificate: std::iter::once(leaf.certificate.as_str()).chain(chain).collect(), key: leaf.key };
        let start = cpu_time();
        assert!(meets_client(&identity, &root.certificate).is_err());
        assert!(!full(&identity, &root.certificate, "db"));
        let taken = cpu_time().saturating_sub(start);
        assert!(taken < Duration::from_millis(500), "{taken:?}");
    }
}

fn cpu_time() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn pem_bytes(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn pem_text(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
