//! SHOW MEM: what this worker keeps in memory, under the names of PgBouncer's allocators where there is a counterpart.
//!
//! Counted when somebody asks: nothing is counted along the way. What is shared is counted once, what allocators add is not counted.

use crate::worker::Worker;
use shared::config::{Database, UserSettings};
use shared::control::MemoryRow;
use slab::Slab;

impl Worker {
    pub(crate) fn memory_rows(&self) -> Vec<MemoryRow> {
        let config = &self.config;
        let (sets, set_bytes) = self.interner.memory();
        let (statements, statement_bytes) = self.statements.memory();
        let on_servers = self.servers.iter().map(|(_, server)| server.back.statements.len()).sum();
        vec![
            all_used("user_cache", config.users.len(), config.users.len() * size_of::<UserSettings>()),
            all_used(
                "credentials_cache",
                config.secrets.len(),
                config.secrets.iter().map(|(user, s)| user.len() + s.expose().len()).sum(),
            ),
            all_used("db_cache", config.databases.len(), config.databases.len() * size_of::<Database>()),
            self.pools.memory(),
            places("server_cache", &self.servers),
            places("client_cache", &self.clients),
            self.tls_row(),
            self.buffer_row(),
            all_used("var_list_cache", sets, set_bytes),
            all_used("prepared_statement_cache", statements, statement_bytes),
            all_used(
                "server_prepared_statement_cache",
                on_servers,
                on_servers * size_of::<crate::protocol::statements::StatementId>(),
            ),
        ]
    }

    /// Sessions, and what is expanded of those that are in use.
    fn tls_row(&self) -> MemoryRow {
        let connections = self.clients.iter().map(|(_, c)| &c.conn).chain(self.servers.iter().map(|(_, s)| &s.conn));
        let secured = connections.map(crate::socket::Conn::tls_memory).filter(|bytes| *bytes > 0);
        let (used, bytes) = secured.fold((0, 0), |(used, sum), bytes| (used + 1, sum + bytes));
        all_used("tls_cache", used, bytes)
    }

    /// Buffers of connections that own one, and those kept for the next; beside them the worker's own.
    fn buffer_row(&self) -> MemoryRow {
        let connections = self.clients.iter().map(|(_, c)| &c.conn).chain(self.servers.iter().map(|(_, s)| &s.conn));
        let (mut used, mut bytes) = (0, self.read_buffer.capacity() + self.scratch.capacity() + self.inbox_buffer.capacity());
        for (buffers, held) in connections.map(crate::socket::Conn::buffers) {
            used += buffers;
            bytes += held;
        }
        let (free, kept) = self.buffers.kept();
        row("iobuf_cache", used + 3, free, bytes + kept)
    }
}

/// A kind of thing with this many in use, room for `free` more, in `bytes` altogether.
fn row(name: &str, used: usize, free: usize, bytes: usize) -> MemoryRow {
    MemoryRow { name: name.to_owned(), used: used as u64, free: free as u64, bytes: bytes as u64 }
}

fn all_used(name: &str, used: usize, bytes: usize) -> MemoryRow {
    row(name, used, 0, bytes)
}

/// A slab, whose free places are kept.
pub(crate) fn places<T>(name: &str, slab: &Slab<T>) -> MemoryRow {
    row(name, slab.len(), slab.capacity() - slab.len(), slab.capacity() * size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_places_count_too() {
        let mut slab = Slab::with_capacity(8);
        slab.insert(0u64);
        let row = places("x", &slab);
        assert_eq!((row.used, row.used + row.free), (1, slab.capacity() as u64));
        assert_eq!(row.bytes, slab.capacity() as u64 * 8);
    }
}
