//! Of the certificates that a peer sends beside its own, those that may lead from it to an authority.
//!
//! webpki tries every path through all that it is given, and a peer need not have proven anything yet to keep it busy for half a minute. So it is
//! given few: at most two of one name, for an authority that has renewed its key, and as many in all as a path may have.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// How many certificates are looked at, whatever is sent.
pub(super) const MOST_READ: usize = 16;

/// How many are taken: the most that webpki lets stand between a peer's certificate and an authority's.
const MOST: usize = 6;

const MOST_OF_A_NAME: usize = 2;

/// The certificates above `leaf`, its issuer's first.
pub(super) fn above<'a>(leaf: &EndEntityCert<'a>, others: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    // Read as if they were ends' themselves: what is not asked of one here, webpki asks of it in its place.
    let read: Vec<_> = others.iter().take(MOST_READ).filter_map(|der| EndEntityCert::try_from(der).ok()).collect();
    let mut names = vec![leaf.issuer()];
    let mut chosen: Vec<CertificateDer<'a>> = Vec::new();
    let mut at = 0;
    while let Some(&name) = names.get(at) {
        let mut of_this_name = 0;
        for issuer in read.iter().filter(|certificate| certificate.subject() == name) {
            if chosen.len() < MOST && of_this_name < MOST_OF_A_NAME && !chosen.contains(&issuer.der()) {
                chosen.push(issuer.der());
                of_this_name += 1;
                if !names.contains(&issuer.issuer()) {
                    names.push(issuer.issuer());
                }
            }
        }
        at += 1;
    }
    chosen
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    /// A certificate for `subject` in the name of `issuer`, and with a key, of its own.
    fn issued(subject: &str, issuer: &str) -> CertificateDer<'static> {
        let named = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.remove(DnType::CommonName);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let issuer = Issuer::new(named(issuer), KeyPair::generate().unwrap());
        named(subject).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
    }

    #[test]
    fn a_path_is_taken_in_whatever_order_it_is_sent() {
        let leaf = issued("leaf", "1");
        let mut path: Vec<_> = (1..=6).map(|n: u8| issued(&n.to_string(), &(n + 1).to_string())).collect();
        let sent: Vec<_> = path.iter().rev().chain([&leaf, &issued("junk", "junk"), &path[2]]).cloned().collect();
        let leaf = EndEntityCert::try_from(&leaf).unwrap();
        assert_eq!(above(&leaf, &sent), path);
        let renewed = issued("1", "2");
        path.insert(1, renewed);
        path.truncate(4);
        assert_eq!(above(&leaf, &path), path);
        assert!(above(&leaf, &[]).is_empty());
    }

    #[test]
    fn no_more_is_taken_than_a_path_may_need() {
        let leaf = issued("leaf", "1");
        let leaf = EndEntityCert::try_from(&leaf).unwrap();
        let of_one_name: Vec<_> = (0..MOST_READ).map(|_| issued("1", "1")).collect();
        assert_eq!(above(&leaf, &of_one_name), of_one_name[..2]);
        let level = |n: u8| std::iter::repeat_with(move || issued(&n.to_string(), &(n + 1).to_string())).take(3);
        let on_levels: Vec<_> = (1..=5).flat_map(level).collect();
        assert_eq!(above(&leaf, &on_levels).len(), MOST);
        let behind_junk: Vec<_> = (0..MOST_READ).map(|_| issued("j", "j")).chain([issued("1", "2")]).collect();
        assert!(above(&leaf, &behind_junk).is_empty());
    }
}
