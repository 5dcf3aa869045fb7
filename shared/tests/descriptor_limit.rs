//! At its descriptor limit a process loses the descriptors of a datagram, and is told so. In a file of its own: the limit is the process's.
#![allow(clippy::unwrap_used)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shared::sys::seqpacket;
use std::os::fd::{AsFd, AsRawFd};

#[test]
fn lost_descriptors_are_reported_and_the_others_arrive() {
    let (a, b) = seqpacket::pair().unwrap();
    seqpacket::send(a.as_fd(), b"three", &[a.as_fd(), a.as_fd(), a.as_fd()]).unwrap();
    let next = a.try_clone().unwrap().as_raw_fd(); // the lowest free number, free again here
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, next.unsigned_abs().into(), hard).unwrap();
    let none = seqpacket::recv(b.as_fd(), &mut [0; 10]).unwrap();
    assert_eq!((none.len, none.fds.len(), none.truncated), (5, 0, true));

    seqpacket::send(a.as_fd(), b"two", &[a.as_fd(), a.as_fd()]).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, u64::from(next.unsigned_abs()) + 1, hard).unwrap();
    let one = seqpacket::recv(b.as_fd(), &mut [0; 10]).unwrap();
    assert_eq!((one.len, one.fds.len(), one.truncated), (3, 1, true));
}
