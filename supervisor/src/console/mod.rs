//! The console.
mod encode;
mod grammar;
