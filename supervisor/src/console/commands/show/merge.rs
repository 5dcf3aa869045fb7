//! Rows of several workers made one: unique by key, gauges and counters summed, the longest wait the longest of all.

use crate::fleet::add_counters;
use crate::stats::{self, Totals};
use shared::control::{ConnectionRow, PeerRow, PoolRow, ReportRows};
use shared::ids::Slot;
use shared::orders::PoolName;
use shared::shm::Shm;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the workers reported, and what those that are no more had counted.
#[derive(Debug, Default)]
pub(in crate::console::commands) struct Rows {
    pub(super) live: Vec<(Slot, ReportRows)>,
    pub(super) retired: Vec<PoolRow>,
    /// What removed pools had counted.
    pub(super) removed: Vec<PoolRow>,
    /// Removed pools that have not come back.
    pub(super) forgotten: BTreeSet<PoolName>,
}

impl Rows {
    /// Pools by database and user.
    pub(super) fn pools(&self) -> BTreeMap<(String, String), PoolRow> {
        let mut pools: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
        for row in self.live.iter().flat_map(|(_, rows)| &rows.pools).chain(&self.retired) {
            let pool = pools.entry((row.database.clone(), row.user.clone())).or_default();
            add(pool, row);
        }
        pools
    }

    /// Peers that cancel requests were forwarded to.
    pub(super) fn peers(&self) -> BTreeMap<u16, PeerRow> {
        let mut peers: BTreeMap<u16, PeerRow> = BTreeMap::new();
        for row in self.live.iter().flat_map(|(_, rows)| &rows.peers) {
            let peer = peers.entry(row.id).or_insert_with(|| PeerRow { id: row.id, ..PeerRow::default() });
            peer.cl_active_cancel_req += row.cl_active_cancel_req;
            peer.cl_waiting_cancel_req += row.cl_waiting_cancel_req;
            peer.sv_active_cancel += row.sv_active_cancel;
            peer.sv_login += row.sv_login;
        }
        peers
    }

    /// Counters by database, of pools that were removed too: they never shrink.
    pub(super) fn totals(&self) -> Totals {
        stats::totals(self.live.iter().flat_map(|(_, rows)| &rows.pools).chain(&self.retired).chain(&self.removed))
    }

    /// Databases that have a pool.
    pub(super) fn databases(&self) -> BTreeSet<&str> {
        let pools = self.live.iter().flat_map(|(_, rows)| &rows.pools).chain(&self.retired);
        pools.map(|row| row.database.as_str()).collect()
    }

    /// Every pool there is, reported or not.
    pub(in crate::console::commands) fn pool_names(&self, shm: &Shm) -> impl Iterator<Item = PoolName> {
        shm.pools().filter_map(|pool| shm.pool_names(pool)).filter(|name| !self.forgotten.contains(name))
    }

    /// All connections, by worker. One that has moved between two workers' answers is in both.
    pub(super) fn connections(&self) -> impl Iterator<Item = &ConnectionRow> {
        let mut seen = HashSet::new();
        self.live.iter().flat_map(|(_, rows)| &rows.connections).filter(move |row| seen.insert(row.id))
    }

    /// One of the counts, summed.
    pub(super) fn sum(&self, count: fn(&ReportRows) -> u32) -> u64 {
        self.live.iter().map(|(_, rows)| u64::from(count(rows))).sum()
    }
}

fn add(pool: &mut PoolRow, row: &PoolRow) {
    pool.database.clone_from(&row.database);
    pool.user.clone_from(&row.user);
    pool.cl_active += row.cl_active;
    pool.cl_waiting += row.cl_waiting;
    pool.cl_active_cancel_req += row.cl_active_cancel_req;
    pool.cl_waiting_cancel_req += row.cl_waiting_cancel_req;
    pool.sv_active += row.sv_active;
    pool.sv_active_cancel += row.sv_active_cancel;
    pool.sv_being_canceled += row.sv_being_canceled;
    pool.sv_idle += row.sv_idle;
    pool.sv_used += row.sv_used;
    pool.sv_tested += row.sv_tested;
    pool.sv_login += row.sv_login;
    pool.maxwait_us = pool.maxwait_us.max(row.maxwait_us);
    add_counters(pool, row);
}

/// A pool's clients that are logged in.
pub(super) fn clients(pool: &PoolRow) -> u32 {
    pool.cl_active + pool.cl_waiting
}

/// A pool's server connections, in whatever state.
pub(super) fn servers(pool: &PoolRow) -> u32 {
    pool.sv_active + pool.sv_active_cancel + pool.sv_being_canceled + pool.sv_idle + pool.sv_used + pool.sv_tested + pool.sv_login
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::ConnectionId;

    #[test]
    fn a_connection_that_moves_meanwhile_is_listed_once() {
        let row = |id| ConnectionRow { id: ConnectionId(id), ..ConnectionRow::default() };
        let report = |connections| ReportRows { connections, ..ReportRows::default() };
        let live = vec![(Slot(0), report(vec![row(1), row(2)])), (Slot(1), report(vec![row(2), row(3)]))];
        let rows = Rows { live, ..Rows::default() };
        assert_eq!(rows.connections().map(|row| row.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn one_row_for_a_pool() {
        let row = |user: &str, active, wait, queries| PoolRow {
            database: "d".into(),
            user: user.into(),
            cl_active: active,
            maxwait_us: wait,
            query_count: queries,
            ..PoolRow::default()
        };
        let report = |pools| ReportRows { pools, ..ReportRows::default() };
        let rows = Rows {
            live: vec![
                (Slot(0), report(vec![row("a", 1, 50, 10), row("b", 1, 0, 1)])),
                (Slot(1), report(vec![row("a", 2, 70, 20)])),
            ],
            retired: vec![row("a", 0, 0, 5), row("c", 0, 0, 7)],
            removed: vec![row("", 0, 0, 100)],
            ..Rows::default()
        };
        let pools = rows.pools();
        let a = &pools[&("d".to_owned(), "a".to_owned())];
        assert_eq!((a.cl_active, a.maxwait_us, a.query_count), (3, 70, 35));
        assert_eq!(pools.len(), 3);
        assert_eq!(rows.totals()["d"].query_count, 143);
        assert_eq!(rows.databases().into_iter().collect::<Vec<_>>(), ["d"]);
    }
}
