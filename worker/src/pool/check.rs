//! server_check_delay and server_check_query: a server connection that was idle for long proves that it is alive before a client gets it.
//!
//! Only when a client wants it, and while none that needs no proof is there. Until it has answered it counts as a connection that is being opened, so
//! that no other is opened beside it.

use super::PoolIndex;
use crate::server::{Server, ServerState};
use crate::worker::{Source, Worker};
use std::time::Duration;

/// How long the answer to server_reset_query proves a connection alive when server_check_delay is 0.
const JUST_RESET: Duration = Duration::from_millis(300);

impl Worker {
    /// Whether an idle server is to be checked before it is used.
    #[inline]
    pub(crate) fn must_check(&self, server: &Server) -> bool {
        let settings = &self.config.settings;
        let delay = if server.was_reset { settings.server_check_delay.max(JUST_RESET) } else { settings.server_check_delay };
        self.now - server.since >= delay && !settings.server_check_query.is_empty()
    }

    /// Checks an idle server for whoever waits. False: there is none.
    pub(super) fn check_idle(&mut self, index: PoolIndex) -> bool {
        let Some(server) = self.take_any_idle(index) else { return false };
        self.check(server);
        true
    }

    /// Sends the check; the server serves when it has answered.
    pub(super) fn check(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.state = ServerState::Checking;
        server.since = self.now;
        self.pools.get_mut(server.pool).opening += 1;
        let query = self.config.settings.server_check_query.as_str();
        let query = if query == "<empty>" { "" } else { query };
        if server.send_hidden(query, &mut self.buffers).is_err() {
            // Its end is to be read.
            server.conn.readable = true;
            self.again.push(Source::Server(index));
        }
    }

    /// The server has answered as it should.
    pub(crate) fn check_passed(&mut self, index: usize) {
        let pool = self.pools.get_mut(self.servers[index].pool);
        pool.opening = pool.opening.saturating_sub(1);
        self.server_free(index);
    }

    /// It has not: whoever waits for it gets another, and learns nothing of this.
    pub(crate) fn check_failed(&mut self, index: usize) {
        let pool = self.servers[index].pool;
        self.close_server(index, "test query failed");
        self.pools.get_mut(pool).exhausted = false;
        self.pump(pool);
    }
}
