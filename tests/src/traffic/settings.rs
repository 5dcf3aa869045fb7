//! Parameters that a client has set stay set, for itself alone.

use super::stage::Stage;
use std::collections::BTreeMap;

/// Those that PostgreSQL reports: they are the client's on whatever server it has.
pub(super) fn of_any_session(stage: &Stage) {
    let values = [["ISO, DMY", "Asia/Tokyo"], ["German, DMY", "America/New_York"], ["SQL, MDY", "UTC"]];
    keep(stage, |turn| {
        let [style, zone] = values[turn % values.len()];
        let name = format!("{} in turn {turn}", stage.number);
        BTreeMap::from([("application_name", name), ("DateStyle", style.to_owned()), ("TimeZone", zone.to_owned())])
    });
}

/// Those that only its server knows.
pub(super) fn of_its_server(stage: &Stage) {
    keep(stage, |turn| {
        let path = format!("schema_{turn}_of_{}", stage.number);
        BTreeMap::from([
            ("search_path", path),
            ("work_mem", format!("{}kB", 1025 + turn)),
            ("extra_float_digits", (turn % 3).to_string()),
        ])
    });
}

/// Sets them anew now and then, and looks at them otherwise.
fn keep(stage: &Stage, values: impl Fn(usize) -> BTreeMap<&'static str, String>) {
    let mut client = stage.door.enter();
    let (mut turn, mut set) = (0, BTreeMap::new());
    while stage.goes_on() {
        if turn % 10 == 0 {
            set = values(turn);
            for (name, value) in &set {
                // search_path and DateStyle are lists, which one text is.
                stage.query(&mut client, &format!("select set_config('{name}', '{value}', false)"));
            }
        }
        for (name, value) in &set {
            assert_eq!(stage.value(&mut client, &format!("select current_setting('{name}')")), *value, "{name}");
            if let Some(told) = client.parameters.get(*name) {
                assert_eq!(told, value, "what the client was told of {name}");
            }
        }
        turn += 1;
        stage.think();
    }
}
