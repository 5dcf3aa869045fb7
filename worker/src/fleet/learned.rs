//! What logins teach about logging in to servers: keys that clients have proved to know, and what auth_query says of a pool's user. Through the
//! supervisor the other workers hear of it, which may have to open a connection for somebody who has proved nothing to them.

use crate::pool::PoolIndex;
use crate::worker::Worker;
use shared::auth::Secret;
use shared::auth::scram::Keys;
use shared::control::{Learned, ToSupervisor};
use std::collections::HashSet;

impl Worker {
    /// A client has proved to know these.
    pub(crate) fn learn_keys(&mut self, keys: Keys) {
        if self.client_keys.learn(keys.clone()) {
            self.control.send(&ToSupervisor::Learned(Learned::Keys(keys)), &[]);
        }
    }

    /// auth_query says this of the pool's user, whose servers log in with it from now on, whoever else has them opened.
    pub(crate) fn learn_secret(&mut self, index: PoolIndex, secret: Option<&Secret>) {
        let pool = self.pools.get(index);
        if pool.secret.as_ref() == secret {
            return;
        }
        if let Some(secret) = secret {
            let (database, user) = (pool.entry.name.clone(), pool.user.clone());
            let learned = Learned::Secret { database, user, secret: secret.clone() };
            self.control.send(&ToSupervisor::Learned(learned), &[]);
        }
        self.set_secret(index, secret.cloned());
    }

    /// PostgreSQL does not take what auth_query has said: the password is another now, and the next login of its user brings it.
    pub(crate) fn forget_secret(&mut self, index: PoolIndex) {
        self.set_secret(index, None);
    }

    /// Another worker has learned it.
    pub(super) fn learned_elsewhere(&mut self, learned: Learned) {
        match learned {
            Learned::Keys(keys) => {
                self.client_keys.learn(keys);
            }
            Learned::Secret { database, user, secret } => {
                // A pool that is not here yet will come with a login, which asks auth_query itself.
                if let Some(index) = self.pools.find(&database, &user) {
                    self.set_secret(index, Some(secret));
                }
            }
            Learned::Outdated(secret) => {
                if !self.is_in_use(&secret) {
                    self.client_keys.forget(&secret);
                }
            }
        }
    }

    /// The reload in force has taken these out of auth_file.
    pub(super) fn forget_outdated(&mut self, secrets: &[Secret]) {
        let in_use: HashSet<&Secret> = self.pools.secrets().collect();
        for secret in secrets.iter().filter(|secret| !in_use.contains(secret)) {
            self.client_keys.forget(secret);
        }
    }

    fn set_secret(&mut self, index: PoolIndex, secret: Option<Secret>) {
        let pool = self.pools.get_mut(index);
        let is_new = secret.is_some();
        let old = std::mem::replace(&mut pool.secret, secret);
        match old {
            // It may be what servers were waiting for whose logins have failed.
            None if is_new => {
                pool.exhausted = false;
                self.shm.pool_state(pool.id).set_login_failed_at(0);
            }
            Some(old) if !self.is_in_use(&old) && self.client_keys.forget(&old) => {
                self.control.send(&ToSupervisor::Learned(Learned::Outdated(old)), &[]);
            }
            _ => {}
        }
    }

    /// Whether it is still some user's.
    fn is_in_use(&self, secret: &Secret) -> bool {
        self.pools.secrets().chain(self.config.secrets.values()).any(|other| other == secret)
    }
}
