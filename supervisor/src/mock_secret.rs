//! The secret from which the SCRAM salts of users who do not exist are made.
//!
//! A user's salt stays the same for years. If theirs were others after every start, whoever asks before and after would know who does not exist.
//! PostgreSQL makes such a secret with the cluster and keeps it there; a fleet keeps nothing, and so takes what is the machine's own.

use shared::auth::scram::Verifier;

const MACHINE_ID: &str = "/etc/machine-id";

/// The machine's; on one without an id, as most containers are, one that is as good until the fleet ends. The error says why there is none.
pub(crate) fn make() -> Result<[u8; 32], String> {
    let id = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    if let Some(secret) = of_machine(&id) {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(secret)
}

/// `None`: it is no id, as before a machine's first start is over.
fn of_machine(id: &str) -> Option<[u8; 32]> {
    let id = id.trim_end();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    is_id.then(|| Verifier::mock_secret_of(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_and_others_have_others() {
        let one = of_machine("0123456789abcdef0123456789abcdef\n");
        assert!(one.is_some());
        assert_eq!(one, of_machine("0123456789abcdef0123456789abcdef"));
        assert_ne!(one, of_machine("1123456789abcdef0123456789abcdef\n"));
    }

    #[test]
    fn what_is_no_id_counts_for_nothing() {
        for text in ["", "uninitialized\n", "00000000000000000000000000000000\n", "0123", "0123456789abcdef0123456789abcdeg\n"] {
            assert_eq!(of_machine(text), None, "{text}");
        }
    }
}
