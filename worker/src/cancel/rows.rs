//! Cancel requests as the console shows them: one row for who asked, one for the connection that carries the request.

use super::Asker;
use super::carry::{Aim, Carrier, Stage};
use crate::clock::Instant;
use crate::pool::PoolIndex;
use crate::report::local_address;
use crate::worker::Worker;
use shared::control::{ConnectionRow, PoolRow};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

impl Worker {
    /// Adds the pool's requests to its row of SHOW POOLS.
    pub(crate) fn count_cancels(&self, index: PoolIndex, row: &mut PoolRow) {
        for (_, carrier) in &self.carriers {
            if !matches!(carrier.aim, Aim::Backend { pool, .. } if pool == index) {
                continue;
            }
            let asked = carrier.askers.len() as u32;
            match carrier.stage {
                Stage::Waiting(_) => row.cl_waiting_cancel_req += asked,
                Stage::Connecting(..) | Stage::Securing(..) => {
                    row.cl_waiting_cancel_req += asked;
                    row.sv_login += 1;
                }
                Stage::Sent(..) => {
                    row.cl_active_cancel_req += asked;
                    row.sv_active_cancel += 1;
                }
                Stage::Done => {}
            }
        }
    }

    /// The rows of SHOW CLIENTS.
    pub(crate) fn asker_rows<'a>(&'a self, carrier: &'a Carrier) -> impl Iterator<Item = ConnectionRow> + 'a {
        carrier.askers.iter().map(|asker| self.asker_row(carrier, asker))
    }

    fn asker_row(&self, carrier: &Carrier, asker: &Asker) -> ConnectionRow {
        let state = if matches!(carrier.stage, Stage::Sent(..)) { "active_cancel_req" } else { "waiting_cancel_req" };
        let local = asker.socket.as_ref().map(|socket| local_address(socket.as_fd(), self.config.settings.listen_port));
        let (local_addr, local_port) = local.unwrap_or_default();
        let since = Instant::from_micros(asker.who.connected_at);
        ConnectionRow {
            id: asker.who.id,
            state: state.to_owned(),
            addr: asker.who.peer.address.clone(),
            port: asker.who.peer.port,
            local_addr,
            local_port,
            connect_time: since.to_wall(),
            request_time: since.to_wall(),
            link: matches!(carrier.stage, Stage::Sent(..)).then_some(carrier.id),
            remote_pid: asker.who.peer.pid,
            fd: asker.socket.as_ref().map_or(-1, OwnedFd::as_raw_fd),
            ..self.blank_row(carrier)
        }
    }

    /// The row of SHOW SERVERS.
    pub(crate) fn carrier_row(&self, carrier: &Carrier) -> Option<ConnectionRow> {
        let (conn, address, state) = match &carrier.stage {
            Stage::Connecting(conn, address) | Stage::Securing(conn, address, _) => (conn, address, "new"),
            Stage::Sent(conn, address) => (conn, address, "active_cancel"),
            Stage::Waiting(_) | Stage::Done => return None,
        };
        let (addr, port) = address.columns();
        let (local_addr, local_port) = local_address(conn.as_fd(), port);
        Some(ConnectionRow {
            id: carrier.id,
            state: state.to_owned(),
            addr,
            port,
            local_addr,
            local_port,
            link: carrier.askers.first().map(|asker| asker.who.id),
            tls: conn.tls_label().to_owned(),
            fd: conn.as_fd().as_raw_fd(),
            user: match carrier.aim {
                Aim::Backend { pool, .. } => self.pools.get(pool).user.clone(),
                Aim::Peer(_) => "(nouser)".to_owned(),
            },
            ..self.blank_row(carrier)
        })
    }

    /// What both rows say.
    fn blank_row(&self, carrier: &Carrier) -> ConnectionRow {
        ConnectionRow {
            user: "(nouser)".to_owned(),
            database: match carrier.aim {
                Aim::Backend { pool, .. } => self.pools.get(pool).entry.name.clone(),
                Aim::Peer(_) => "(nodb)".to_owned(),
            },
            connect_time: carrier.since().to_wall(),
            request_time: carrier.since().to_wall(),
            ..ConnectionRow::default()
        }
    }
}
