//! A new configuration, in two steps: taken aside when the supervisor shows it, in force when every worker has taken it.

use super::start::{init_log, read_snapshot};
use crate::encryption::Contexts;
use crate::worker::Worker;
use shared::config::Config;
use shared::control::ToSupervisor;
use shared::shm::Shm;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A configuration that was shown, with all that could go wrong in putting it in force done already.
pub(crate) struct Prepared {
    pub(super) generation: u64,
    config: Config,
    log_file: Option<OwnedFd>,
    contexts: Contexts,
}

impl Prepared {
    fn new(generation: u64, snapshot: &OwnedFd, log_file: Option<OwnedFd>, shm: &Shm) -> Result<Self, String> {
        let config = read_snapshot(snapshot).map_err(|error| error.to_string())?;
        let contexts = Contexts::new(shm, &config).map_err(|error| error.to_string())?;
        Ok(Self { generation, config, log_file, contexts })
    }
}

impl Worker {
    pub(super) fn prepare(&mut self, generation: u64, log_file: bool, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let snapshot = fds.next().ok_or_else(|| "the configuration did not come with it".to_owned());
        let log_file = fds.next().filter(|_| log_file);
        let answer = match snapshot.and_then(|snapshot| Prepared::new(generation, &snapshot, log_file, &self.shm)) {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                ToSupervisor::Prepared { generation }
            }
            Err(reason) => ToSupervisor::Refused { generation, reason },
        };
        self.control.send(&answer, &[]);
    }

    pub(super) fn commit(&mut self, generation: u64) {
        let Some(prepared) = self.prepared.take().filter(|prepared| prepared.generation == generation) else { return };
        let Prepared { config, log_file, contexts, .. } = prepared;
        let changes = self.config.changes(&config);
        let old = std::mem::replace(&mut self.config, Rc::new(config));
        init_log(&self.config, self.me.slot, log_file, self.log_to_stderr);
        self.hashing.start_anew(&self.config);
        self.typical.reload(&self.config);
        self.forget_outdated(&changes.outdated_secrets);
        self.proxies = crate::client::Proxies::of(&self.config.settings);
        self.encryption.contexts = contexts;
        self.apply_tcp_settings();
        self.enter_limits();
        let stale = |name: &String| changes.reconnect_databases.contains(name) || changes.dropped_databases.contains(name);
        let any = changes.reconnect_databases.iter().chain(&changes.dropped_databases).any(|name| name == "*");
        self.pools.welcomes.retain(|(database, _), _| !any && !stale(database));
        self.marks.forget(changes.dropped_databases.iter());
        self.reconfigure_pools(&changes.reconnect_databases, &changes.dropped_databases);
        self.apply_pauses();
        self.reconfigure_peers();
        self.rearm_idle_timers(&old);
        self.control.send(&ToSupervisor::Committed { generation }, &[]);
    }

    /// Clients that had no client_idle_timeout may have one now.
    fn rearm_idle_timers(&mut self, old: &shared::config::Config) {
        let newly: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(index, c)| Some((index, c.id, c.last_request, c.session()?)))
            .filter(|(.., session)| old.client_idle_timeout(&session.who.user).is_none())
            .filter_map(|(index, id, since, session)| {
                Some((since + self.config.client_idle_timeout(&session.who.user)?, (index, id)))
            })
            .collect();
        for (deadline, key) in newly {
            self.idle_timers.arm(deadline, key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shared::config::SslMode;
    use shared::sys::memfd;

    #[test]
    fn tls_that_cannot_be_had_refuses_the_configuration() {
        let shm = Shm::create().unwrap().0;
        let prepare = |config: &Config| {
            let snapshot = memfd::create_sealed("configuration", &config.to_bytes().unwrap()).unwrap();
            Prepared::new(2, &snapshot, None, &shm).map(|prepared| prepared.contexts)
        };
        let mut config = Config::default();
        let contexts = prepare(&config).unwrap();
        assert!(contexts.acceptor.is_none() && contexts.connector.is_some());
        config.settings.client_tls_sslmode = SslMode::Require;
        let refused = prepare(&config).err().unwrap();
        assert!(refused.contains("client_tls_key_file and client_tls_cert_file must be set"), "{refused}");
    }
}
