//! wip
use super::settings::{Key, SetError};
pub(super) trait Keyed {
    const KEYS: &'static [Key];
    fn set(&mut self, name: &str, text: &str) -> Result<(), SetError>;
}
