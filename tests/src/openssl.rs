//! OpenSSL's own client and server, which are told what to say, and what they print.

use crate::{SOON, wait_until};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A client that asks the fleet on this port for TLS.
pub fn client(port: u16, options: &[&str]) -> Command {
    let mut command = program("s_client");
    command.args(["-starttls", "postgres", "-connect", &format!("127.0.0.1:{port}")]).args(options);
    command
}

/// A server that takes TLS at once, on this port of 127.0.0.1.
pub fn server(port: u16, options: &[&str]) -> Command {
    let mut command = program("s_server");
    command.args(["-alpn", "postgresql", "-accept", &format!("127.0.0.1:{port}")]).args(options);
    command
}

/// It keeps some of what it prints to itself while that goes to a pipe.
fn program(name: &str) -> Command {
    let mut command = Command::new("stdbuf");
    command.args(["-o0", "openssl", name]);
    command
}

/// All that a command prints when it is told nothing.
pub fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    crate::program::stdout(&output) + &crate::program::stderr(&output)
}

/// One of them, running.
#[derive(Debug)]
pub struct Running {
    process: Child,
    input: ChildStdin,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Running {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let heard = Arc::default();
        collect(process.stdout.take().unwrap(), Arc::clone(&heard));
        collect(process.stderr.take().unwrap(), Arc::clone(&heard));
        Running { input: process.stdin.take().unwrap(), process, heard }
    }

    /// Has it send bytes. What begins with certain letters is a command to it instead.
    pub fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
    }

    /// Waits until it has printed this, and forgets all that it has printed until now.
    #[track_caller]
    pub fn hear(&self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        wait_until(&format!("OpenSSL to print {:?}", String::from_utf8_lossy(wanted)), SOON, || {
            let mut heard = self.heard.lock().unwrap();
            let found = heard.windows(wanted.len()).any(|window| window == wanted);
            if found {
                heard.clear();
            }
            found
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            crate::process::print_tail("OpenSSL", &String::from_utf8_lossy(&self.heard.lock().unwrap()), 40);
        }
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
}
