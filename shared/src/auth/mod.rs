//! Password methods: what a client proves to us, and what we prove to a server.
//!
//! Everything here is sans-IO: the bodies of authentication messages go in, answers come out; nonces and salts are arguments. Bytes
//! from a client are read with bounds and answered with an error that names the field, never a panic. Secrets are compared in
//! constant time and wiped when dropped. A user without a secret is `None` of the caller: there is no value of [`Secret`] that
//! stands for "no password", so a NULL password matches nothing.

mod client_keys;
pub mod demands;
pub mod hba;
pub mod ldap;
pub mod md5;
mod method;
mod password;
pub mod plain;
pub mod scram;
mod secret;

pub use client_keys::ClientKeys;
pub use ldap::LdapOptions;
pub use method::Method;
pub use password::Password;
pub use secret::Secret;

#[cfg(test)]
mod tests {
    use super::scram::{Keys, Verifier};
    use super::{Password, Secret};
    use zeroize::ZeroizeOnDrop;

    #[test]
    fn secrets_are_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Secret>();
        wiped::<Password>();
        wiped::<Keys>();
        wiped::<Verifier>();
    }
}
