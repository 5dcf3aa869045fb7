//! SHOW MEM: what all workers together keep in memory.

use super::merge::Rows;
use crate::console::encode::{Kind, Table, cell};
use shared::control::MemoryRow;

pub(super) fn table(rows: &Rows) -> Table {
    use Kind::{Int4, Text};
    let mut table = Table::new(&[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)]);
    let mut sums: Vec<MemoryRow> = Vec::new();
    for row in rows.live.iter().flat_map(|(_, rows)| &rows.memory) {
        match sums.iter_mut().find(|sum| sum.name == row.name) {
            Some(sum) => {
                sum.used += row.used;
                sum.free += row.free;
                sum.bytes += row.bytes;
            }
            None => sums.push(row.clone()),
        }
    }
    for MemoryRow { name, used, free, bytes } in sums {
        // Of one; where sizes differ, of one on average.
        let size = bytes.checked_div(used + free).unwrap_or(0);
        table.row(vec![cell(name), cell(size), cell(used), cell(free), cell(bytes.min(i32::MAX as u64))]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::control::ReportRows;
    use shared::ids::Slot;

    #[test]
    fn workers_are_added_up() {
        let row = |used, free, bytes| MemoryRow { name: "client_cache".into(), used, free, bytes };
        let report = |row| ReportRows { memory: vec![row], ..ReportRows::default() };
        let live = vec![(Slot(0), report(row(1, 1, 200))), (Slot(1), report(row(3, 0, 300)))];
        let table = table(&Rows { live, ..Rows::default() });
        let cells: Vec<&str> = table.rows[0].iter().flatten().map(String::as_str).collect();
        assert_eq!(cells, ["client_cache", "100", "4", "1", "500"]);
        assert_eq!(table.rows.len(), 1);
    }
}
