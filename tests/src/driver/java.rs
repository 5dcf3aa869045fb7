//! JDBC: Debian's package of the driver, unless another jar is named. Programs are compiled into `target/`.

use super::{prepare, source};
use crate::lock::Lock;
use crate::program::target_folder;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

pub(super) fn command(class: &str) -> Command {
    let jar = jar();
    let classes = compiled(class, &jar);
    let mut command = Command::new("java");
    // A program lives for seconds: what the optimising compiler and a parallel collector cost does not come back.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(std::env::join_paths([&classes, &jar]).unwrap()).arg(class);
    command
}

fn jar() -> PathBuf {
    let path = std::env::var("PGFLEET_JDBC_JAR").unwrap_or_else(|_| "/usr/share/java/postgresql.jar".to_owned());
    assert!(Path::new(&path).exists(), "{path} is not there: install libpostgresql-jdbc-java");
    path.into()
}

/// The folder of the classes.
fn compiled(class: &str, jar: &Path) -> PathBuf {
    let target = target_folder();
    let _lock = Lock::wait(&target.join("java.lock"));
    let folder = target.join("java");
    let source = source("java").join(class).with_extension("java");
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if changed(&folder.join(class).with_extension("class")) <= changed(&source) {
        prepare(Command::new("javac").args(["-Xlint:all", "-Werror", "-cp"]).arg(jar).arg("-d").arg(&folder).arg(&source));
    }
    folder
}
