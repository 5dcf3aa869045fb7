//! `cert`: a client is whom its TLS certificate names. That the certificate is good was found out by the handshake.

use super::Account;
use shared::auth::hba::Access;
use shared::tls::{Agreed, Names};

/// Whether who has agreed on this TLS may be the user of `account`; `None`: there is no TLS. The error is what the log says.
pub(crate) fn check(encryption: Option<&Agreed>, map: Option<&str>, access: &Access, account: &Account) -> Result<(), String> {
    let agreed = encryption.ok_or("TLS connection required")?;
    let names = agreed.peer_names().ok_or("TLS client certificate required")?;
    if account.denied {
        return Err("TLS certificate of a user whom auth_query does not know".to_owned());
    }
    decide(&names, map, access, &account.user)
}

fn decide(names: &Names, map: Option<&str>, access: &Access, user: &str) -> Result<(), String> {
    match map {
        None if names.is_user(user) => Ok(()),
        None => Err("TLS certificate name mismatch".to_owned()),
        Some(map) if access.maps(map, user, |name| names.is_user(name)) => Ok(()),
        Some(map) => Err(format!("ident map: {map} does not have a match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::auth::hba::Files;
    use shared::config::Config;
    use std::io;
    use std::path::{Path, PathBuf};

    struct Maps;

    impl Files for Maps {
        fn read(&mut self, path: &Path) -> io::Result<String> {
            Ok(if path.ends_with("ident") { "m app.example.com app\nm *.example.org all\n".to_owned() } else { String::new() })
        }

        fn list(&mut self, _: &Path) -> io::Result<Vec<PathBuf>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_certificate_lets_in_whom_it_names_or_a_map_does() {
        let access = Access::read(Path::new("hba"), Some(Path::new("ident")), &mut Maps, &mut Vec::new());
        let names = Names { dns: vec!["app.example.com".to_owned()], common: Some("joe".to_owned()), ..Names::default() };
        let check = |map, user| decide(&names, map, &access, user);
        assert_eq!(check(None, "joe"), Ok(()));
        assert_eq!(check(None, "app.example.com"), Ok(()));
        assert_eq!(check(None, "app"), Err("TLS certificate name mismatch".to_owned()));
        assert_eq!(check(Some("m"), "app"), Ok(()));
        assert_eq!(check(Some("m"), "joe"), Err("ident map: m does not have a match".to_owned()));
        let joe = Account::of(&Config::default(), "joe");
        assert_eq!(super::check(None, None, &access, &joe), Err("TLS connection required".to_owned()));
    }
}
