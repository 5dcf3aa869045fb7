//! Sessions begun at one worker and resumed at another.

#![allow(clippy::unwrap_used)]
use super::certificates::{Authority, Identity, files, named, settings};
use crate::config::Config;
use crate::shm::Shm;
use crate::tls::{Acceptor, Agreed, HandshakeError, Progress, Tickets};
use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// A client that keeps tickets, as OpenSSL's do; it has a certificate.
fn client(authority: &Authority, version: &'static SupportedProtocolVersion, identity: &Identity) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap())
}

fn connect(client: &Arc<ClientConfig>, acceptor: &Acceptor) -> Result<Agreed, HandshakeError> {
    let mut peer = ClientConnection::new(Arc::clone(client), ServerName::try_from("db").unwrap()).unwrap();
    let mut handshake = Some(acceptor.accept()?);
    let mut agreed = None;
    for _ in 0..10 {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        while peer.wants_write() {
            peer.write_tls(&mut bytes).unwrap();
        }
        match handshake.take().map(|handshake| handshake.advance(&bytes, &mut out)) {
            Some(Ok(Progress::Pending(next))) => handshake = Some(next),
            Some(Ok(Progress::Done(established))) => agreed = Some(established.agreed),
            Some(Err(error)) => return Err(error),
            None => {}
        }
        let mut rest = &out[..];
        while !rest.is_empty() {
            peer.read_tls(&mut rest).unwrap();
            peer.process_new_packets().unwrap();
            let _ = peer.reader().read(&mut [0; 100]);
        }
    }
    agreed.ok_or(HandshakeError::Closed)
}

/// Makes workers of a fleet, by settings and authorities.
fn workers(shm: &Shm, authority: &Authority) -> impl Fn(&[(&str, &str)], &str) -> Acceptor {
    let host = authority.issues(&named("", &["db"]));
    shm.ticket_keys().add(&Tickets::new_key().unwrap());
    let shm = shm.clone();
    move |values, authorities| {
        let files = files(Some(authorities), Some(&host));
        let config = Config { settings: settings(values), client_tls: files, ..Config::default() };
        let tickets = Arc::new(Tickets::new(shm.clone(), &config));
        Acceptor::new(&config.settings, &config.client_tls, Some(tickets)).unwrap().unwrap()
    }
}

#[test]
fn every_worker_resumes_what_another_began_until_the_terms_change() {
    let authority = Authority::new("authority");
    let shm = Shm::create().unwrap().0;
    let worker = workers(&shm, &authority);
    let alice = authority.issues(&named("alice", &[]));
    for version in [&version::TLS12, &version::TLS13] {
        let client = client(&authority, version, &alice);
        let (one, other) = (worker(&[], &authority.certificate), worker(&[], &authority.certificate));
        assert!(!connect(&client, &one).unwrap().resumed);
        let again = connect(&client, &other).unwrap();
        assert!(again.resumed && again.peer_names().unwrap().is_user("alice"), "{version:?}");
        shm.ticket_keys().add(&Tickets::new_key().unwrap());
        assert!(connect(&client, &one).unwrap().resumed, "the key before the newest is good");
        let strict = worker(&[("client_tls_sslmode", "verify-full")], &authority.certificate);
        assert!(!connect(&client, &strict).unwrap().resumed, "what it has shown was looked at by other rules");
        let elsewhere = worker(&[("client_tls_sslmode", "verify-full")], &Authority::new("x").certificate);
        assert!(connect(&client, &elsewhere).is_err());
    }
}

/// A session that is gone on with leaves a ticket like any other: it would have outlived every certificate but the client's own.
#[test]
fn no_session_outlives_what_it_was_verified_by() {
    let authority = Authority::new("authority");
    let mut params = named("between", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2100, 1, 1);
    let (between, issued) = authority.issues_issuer(params);
    let alice = between.issues(&named("alice", &[]));
    let alice = Identity { certificate: [alice.certificate.as_str(), &issued].concat(), ..alice };
    let worker = workers(&Shm::create().unwrap().0, &authority)(&[], &authority.certificate);
    let in_year = |year| worker.at(Arc::new(At(date_time_ymd(year, 1, 1).unix_timestamp().unsigned_abs())));
    for version in [&version::TLS12, &version::TLS13] {
        let client = client(&authority, version, &alice);
        assert!(!connect(&client, &worker).unwrap().resumed);
        assert!(connect(&client, &in_year(2099)).unwrap().resumed);
        let refused = connect(&client, &in_year(2101)).unwrap_err();
        assert_eq!(refused, HandshakeError::Tls(CertificateError::Expired.into()), "{version:?}");
    }
}

#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}
