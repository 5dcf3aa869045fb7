//! Free TCP ports for servers of tests that run at the same time, in any number of processes.
//!
//! "Bind to 0 and close" gives a port that the next outgoing connection on this machine may take. So ports come from below the range
//! that the kernel picks from, and a locked file says which are taken; the lock ends with its process, however that ends.

use crate::lock::Lock;
use std::net::TcpListener;

const FIRST: u16 = 14_000;
const COUNT: u16 = 16_000;

/// A port that no other test uses while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: Lock,
}

impl Port {
    /// Takes a free one.
    pub fn take() -> Port {
        let folder = std::env::temp_dir().join("pgfleet-test-ports");
        std::fs::create_dir_all(&folder).unwrap();
        let start = rand::random::<u16>() % COUNT;
        for offset in 0..COUNT {
            let number = FIRST + (start + offset) % COUNT;
            let Some(lock) = Lock::attempt(&folder.join(number.to_string())) else { continue };
            // 0.0.0.0 also finds what listens on one address only.
            if TcpListener::bind(("0.0.0.0", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port from {FIRST} on");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
