//! SHOW PEERS and SHOW PEER_POOLS.

use super::merge::Rows;
use crate::console::encode::{Kind, Table, cell};
use shared::config::Config;

pub(super) fn peers(config: &Config) -> Table {
    let mut table = Table::new(&[("peer_id", Kind::Int4), ("host", Kind::Text), ("port", Kind::Int4), ("pool_size", Kind::Int4)]);
    for (id, peer) in &config.peers {
        let size = peer.pool_size.unwrap_or(config.settings.default_pool_size);
        table.row(vec![cell(id), peer.host.clone(), cell(peer.port), cell(size)]);
    }
    table
}

/// A row appears with the first cancel request that was forwarded.
pub(super) fn pools(rows: &Rows) -> Table {
    let names = ["peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"];
    let mut table = Table::new(&names.map(|name| (name, Kind::Int4)));
    for peer in rows.peers().values() {
        let counts = [peer.cl_active_cancel_req, peer.cl_waiting_cancel_req, peer.sv_active_cancel, peer.sv_login];
        table.row(std::iter::once(cell(peer.id)).chain(counts.map(cell)).collect());
    }
    table
}
