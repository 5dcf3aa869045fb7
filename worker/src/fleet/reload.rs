//! A new configuration, in two steps: taken aside when the supervisor shows it, in force when every worker has taken it.

use super::start::{init_log, read_snapshot};
use crate::worker::Worker;
use shared::control::ToSupervisor;
use std::os::fd::OwnedFd;
use std::rc::Rc;

impl Worker {
    pub(super) fn prepare(&mut self, generation: u64, log_file: bool, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let config = fds.next().ok_or_else(|| "the configuration did not come with it".to_owned());
        let file = fds.next().filter(|_| log_file);
        let answer = match config.and_then(|fd| read_snapshot(&fd).map_err(|e| e.to_string())) {
            Ok(config) => {
                self.prepared = Some((generation, config, file));
                ToSupervisor::Prepared { generation }
            }
            Err(reason) => ToSupervisor::Refused { generation, reason },
        };
        self.control.send(&answer, &[]);
    }

    pub(super) fn commit(&mut self, generation: u64) {
        let Some((prepared, config, file)) = self.prepared.take() else { return };
        if prepared != generation {
            return;
        }
        let changes = self.config.changes(&config);
        let old = std::mem::replace(&mut self.config, Rc::new(config));
        init_log(&self.config, self.me.slot, file, self.log_to_stderr);
        self.hashing.forget_results();
        self.typical = crate::client::auth::Form::typical(&self.config);
        if changes.secrets {
            let learned = self.pools.secrets();
            self.client_keys.keep(self.config.secrets.values().chain(learned));
        }
        self.proxies = crate::client::Proxies::of(&self.config.settings);
        if let Err(error) = self.encryption.configure(&self.shm, &self.config) {
            log::error!(target: "process", "TLS configuration could not be reloaded, keeping old configuration: {error}");
        }
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
