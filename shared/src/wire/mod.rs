//! PostgreSQL's frontend/backend protocol 3.0, sans-IO: bytes in, messages out, and back.
//!
//! The data path looks at message headers only ([`header`]) and inside the few messages that pooling needs ([`frontend`],
//! [`backend`]); [`startup`] reads what comes before the first typed message, and [`proxy`] what a proxy puts before that; [`encode`] and [`report`] write. Nothing here allocates for a
//! message that is only passed on. Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

pub mod backend;
pub mod cursor;
pub mod encode;
pub mod frontend;
pub mod header;
pub mod proxy;
pub mod report;
pub mod startup;
