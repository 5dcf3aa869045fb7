//! A new binary that is none: it goes wrong in the way that its file is named after.
#![forbid(unsafe_code)]

use std::process::{abort, exit};
use std::time::Duration;

fn main() {
    let image = std::env::current_exe().unwrap_or_default();
    match image.file_name().and_then(|name| name.to_str()) {
        Some("crashes") => abort(),
        Some("hangs") => std::thread::sleep(Duration::from_secs(600)),
        _ => exit(3),
    }
}
