//! Who is at the other end of a Unix socket.

use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Process, user and group of the peer as they were when it connected (`SO_PEERCRED`). The process is 0 when it is in another pid namespace.
pub fn peer_credentials(fd: &impl AsFd) -> io::Result<(u32, u32, u32)> {
    let peer = getsockopt(fd, sockopt::PeerCredentials)?;
    Ok((peer.pid().unsigned_abs(), peer.uid(), peer.gid()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let (pid, uid, _gid) = peer_credentials(&a).unwrap();
        assert_eq!(pid, std::process::id());
        assert_eq!(uid, nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn a_socket_of_another_family_is_refused_or_has_no_process() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(peer_credentials(&socket).map_or(true, |(pid, _, _)| pid == 0));
    }
}
