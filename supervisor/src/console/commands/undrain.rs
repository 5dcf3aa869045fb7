//! UNDRAIN (ours): takes a DRAIN back. Clients that have been sent away are not called back, but new ones are let in again.

use super::Reply;
use crate::fleet::Request;

pub(super) fn run() -> Reply {
    Reply::order(Request::Undrain, "UNDRAIN")
}
