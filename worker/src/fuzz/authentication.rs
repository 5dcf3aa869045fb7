//! What logins are decided by: SCRAM between two ends of ours with somebody in between, verifiers, and what LDAP servers are asked.

use shared::auth::ldap::{Search, Way};
use shared::auth::scram::{Binding, ClientExchange, Keys, ServerExchange, Verifier};
use shared::auth::{LdapOptions, Password, Secret};
use std::sync::Arc;

/// The first zero byte ends a stored secret. What follows are changes to the messages of a login with the right password: which one, by what, where, and
/// with which byte.
pub fn scram(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    verifier(&String::from_utf8_lossy(&data[..end]));
    let changes = data.get(end + 1..).unwrap_or_default();
    let sent = |which: u8, message: &[u8]| {
        let mut arrived = message.to_vec();
        changes.chunks_exact(3).filter(|change| change[0] & 3 == which).for_each(|change| alter(&mut arrived, change));
        arrived
    };
    let endpoint: Arc<[u8]> = Arc::from([0xa5; 32]);
    login(None, Binding::Unable, sent);
    login(Some(endpoint.clone()), Binding::EndPoint(endpoint), sent);
}

fn login(endpoint: Option<Arc<[u8]>>, binding: Binding, sent: impl Fn(u8, &[u8]) -> Vec<u8>) {
    let mut server = ServerExchange::start(Verifier::derive(PASSWORD, SALT, 1), [7; 18], endpoint);
    let mut client = ClientExchange::new(PASSWORD, [9; 18]).bound(binding);
    let first = client.first();
    let first_arrived = sent(0, &first);
    let Ok(challenge) = server.client_first(client.binding().mechanism().as_bytes(), &first_arrived) else { return };
    let challenge_arrived = sent(1, &challenge);
    let Ok(asked) = client.challenge(&challenge_arrived) else { return };
    let keys = Keys::derive(PASSWORD, &asked.salt, asked.iterations.min(2));
    let Ok(proof) = client.answer(&keys) else { return };
    let proof_arrived = sent(2, &proof);
    let unchanged = (first_arrived, challenge_arrived, &proof_arrived) == (first, challenge, &proof);
    let accepted = server.client_final(&proof_arrived);
    assert_eq!(accepted.is_ok(), unchanged, "a login with changes to it is let in, or one without is not");
    let Ok(accepted) = accepted else { return };
    assert!(server.client_final(&proof_arrived).is_err(), "a proof counts twice");
    let signature = sent(3, &accepted.server_final);
    // Extensions may follow it.
    let is_whole = signature.strip_prefix(&accepted.server_final[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b',');
    assert!(client.server_final(&signature).is_err() || is_whole, "a server with another signature is believed");
}

const PASSWORD: &[u8] = b"secret";
const SALT: &[u8] = b"0123456789abcdef";

fn alter(message: &mut Vec<u8>, change: &[u8]) {
    let at = usize::from(change[1]) % (message.len() + 1);
    match change[0] >> 2 & 3 {
        0 if at < message.len() => message[at] ^= change[2],
        1 => message.insert(at, change[2]),
        2 if at < message.len() => drop(message.remove(at)),
        _ => message.truncate(at),
    }
}

/// A text is a SCRAM secret to everybody or to nobody, and none lets in who does not know the password.
fn verifier(text: &str) {
    let secret = Secret::parse(text);
    assert_eq!(secret.expose(), text);
    let verifier = Verifier::from_secret(text);
    assert_eq!(verifier.is_ok(), matches!(secret, Secret::Scram(_)), "{text}");
    if let Ok(verifier) = verifier {
        assert!(!verifier.is_of(&Keys::derive(PASSWORD, &verifier.salt, 1)), "{text}");
    }
}

/// The options of the ldap method, which the first zero byte ends, and a user's name.
pub fn ldap(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (options, user) = text.split_once('\0').unwrap_or((&text, ""));
    name_in_a_dn(user);
    let Ok(options) = LdapOptions::parse(options) else { return };
    let shown = LdapOptions::parse(options.shown()).expect("options that show are options");
    assert_eq!(shown.shown(), options.shown());
    let known = |options: &LdapOptions| (options.servers.clone(), options.port, options.security, without_password(&options.way));
    assert_eq!(known(&shown), known(&options));
    match options.way {
        Way::Bind { prefix, suffix } => {
            if let Ok(name) = Way::bind_name(&prefix, &suffix, user) {
                assert!(name.starts_with(&prefix) && name.ends_with(&suffix), "{name}");
            }
        }
        Way::Search(search) => {
            if let Ok(filter) = search.filter("joe") {
                let hostile = search.filter(user);
                assert!(hostile.is_err() || brackets(&hostile.unwrap_or_default()) == brackets(&filter), "{user} in {filter}");
            }
        }
    }
}

fn without_password(way: &Way) -> Way {
    match way {
        Way::Search(search) => Way::Search(Search { bind_password: Password::default(), ..search.clone() }),
        Way::Bind { .. } => way.clone(),
    }
}

/// Inside a distinguished name every user's name stays one value, and the same (RFC 4514).
fn name_in_a_dn(user: &str) {
    let Ok(name) = Way::bind_name("uid=", ",dc=x", user) else { return assert!(user.contains('\0')) };
    let value = name.strip_prefix("uid=").and_then(|rest| rest.strip_suffix(",dc=x")).expect("what stands around it");
    assert_eq!(unescape(value).as_deref(), Some(user), "{name}");
}

/// `None`: the value ends before the text does, or does not begin with it.
fn unescape(value: &str) -> Option<String> {
    if value.starts_with([' ', '#']) {
        return None;
    }
    let (mut out, mut letters) = (String::new(), value.chars());
    while let Some(c) = letters.next() {
        match c {
            '\\' => match letters.next()? {
                high if high.is_ascii_hexdigit() => {
                    let code = high.to_digit(16)? * 16 + letters.next()?.to_digit(16)?;
                    out.push(char::from_u32(code)?);
                }
                escaped => out.push(escaped),
            },
            ',' | '+' | '"' | '<' | '>' | ';' | '=' => return None,
            // The last one would be cut off.
            ' ' if letters.as_str().is_empty() => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// What gives a filter its form.
fn brackets(filter: &str) -> Vec<char> {
    filter.chars().filter(|c| matches!(c, '(' | ')' | '*' | '\0')).collect()
}
