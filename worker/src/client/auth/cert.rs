//! `cert`: a client is whom its TLS certificate names. That the certificate is good was found out by the handshake.

use shared::auth::hba::Access;
use shared::tls::Names;

/// Whether who has shown a certificate with these names may be `user`. The error is what the log says.
pub(crate) fn check(tls: bool, names: Option<&Names>, map: Option<&str>, access: &Access, user: &str) -> Result<(), String> {
    if !tls {
        return Err("TLS connection required".to_owned());
    }
    let names = names.ok_or("TLS client certificate required")?;
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
        let check = |map, user| check(true, Some(&names), map, &access, user);
        assert_eq!(check(None, "joe"), Ok(()));
        assert_eq!(check(None, "app.example.com"), Ok(()));
        assert_eq!(check(None, "app"), Err("TLS certificate name mismatch".to_owned()));
        assert_eq!(check(Some("m"), "app"), Ok(()));
        assert_eq!(check(Some("m"), "joe"), Err("ident map: m does not have a match".to_owned()));
        assert_eq!(super::check(true, None, None, &access, "joe"), Err("TLS client certificate required".to_owned()));
        assert_eq!(super::check(false, None, None, &access, "joe"), Err("TLS connection required".to_owned()));
    }
}
