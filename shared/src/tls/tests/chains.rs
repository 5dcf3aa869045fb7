//! Certificates that libpq's and OpenSSL's users have: what must be taken, and what must be refused all the same.

#![allow(clippy::unwrap_used)]
use super::certificates::{Authority, Identity, named, self_signed};
use super::contexts::{call, meets_client};
use crate::tls::HandshakeError;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::CertificateError;
use std::time::Duration;

/// Made by OpenSSL, since rcgen makes none of version 1: see `v1.sh` beside them.
const V1_AUTHORITY: &str = include_str!("v1/ca.pem");
const V1_AUTHORITY_KEY: &str = include_str!("v1/ca.key");
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

/// It shows its issuer's certificate too.
fn behind(identity: Identity, issuer: &str) -> Identity {
    Identity { certificate: [identity.certificate.as_str(), issuer].concat(), ..identity }
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
    assert!(full(&behind(leaf.clone(), &issued), &root.certificate, "db"));
    assert!(!full(&leaf, &root.certificate, "db"));
    let plain = behind(between.issues(&named("db", &["db"])), &issued);
    assert!(full(&plain, &root.certificate, "db"));
    // A certificate that is no authority's cannot issue one, whatever it signs.
    let (impostor, its_own) = root.issues_issuer(named("impostor", &[]));
    let forged = behind(impostor.issues(&authority(named("db", &["db"]))), &its_own);
    assert!(!full(&forged, &root.certificate, "db"));
}

#[test]
fn an_authority_whose_time_is_over_is_none() {
    let old = Authority::of(expired(authority(named("old", &[]))));
    assert!(!full(&old.issues(&named("db", &["db"])), &old.certificate, "db"));
    assert!(!full(&old.issues(&authority(named("db", &["db"]))), &old.certificate, "db"));
}

/// Whoever was trusted as himself could issue certificates for everybody else. `openssl verify` says the same of
/// all that is issued here.
#[test]
fn whoever_is_trusted_is_not_an_authority_for_that() {
    let constrained = |most| IsCa::Ca(BasicConstraints::Constrained(most));
    let signs = vec![KeyUsagePurpose::KeyCertSign];
    let does_not = vec![KeyUsagePurpose::DigitalSignature];
    for (is_ca, usages, directly, below) in [
        (IsCa::NoCa, vec![], false, false),
        (IsCa::NoCa, does_not.clone(), false, false),
        (IsCa::NoCa, signs.clone(), true, true),
        (IsCa::ExplicitNoCa, vec![], false, false),
        (IsCa::ExplicitNoCa, signs.clone(), false, false),
        (IsCa::Ca(BasicConstraints::Unconstrained), does_not, false, false),
        (IsCa::Ca(BasicConstraints::Unconstrained), signs, true, true),
        (constrained(0), vec![], true, false),
        (constrained(1), vec![], true, true),
    ] {
        let mut params = named("alice", &["db"]);
        (params.is_ca, params.key_usages) = (is_ca, usages);
        let alice = Authority::of(params.clone());
        let (between, issued) = alice.issues_authority("between");
        for bob in [named("bob", &["db"]), authority(named("bob", &["db"]))] {
            let by_alice = alice.issues(&bob);
            assert_eq!(meets_client(&by_alice, &alice.certificate).is_ok(), directly, "{params:?}");
            assert_eq!(full(&by_alice, &alice.certificate, "db"), directly, "{params:?}");
            let by_between = behind(between.issues(&bob), &issued);
            assert_eq!(meets_client(&by_between, &alice.certificate).is_ok(), below, "{params:?}");
            assert_eq!(full(&by_between, &alice.certificate, "db"), below, "{params:?}");
        }
        let alice = self_signed(&params);
        assert!(full(&alice, &alice.certificate, "db"), "{params:?}");
        assert!(meets_client(&alice, &alice.certificate).unwrap().peer_names().unwrap().is_user("alice"));
    }
}

/// An authority's extended key usage is what its certificates may be used for.
#[test]
fn an_authority_serves_a_purpose_or_does_not() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, EmailProtection, ServerAuth};
    for (purposes, clients, servers) in [
        (vec![EmailProtection], false, false),
        (vec![Any], false, false),
        (vec![ClientAuth], true, false),
        (vec![ServerAuth], false, true),
        (vec![ClientAuth, ServerAuth], true, true),
    ] {
        let mut params = authority(named("purposeful", &[]));
        params.extended_key_usages = purposes;
        let (root, itself) = (Authority::new("root"), Authority::of(params.clone()));
        let (between, issued) = root.issues_issuer(params.clone());
        for bob in [named("bob", &["db"]), authority(named("bob", &["db"]))] {
            let (direct, below) = (itself.issues(&bob), behind(between.issues(&bob), &issued));
            for (identity, trusted) in [(direct, &itself), (below, &root)] {
                assert_eq!(meets_client(&identity, &trusted.certificate).is_ok(), clients, "{params:?}");
                assert_eq!(full(&identity, &trusted.certificate, "db"), servers, "{params:?}");
            }
        }
    }
}

#[test]
fn an_intermediate_that_may_not_sign_has_not_signed() {
    let root = Authority::new("root");
    let mut params = authority(named("between", &[]));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let (between, issued) = root.issues_issuer(params);
    for bob in [named("bob", &["db"]), authority(named("bob", &["db"]))] {
        let bob = behind(between.issues(&bob), &issued);
        assert!(!full(&bob, &root.certificate, "db") && meets_client(&bob, &root.certificate).is_err());
    }
}

/// A certificate of version 1 says nothing: signed by itself it is an authority where it is trusted, signed by another it is none.
#[test]
fn version_1_is_an_authority_if_it_is_trusted_and_its_own() {
    let issuer = |name: &str, key: &str| Issuer::new(named(name, &[]), KeyPair::from_pem(key).unwrap());
    let (root, leaf) = (issuer("v1 authority", V1_AUTHORITY_KEY), issuer("db.example.org", V1_KEY));
    for bob in [named("bob", &["db"]), authority(named("bob", &["db"]))] {
        for (issuer, trusted, accepted) in [(&root, V1_AUTHORITY, true), (&leaf, V1_LEAF, false)] {
            let key = KeyPair::generate().unwrap();
            let bob = Identity { certificate: bob.signed_by(&key, issuer).unwrap().pem(), key: key.serialize_pem() };
            assert_eq!(full(&bob, trusted, "db"), accepted);
            assert_eq!(meets_client(&bob, trusted).is_ok(), accepted);
        }
    }
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
        for outcome in [meets_client(&identity, &root.certificate), call(&identity, &root.certificate, "verify-full", "db")] {
            assert_eq!(outcome, Err(HandshakeError::Tls(CertificateError::UnknownIssuer.into())));
        }
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
