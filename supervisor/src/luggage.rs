//! Descriptors on their way through an exec: they stay open under their numbers, and what travels beside them names each by its place.

use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A descriptor's place among all that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place(u32);

/// What is taken along. Whoever had the descriptors still has them, should the exec fail.
#[derive(Debug, Default)]
pub(crate) struct Luggage(Vec<Arc<OwnedFd>>);

/// All that is taken along: the luggage, and what stays where it is until the exec.
pub(crate) struct Load<'a>(Vec<BorrowedFd<'a>>);

/// What has arrived. What nobody takes is closed with it.
#[derive(Debug, Default)]
pub(crate) struct Arrived(Vec<Option<OwnedFd>>);

impl Luggage {
    /// Takes a descriptor along.
    pub(crate) fn pack(&mut self, descriptor: &Arc<OwnedFd>) -> Place {
        self.0.push(Arc::clone(descriptor));
        Place(self.0.len() as u32 - 1)
    }
}

/// As if it had arrived here.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn carry(luggage: &Luggage) -> Arrived {
    Arrived::new(luggage.0.iter().map(|fd| Some(fd.try_clone().unwrap())).collect())
}

impl<'a> Load<'a> {
    /// Begins with all that has a place already.
    pub(crate) fn of(luggage: &'a Luggage) -> Self {
        Self(luggage.0.iter().map(AsFd::as_fd).collect())
    }

    /// Takes one more descriptor along.
    pub(crate) fn add(&mut self, descriptor: BorrowedFd<'a>) -> Place {
        self.0.push(descriptor);
        Place(self.0.len() as u32 - 1)
    }

    /// All, in the order of their places.
    pub(crate) fn descriptors(&self) -> &[BorrowedFd<'a>] {
        &self.0
    }
}

impl Arrived {
    /// All, in the order of their places; `None` for one that is not there any more.
    pub(crate) fn new(descriptors: Vec<Option<OwnedFd>>) -> Self {
        Self(descriptors)
    }

    /// The one at this place; `None` if it is not there, or was taken before.
    pub(crate) fn take(&mut self, place: Place) -> Option<OwnedFd> {
        self.0.get_mut(place.0 as usize)?.take()
    }
}
