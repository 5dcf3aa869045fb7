//! Tickets by which a client resumes its session at any worker.
//!
//! A ticket is the session, sealed with the fleet's key; it holds the client's certificate too, as verified when the session began. So it
//! is bound to what that was verified by: under another configuration of client authentication it is nothing, and the client is looked at
//! anew, whichever worker has made it and when. Nor is it anything when we have another certificate ourselves: the client would bind its login
//! to the one that it was shown.

use crate::config::Config;
use crate::shm::{Shm, TicketKey};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use rustls::server::ProducesTickets;
use std::fmt;
use std::time::Duration;

/// How often the supervisor makes a new key. A ticket is good for as long as its key, and for as long again.
pub const ROTATION: Duration = Duration::from_secs(6 * 60 * 60);

/// A session that would make a longer one is not resumed: its client's certificates are in it, and whole in what the client begins with.
pub(super) const LONGEST_TICKET: usize = 12 * 1024;

const NAME: usize = 16;

/// See the module.
pub struct Tickets {
    shm: Shm,
    /// What tickets are bound to.
    terms: Vec<u8>,
}

impl Tickets {
    /// Those of the fleet with this shared memory, under this configuration.
    pub fn new(shm: Shm, config: &Config) -> Self {
        Self { shm, terms: terms(config) }
    }

    /// A new key, by random bytes. `None`: there are none.
    pub fn new_key() -> Option<TicketKey> {
        let mut key = TicketKey { name: [0; NAME], secret: [0; 32] };
        aws_lc_rs::rand::fill(&mut key.name).ok()?;
        aws_lc_rs::rand::fill(&mut key.secret).ok()?;
        Some(key)
    }

    fn aad(&self, name: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([name, &self.terms].concat())
    }
}

/// A hash of all that decides whether a client's certificate is right, and what it is good for, and of our own certificate.
fn terms(config: &Config) -> Vec<u8> {
    let settings = &config.settings;
    let [authorities, shown] =
        [&config.client_tls.authorities, &config.client_tls.certificate].map(|f| f.as_ref().map(super::Pem::expose));
    let parts = (settings.client_tls_sslmode, authorities, shown, settings.auth_type, &config.access);
    // What cannot be written down is bound to this generation alone.
    let bytes = postcard::to_stdvec(&parts).unwrap_or_else(|_| config.generation.to_le_bytes().to_vec());
    digest::digest(&digest::SHA256, &bytes).as_ref().to_vec()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        ROTATION.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if NAME + NONCE_LEN + plain.len() + AES_256_GCM.tag_len() > LONGEST_TICKET {
            return None;
        }
        let [newest, _] = self.shm.ticket_keys().read()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &newest.secret).ok()?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(self.aad(&newest.name), &mut sealed).ok()?;
        Some([&newest.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.shm.ticket_keys().read()?;
        let key = keys.iter().find(|key| key.name == name)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key.secret).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = key.open_in_place(nonce, self.aad(name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::SslMode;

    #[test]
    fn a_ticket_is_good_at_every_worker_for_two_keys() {
        let (shm, fd) = Shm::create().unwrap();
        let config = Config::default();
        let one = Tickets::new(shm.clone(), &config);
        let other = Tickets::new(Shm::open(std::os::fd::AsFd::as_fd(&fd)).unwrap(), &config);
        assert!(one.encrypt(b"session").is_none(), "no key yet");
        let rotate = || shm.ticket_keys().add(&Tickets::new_key().unwrap());
        rotate();
        assert!(one.encrypt(&[0; LONGEST_TICKET]).is_none());
        assert!(one.encrypt(&[0; LONGEST_TICKET - 44]).is_some_and(|ticket| ticket.len() == LONGEST_TICKET));
        let ticket = one.encrypt(b"session").unwrap();
        assert_ne!(ticket, one.encrypt(b"session").unwrap());
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        rotate();
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        rotate();
        assert_eq!(other.decrypt(&ticket), None);
    }

    #[test]
    fn what_is_not_a_ticket_of_these_terms_is_nothing() {
        let shm = Shm::create().unwrap().0;
        shm.ticket_keys().add(&Tickets::new_key().unwrap());
        let mut config = Config::default();
        let tickets = Tickets::new(shm.clone(), &config);
        let ticket = tickets.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
            let mut other = ticket.clone();
            other[length] ^= 1;
            assert_eq!(tickets.decrypt(&other), None);
        }
        let mut renewed = config.clone();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cert.pem");
        std::fs::write(&file, "another certificate").unwrap();
        renewed.client_tls.certificate = Some(crate::tls::Pem::read(&file).unwrap());
        assert_eq!(Tickets::new(shm.clone(), &renewed).decrypt(&ticket), None);
        config.settings.client_tls_sslmode = SslMode::VerifyFull;
        assert_eq!(Tickets::new(shm, &config).decrypt(&ticket), None);
    }
}
