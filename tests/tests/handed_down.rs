//! Listeners that the service manager keeps: by socket activation, and from one fleet to the next. The test plays systemd.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use end_to_end::frontend::startup;
use end_to_end::{Client, Fleet, Postgres, SOON, wait_until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::Permissions;
use std::io::IoSliceMut;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

/// Above what a fleet's process starts with, and open after an exec. It stays open here until the test ends.
fn kept(fd: impl AsFd) -> RawFd {
    fcntl(fd, FcntlArg::F_DUPFD(200)).unwrap()
}

/// What a service manager listens at for its services.
struct Manager {
    socket: UnixDatagram,
    store: Vec<(RawFd, &'static str)>,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        socket.set_nonblocking(true).unwrap();
        // What is received gets higher numbers than what it is moved to for a fleet.
        for _ in 0..64 {
            fcntl(&socket, FcntlArg::F_DUPFD_CLOEXEC(3)).unwrap();
        }
        Self { socket, store: Vec::new() }
    }

    /// Reads what there is, and keeps the descriptors of FDSTORE; whether one of the messages says so.
    fn hears(&mut self, what: &str) -> bool {
        let mut heard = false;
        loop {
            let (mut buffer, mut space) = ([0; 4096], nix::cmsg_space!([RawFd; 253]));
            let mut into = [IoSliceMut::new(&mut buffer)];
            let Ok(message) = recvmsg::<()>(self.socket.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty()) else {
                return heard;
            };
            let mut received = Vec::new();
            for control in message.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    received.extend(fds);
                }
            }
            let length = message.bytes;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            heard |= text.lines().any(|line| line == what);
            if !received.is_empty() {
                assert!(
                    text.lines().any(|line| line == "FDSTORE=1") && text.lines().any(|line| line == "FDNAME=pgfleet"),
                    "{text}"
                );
                // What systemd has already it does not keep twice; who is given a socket twice must not mind.
                self.store.extend(received.into_iter().map(|fd| (fd, "pgfleet")));
            }
        }
    }
}

fn start_login(mut client: Client) -> Client {
    client.send(&startup(&[("user", "app"), ("database", "app")]));
    client
}

fn finish_login(client: &mut Client) {
    client.authenticate("app", None).unwrap();
    assert_eq!(client.value("select 1"), "1");
}

/// Stopped and started, as by a package's upgrade, with more workers and with fewer: whoever connects meanwhile waits, and nobody is reset.
#[test]
fn a_fleet_that_is_stopped_leaves_its_listeners_to_the_next() {
    let server = Postgres::start();
    for timeout in [0, 5] {
        let unstarted = Fleet::builder(&server).workers(3).setting("shutdown_drain_timeout", timeout).write();
        let path = unstarted.folder().join("notify");
        let mut manager = Manager::new(&path);
        let with_store = |mut command: std::process::Command| {
            command.env("NOTIFY_SOCKET", &path).env("FDSTORE", "100");
            command
        };
        let command = with_store(unstarted.command(&[]));
        let mut fleet = unstarted.start_as(command);
        wait_until("the fleet to be ready", SOON, || manager.hears("READY=1"));
        assert_eq!(manager.store.len(), 4, "three of TCP and one of the Unix socket");
        for workers in [3, 5, 2] {
            let mut there = fleet.client();
            assert_eq!(there.value("select 1"), "1");
            fleet.signal(Signal::SIGTERM);
            wait_until("the end to begin", SOON, || manager.hears("STOPPING=1"));
            if timeout == 0 {
                drop(there);
            } else {
                assert_eq!(there.refusal().code(), "57P01");
            }
            assert_eq!(fleet.wait_for_exit().code(), Some(0));
            let mut waiting: Vec<Client> = (0..40).map(|_| start_login(Client::tcp(fleet.port()))).collect();
            waiting.extend((0..5).map(|_| start_login(Client::unix(fleet.folder(), fleet.port()))));
            let stored = manager.store.clone();
            fleet.change_workers(workers);
            fleet.start_again(|files| with_store(files.command_with(&stored)));
            for client in &mut waiting {
                finish_login(client);
            }
            wait_until("the fleet to be ready", SOON, || manager.hears("READY=1"));
        }
    }
}

/// The service manager's own sockets, whatever listen_addr says: one for all workers, which nobody can bind another beside.
#[test]
fn socket_activation() {
    let server = Postgres::start();
    let unstarted = Fleet::builder(&server).workers(2).setting("listen_addr", "192.0.2.1").write();
    let tcp = TcpListener::bind(("127.0.0.1", unstarted.port())).unwrap();
    let path = unstarted.folder().join("activated");
    let unix = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    // It is what has the service started.
    let mut first = start_login(Client::tcp(unstarted.port()));
    let command = unstarted.command_with(&[(kept(&tcp), "pgfleet.socket"), (kept(&unix), "pgfleet.socket")]);
    let mut fleet = unstarted.start_as(command);
    finish_login(&mut first);
    for pid in fleet.all_workers() {
        assert_eq!(fleet.client_at(pid).value("select 1"), "1");
    }
    let mut at_the_socket = Client::unix_at(&path);
    at_the_socket.start(&[("user", "app"), ("database", "app")], None).unwrap();
    assert_eq!(at_the_socket.value("select 1"), "1");
    drop((first, at_the_socket));
    fleet.signal(Signal::SIGTERM);
    assert_eq!(fleet.wait_for_exit().code(), Some(0));
    assert!(path.exists(), "it is not ours");
    let _waits = Client::tcp(fleet.port());
}
