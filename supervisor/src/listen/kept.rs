//! Listeners that another image of the supervisor goes on with.

use super::{Keeper, Listeners, Unix};
use crate::luggage::{Arrived, Load, Place};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// The listeners by their places in the list of descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptListeners {
    tcp: Vec<Vec<Place>>,
    addresses: Vec<SocketAddr>,
    unix: Option<KeptUnix>,
    keeper: Keeper,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptUnix {
    socket: Place,
    path: String,
    kept: bool,
}

impl Listeners {
    /// Puts all of them on the list. None is sealed.
    pub(crate) fn keep<'a>(&'a self, load: &mut Load<'a>) -> KeptListeners {
        let unix =
            self.unix.as_ref().map(|unix| KeptUnix { socket: load.add(unix.as_fd()), path: unix.path.clone(), kept: unix.kept });
        let tcp = self.tcp.iter().map(|slot| slot.iter().map(|fd| load.add(fd.as_fd())).collect()).collect();
        KeptListeners { tcp, addresses: self.addresses.clone(), unix, keeper: self.keeper }
    }
}

impl KeptListeners {
    /// Takes them from what has arrived; `None` if one is missing.
    pub(crate) fn take(self, arrived: &mut Arrived) -> Option<Listeners> {
        let unix = match self.unix {
            Some(KeptUnix { socket, path, kept }) => Some(Unix { socket: arrived.take(socket)?.into(), path, kept }),
            None => None,
        };
        let mut slot = |places: Vec<Place>| places.into_iter().map(|place| arrived.take(place)).collect();
        let tcp = self.tcp.into_iter().map(&mut slot).collect::<Option<_>>()?;
        Some(Listeners { tcp, addresses: self.addresses, unix, keeper: self.keeper, sinks: Vec::new() })
    }
}
