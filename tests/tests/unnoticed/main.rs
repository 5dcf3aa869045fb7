//! Where drivers notice other poolers and must not notice this one: each case runs a program against PostgreSQL itself and through a
//! fleet, and compares what it saw.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

mod altered;
