//! The data path.
#![forbid(unsafe_code)]

/// Serves clients until told to stop.
pub fn run(control: std::os::fd::OwnedFd) -> std::process::ExitCode {
    drop(control);
    std::process::ExitCode::SUCCESS
}
