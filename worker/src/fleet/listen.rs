//! Whose listeners this worker accepts from: its own slot's, and those of slots that are to have no worker.
//!
//! The supervisor holds every listener as long as the fleet lives, so a copy that is closed here takes no connection with it: what waits is
//! accepted by whoever holds another.

use crate::worker::{Life, Listener, Source, Worker};
use mio::Interest;
use shared::control::ToSupervisor;
use shared::ids::Slot;
use std::io;
use std::os::fd::OwnedFd;

/// With more workers than this each would wake for every client of a Unix socket, were it not for EPOLLEXCLUSIVE (epoll_ctl(2)).
const WAKE_ALL: usize = 4;

impl Worker {
    /// Accepts from the listeners of `of`: the first `tcp` descriptors, and Unix ones behind them.
    pub(crate) fn watch_listeners(&mut self, of: Slot, tcp: usize, fds: Vec<OwnedFd>) -> io::Result<()> {
        for (place, fd) in fds.into_iter().enumerate() {
            socket2::SockRef::from(&fd).set_nonblocking(true)?;
            let listener = if place < tcp {
                Listener::Tcp(of, mio::net::TcpListener::from_std(fd.into()))
            } else {
                Listener::Unix(mio::net::UnixListener::from_std(fd.into()))
            };
            let free = self.listeners.iter().position(|listener| matches!(listener, Listener::Closed));
            let index = free.unwrap_or(self.listeners.len());
            let listener = self.watch(index, listener)?;
            match self.listeners.get_mut(index) {
                Some(place) => *place = listener,
                None => self.listeners.push(listener),
            }
        }
        Ok(())
    }

    fn watch(&self, index: usize, mut listener: Listener) -> io::Result<Listener> {
        let token = mio::Token::from(Source::Listener(index));
        let registry = self.poll.registry();
        match &mut listener {
            Listener::Tcp(_, tcp) => registry.register(tcp, token, Interest::READABLE)?,
            Listener::Unix(unix) if self.inboxes.len() > WAKE_ALL => {
                shared::sys::epoll::add_exclusive(&self.poll, unix, token.0 as u64)?;
            }
            Listener::Unix(unix) => registry.register(unix, token, Interest::READABLE)?,
            Listener::Closed => {}
        }
        Ok(listener)
    }

    /// There were `before` workers and now there are more: Unix listeners are watched in the way that suits so many.
    pub(super) fn rewatch_unix(&mut self, before: usize) {
        if before > WAKE_ALL || self.inboxes.len() <= WAKE_ALL {
            return;
        }
        for index in 0..self.listeners.len() {
            self.rewatch(index);
        }
        self.accept_all();
    }

    /// Watches a Unix listener anew. What waits there is reported once more.
    pub(crate) fn rewatch(&mut self, index: usize) {
        self.ignore_shared(index);
        if !matches!(self.listeners[index], Listener::Unix(_)) {
            return;
        }
        let listener = std::mem::replace(&mut self.listeners[index], Listener::Closed);
        match self.watch(index, listener) {
            Ok(listener) => self.listeners[index] = listener,
            Err(error) => log::error!(target: "process", "could not watch a Unix listener: {error}"),
        }
    }

    /// Watches a Unix listener no more: a worker that does not accept must not be the only one that is woken for a client.
    pub(crate) fn ignore_shared(&mut self, index: usize) {
        if let Some(Listener::Unix(unix)) = self.listeners.get_mut(index) {
            let _ = self.poll.registry().deregister(unix);
        }
    }

    /// The supervisor asks for another slot's clients to be accepted here, or for this slot's again.
    pub(super) fn listen_for(&mut self, of: Slot, tcp: usize, fds: Vec<OwnedFd>) {
        if matches!(self.life, Life::Stopping(_)) {
            return;
        }
        if let Err(error) = self.watch_listeners(of, tcp, fds) {
            // What went well of it too: it is asked for again as a whole.
            let own = of == self.me.slot;
            self.close_listeners(|listener| match listener {
                Listener::Tcp(slot, _) => *slot == of,
                Listener::Unix(_) => own,
                Listener::Closed => false,
            });
            return self.cannot_listen(of, &error.to_string());
        }
        self.apply_tcp_settings();
        self.control.send(&ToSupervisor::Listening { of }, &[]);
        // What waits there may have made its edge before.
        self.accept_all();
    }

    /// Whoever has these listeners keeps them for now.
    pub(super) fn cannot_listen(&mut self, of: Slot, why: &str) {
        log::error!(target: "process", "cannot accept from the listeners of slot {of} yet: {why}");
        self.control.send(&ToSupervisor::CannotListen { of }, &[]);
    }

    /// Somebody else accepts from the listeners of `of`.
    pub(super) fn unlisten(&mut self, of: Slot) {
        self.close_listeners(|listener| matches!(listener, Listener::Tcp(slot, _) if *slot == of));
    }

    /// Closes copies of listeners. They are taken off the poll first: it would go on reporting what another process holds open.
    pub(super) fn close_listeners(&mut self, which: impl Fn(&Listener) -> bool) {
        for listener in self.listeners.iter_mut().filter(|listener| which(listener)) {
            let _ = match listener {
                Listener::Tcp(_, tcp) => self.poll.registry().deregister(tcp),
                Listener::Unix(unix) => self.poll.registry().deregister(unix),
                Listener::Closed => Ok(()),
            };
            *listener = Listener::Closed;
        }
    }

    /// Accepts what waits at every listener.
    pub(crate) fn accept_all(&mut self) {
        (0..self.listeners.len()).for_each(|listener| self.accept(listener));
    }
}
