//! SHOW PEERS and SHOW PEER_POOLS.

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

/// A row appears with the first cancel request that was forwarded; none is, yet.
pub(super) fn pools() -> Table {
    let names = ["peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"];
    Table::new(&names.map(|name| (name, Kind::Int4)))
}
