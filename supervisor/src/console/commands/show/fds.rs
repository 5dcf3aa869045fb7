//! SHOW FDS: the descriptors of listeners, clients and servers, named but not passed.

use super::super::Context;
use crate::console::encode::{Kind, Table, cell};
use shared::control::{ConnectionRow, ReportKind};

pub(super) fn table(context: &Context<'_>) -> Option<Table> {
    use Kind::{Int4, Int8, Text};
    let mut table = Table::new(&[
        ("fd", Int4),
        ("task", Text),
        ("user", Text),
        ("database", Text),
        ("addr", Text),
        ("port", Int4),
        ("cancel", Int8),
        ("link", Int4),
        ("client_encoding", Text),
        ("std_strings", Text),
        ("datestyle", Text),
        ("timezone", Text),
        ("password", Text),
        ("scram_client_key", Text),
        ("scram_server_key", Text),
    ]);
    for (fd, address, port) in context.office.listeners().iter() {
        let mut row = vec![cell(fd), cell("pooler"), None, None, cell(address), cell(port), cell(0), cell(0)];
        row.resize(15, None);
        table.row(row);
    }
    let clients = context.rows(ReportKind::Clients)?;
    let servers = context.rows(ReportKind::Servers)?;
    let consoles: Vec<ConnectionRow> = context.office.consoles().values().map(|console| console.row.clone()).collect();
    let all: Vec<(&str, &ConnectionRow)> = clients
        .connections()
        .chain(&consoles)
        .map(|row| ("client", row))
        .chain(servers.connections().map(|row| ("server", row)))
        .collect();
    for (task, row) in &all {
        let link = all.iter().find(|(_, other)| Some(other.id) == row.link).map_or(0, |(_, other)| other.fd);
        let mut cells = vec![
            cell(row.fd),
            cell(task),
            cell(&row.user),
            cell(&row.database),
            cell(&row.addr),
            cell(row.port),
            cell(row.cancel_key),
            cell(link),
        ];
        cells.resize(15, None);
        table.row(cells);
    }
    Some(table)
}
