//! Cipher lists, protocols and curves as OpenSSL's users write them, and what of it there is here: AEAD suites with forward secrecy.

use super::handshake::cipher_name;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, DEFAULT_KX_GROUPS, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// The TLS 1.2 suites that a list in OpenSSL's notation (ciphers(1)) selects, in its order. As there, names that are not known select
/// nothing. `None`: nothing is left.
pub(super) fn tls12_suites(list: &str) -> Option<Vec<SupportedCipherSuite>> {
    let known: Vec<_> = ALL_CIPHER_SUITES.iter().copied().filter(|suite| suite.tls13().is_none()).collect();
    if matches!(list.to_ascii_lowercase().as_str(), "" | "default" | "secure" | "normal" | "fast") {
        return Some(known);
    }
    let mut selected: Vec<SupportedCipherSuite> = Vec::new();
    let mut banned: Vec<SupportedCipherSuite> = Vec::new();
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let (action, names) = match word.as_bytes()[0] {
            b'!' | b'-' | b'+' => (word.as_bytes()[0], &word[1..]),
            _ => (b' ', word),
        };
        let meant = |suite: &SupportedCipherSuite| names.split('+').all(|name| is_called(*suite, name));
        match action {
            b'!' | b'-' => {
                selected.retain(|suite| !meant(suite));
                if action == b'!' {
                    banned.extend(known.iter().filter(|suite| meant(suite)));
                }
            }
            b'+' => {
                let (moved, kept) = selected.into_iter().partition(|suite| meant(suite));
                selected = kept;
                selected.extend::<Vec<_>>(moved);
            }
            _ => {
                let more = known.iter().filter(|suite| meant(suite) && !selected.contains(suite) && !banned.contains(suite));
                let more: Vec<_> = more.copied().collect();
                selected.extend(more);
            }
        }
    }
    (!selected.is_empty()).then_some(selected)
}

/// Whether a suite is `name`, or belongs to those that OpenSSL calls by that name.
fn is_called(suite: SupportedCipherSuite, name: &str) -> bool {
    let own = cipher_name(suite.suite());
    match name {
        "ALL" | "DEFAULT" | "HIGH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "TLSv1.2" | "FIPS" => true,
        "aRSA" | "RSA" if name == "aRSA" => own.contains("-RSA-"),
        "aECDSA" | "ECDSA" => own.contains("-ECDSA-"),
        "AES" => own.contains("-AES"),
        "AESGCM" => own.contains("-GCM-"),
        "AES128" => own.contains("AES128"),
        "AES256" => own.contains("AES256"),
        "CHACHA20" => own.contains("CHACHA20"),
        "SHA256" => own.ends_with("SHA256"),
        "SHA384" => own.ends_with("SHA384"),
        name => own == name || format!("{:?}", suite.suite()).eq_ignore_ascii_case(name),
    }
}

/// The TLS 1.3 suites of a list of names, in its order. The error says which name no such suite has.
pub(super) fn tls13_suites(list: Option<&str>) -> Result<Vec<SupportedCipherSuite>, String> {
    let known = || ALL_CIPHER_SUITES.iter().copied().filter(|suite| suite.tls13().is_some());
    match list {
        None | Some("") => Ok(known().collect()),
        Some(list) => list
            .split(':')
            .map(|name| {
                known().find(|suite| cipher_name(suite.suite()) == name).ok_or_else(|| format!("unknown cipher suite: {name}"))
            })
            .collect(),
    }
}

/// The protocols of a list: words separated by `,` or `:`, each perhaps with a `!` in front. The error is a word that means nothing, or
/// what is left over, which is nothing.
pub(super) fn protocols(list: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let (mut tls12, mut tls13) = (false, false);
    for word in list.split([',', ':']).map(str::trim) {
        let (on, name) = word.strip_prefix('!').map_or((true, word), |name| (false, name.trim()));
        match name.to_ascii_lowercase().as_str() {
            // All of TLS 1 stands for what there is of it.
            "all" | "default" | "secure" | "tlsv1" => (tls12, tls13) = (on, on),
            "tlsv1.2" => tls12 = on,
            "tlsv1.3" => tls13 = on,
            // There are none of these any more.
            "tlsv1.0" | "tlsv1.1" => {}
            _ => return Err(format!("unknown protocol: {name}")),
        }
    }
    let chosen = [(tls13, &TLS13), (tls12, &TLS12)];
    let chosen: Vec<_> = chosen.into_iter().filter(|(on, _)| *on).map(|(_, version)| version).collect();
    if chosen.is_empty() { Err("neither TLSv1.2 nor TLSv1.3 is left".to_owned()) } else { Ok(chosen) }
}

/// The key exchanges of `client_tls_ecdhcurve`. The error is a curve that there is not.
pub(super) fn curves(name: &str) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let group: &'static dyn SupportedKxGroup = match name.to_ascii_lowercase().as_str() {
        "auto" | "none" | "" => return Ok(DEFAULT_KX_GROUPS.to_vec()),
        "x25519" => kx_group::X25519,
        "prime256v1" | "secp256r1" | "p-256" => kx_group::SECP256R1,
        "secp384r1" | "p-384" => kx_group::SECP384R1,
        _ => return Err(format!("unknown curve: {name}")),
    };
    Ok(vec![group])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(list: &str) -> Option<Vec<&'static str>> {
        Some(tls12_suites(list)?.into_iter().map(|suite| cipher_name(suite.suite())).collect())
    }

    #[test]
    fn lists_of_openssl_select_what_there_is() {
        assert_eq!(names("default").unwrap().len(), 6);
        assert_eq!(names("HIGH:!aNULL").unwrap().len(), 6);
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-SHA").unwrap(),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
        assert_eq!(names("ECDHE+AESGCM+aRSA:!AES128").unwrap(), ["ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(names("ALL:!AES:+aRSA:@STRENGTH").unwrap(), ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"]);
        assert_eq!(names("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap(), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!((names("DES-CBC3-SHA"), names("!ALL"), names("aNULL")), (None, None, None));
    }

    #[test]
    fn tls13_suites_are_named() {
        assert_eq!(tls13_suites(None).unwrap().len(), 3);
        let two = tls13_suites(Some("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(tls13_suites(Some("TLS_AES_128_CCM_SHA256")).unwrap_err(), "unknown cipher suite: TLS_AES_128_CCM_SHA256");
    }

    #[test]
    fn protocols_are_added_and_taken_away() {
        let count = |list| protocols(list).map(|versions| versions.len());
        assert_eq!((count("secure"), count("all"), count("tlsv1.2"), count("secure:!tlsv1.2")), (Ok(2), Ok(2), Ok(1), Ok(1)));
        assert_eq!(protocols("tlsv1.3").unwrap(), [&TLS13]);
        assert!(protocols("legacy").is_err() && protocols("tlsv1.0").is_err() && protocols("all,!all").is_err());
    }

    #[test]
    fn curves_by_their_usual_names() {
        assert!(curves("auto").unwrap().len() >= 3);
        assert_eq!(curves("prime256v1").unwrap().len(), 1);
        assert!(curves("sect571r1").is_err());
    }
}
