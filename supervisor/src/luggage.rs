//! Descriptors on their way through an exec: they stay open under their numbers, and what travels beside them names each by its place.

use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A descriptor's place among all that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place(u32);

/// What is taken along. Whoever had the descriptors still has them, should the exec fail.
#[derive(Debug, Default)]
pub(crate) struct Luggage(Vec<Arc<OwnedFd>>);

/// What has arrived. What nobody takes is closed with it.
#[derive(Debug, Default)]
pub(crate) struct Arrived(Vec<Option<OwnedFd>>);

impl Luggage {
    /// Takes a descriptor along.
    pub(crate) fn pack(&mut self, descriptor: &Arc<OwnedFd>) -> Place {
        self.0.push(Arc::clone(descriptor));
        Place(self.0.len() as u32 - 1)
    }

    /// All, in the order of their places.
    pub(crate) fn descriptors(&self) -> &[Arc<OwnedFd>] {
        &self.0
    }
}

impl Arrived {
    /// All, in the order of their places.
    pub(crate) fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors.into_iter().map(Some).collect())
    }

    /// The one at this place; `None` if it is not there, or was taken before.
    pub(crate) fn take(&mut self, place: Place) -> Option<OwnedFd> {
        self.0.get_mut(place.0 as usize)?.take()
    }
}
