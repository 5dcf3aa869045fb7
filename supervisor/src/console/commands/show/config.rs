//! SHOW CONFIG: every setting, its value, its default, and whether a reload applies it.

use crate::console::encode::{Kind, Table, cell};
use shared::config::{Config, TABLE};

pub(super) fn table(config: &Config) -> Table {
    let mut table = Table::new(&[("key", Kind::Text), ("value", Kind::Text), ("default", Kind::Text), ("changeable", Kind::Text)]);
    for setting in TABLE {
        let value = match setting.name {
            // As with PgBouncer, the file that was given on the command line shows.
            "conffile" => config.settings.value("conffile").or_else(|| cell(config.path.display())),
            name => config.settings.value(name),
        };
        let changeable = if setting.reloadable { "yes" } else { "no" };
        table.row(vec![cell(setting.name), value, setting.default.map(str::to_owned), cell(changeable)]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_setting_has_a_row() {
        let table = table(&Config::default());
        assert_eq!(table.rows.len(), TABLE.len());
        let size = table.rows.iter().find(|row| row[0] == cell("default_pool_size")).unwrap();
        assert_eq!(size[1..], [cell("20"), cell("20"), cell("yes")]);
    }
}
