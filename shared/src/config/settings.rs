//! The shape of the settings table: what a row says, and the macro that turns the rows of [`super::table`] into the [`Settings`]
//! struct, its readers and SHOW CONFIG.
//!
//! [`Settings`]: super::Settings

use super::entries::{DATABASE_KEYS, USER_KEYS};
use super::kind::Kind;

/// One setting of the `[pgbouncer]` section.
#[derive(Debug)]
pub struct Setting {
    /// Its name in files, in SET and in SHOW CONFIG.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its default as SHOW CONFIG prints it; `None` is NULL.
    pub default: Option<&'static str>,
    /// Where the reference page lists it.
    pub group: Group,
    /// Whether RELOAD and SET apply a new value; otherwise the fleet must be restarted for it.
    pub reloadable: bool,
    /// Whether it does anything.
    pub effect: Effect,
    /// What it is for.
    pub help: &'static str,
}

impl Setting {
    /// The row of this name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        super::TABLE.iter().find(|s| s.name == name)
    }

    /// The key by which a `[databases]` entry overrides it.
    pub fn database_key(&self) -> Option<&'static str> {
        self.key_in(DATABASE_KEYS)
    }

    /// The key by which a `[users]` entry overrides it.
    pub fn user_key(&self) -> Option<&'static str> {
        self.key_in(USER_KEYS)
    }

    /// Overrides have the setting's name, without `default_`, or without `server_` where libpq knows the name. A database's `user` is another
    /// matter than the setting's.
    fn key_in(&self, keys: &'static [Key]) -> Option<&'static str> {
        let without = |prefix| self.name.strip_prefix(prefix).unwrap_or(self.name);
        let names = [without("default_"), without("server_"), self.name];
        keys.iter().find(|k| names.contains(&k.name) && k.name != "user").map(|k| k.name)
    }
}

/// One key of a `[databases]`, `[users]` or `[peers]` entry.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Its default; `None` where the fleet's setting or nothing stands in.
    pub default: Option<&'static str>,
    /// Whether it does anything.
    pub effect: Effect,
    /// What it is for.
    pub help: &'static str,
}

/// Whether a setting does anything. One that does not is named by `pgfleet check`, and at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is in force.
    Works,
    /// It is read and does nothing yet.
    NotYet,
    /// It will never do anything, and this is why.
    Never(&'static str),
}

/// The chapters of the reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Processes, files, the fleet as such.
    Fleet,
    /// Listeners and socket options.
    Network,
    /// Pool modes, sizes and limits.
    Pools,
    /// Who may log in, and how.
    Auth,
    /// TLS with clients.
    ClientTls,
    /// TLS with servers.
    ServerTls,
    /// Timeouts.
    Timeouts,
    /// What is done with a server connection between two clients.
    Servers,
    /// Logging and statistics.
    Logging,
}

impl Group {
    /// All of them, in the order of the page.
    pub const ALL: [Group; 9] = [
        Group::Fleet,
        Group::Network,
        Group::Pools,
        Group::Auth,
        Group::ClientTls,
        Group::ServerTls,
        Group::Timeouts,
        Group::Servers,
        Group::Logging,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Fleet => "The fleet",
            Group::Network => "Network",
            Group::Pools => "Pools and limits",
            Group::Auth => "Authentication",
            Group::ClientTls => "TLS with clients",
            Group::ServerTls => "TLS with servers",
            Group::Timeouts => "Timeouts",
            Group::Servers => "Server connections between clients",
            Group::Logging => "Logging and statistics",
        }
    }
}

/// Why a value was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no setting of this name.
    #[error("no such setting")]
    Unknown,
    /// The value must be something else: what.
    #[error("must be {0}")]
    Invalid(String),
}

/// Turns `NULL` and literals of a table's default column into `Option<&str>`.
macro_rules! default_text {
    (NULL) => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}
pub(super) use default_text;

/// Turns a default column's text into the field's value. That each row's default can be read is tested.
macro_rules! default_value {
    ($type:ty, $kind:expr, NULL) => {
        <$type>::default()
    };
    ($type:ty, $kind:expr, $text:literal) => {
        <$type as Field>::read(&$kind, $text).unwrap_or_default()
    };
}
pub(super) use default_value;

/// `name: Type = default, KIND, Group, Reload|Restart, EFFECT, "help";` for each setting.
macro_rules! settings {
    ($($name:ident : $type:ty = $default:tt, $kind:expr, $group:ident, $change:ident, $effect:expr, $help:expr;)*) => {
        /// The value of every setting. A time of zero means "no limit" unless the setting says otherwise.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $type,)*
        }

        /// Every setting, in the order of SHOW CONFIG.
        pub static TABLE: &[Setting] = &[$(Setting {
            name: stringify!($name),
            kind: $kind,
            default: default_text!($default),
            group: Group::$group,
            reloadable: matches!(Change::$change, Change::Reload),
            effect: $effect,
            help: $help,
        },)*];

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: default_value!($type, $kind, $default),)* }
            }
        }

        impl Settings {
            /// Gives one setting a value in PgBouncer's text form, as SET does.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), SetError> {
                match name {
                    $(stringify!($name) => self.$name = Field::read(&$kind, text).map_err(SetError::Invalid)?,)*
                    _ => return Err(SetError::Unknown),
                }
                Ok(())
            }

            /// A setting's value as SHOW CONFIG prints it; `None` is NULL, or no setting of this name.
            pub fn value(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($name) => self.$name.show(),)*
                    _ => None,
                }
            }

            /// Takes over what a reload cannot change.
            pub(super) fn keep_unchangeable(&mut self, running: &Settings) {
                $(if matches!(Change::$change, Change::Restart) {
                    self.$name.clone_from(&running.$name);
                })*
            }

            /// The settings whose values differ from `other`'s.
            pub(super) fn differing(&self, other: &Settings) -> Vec<&'static Setting> {
                let differs = [$(self.$name != other.$name,)*];
                TABLE.iter().zip(differs).filter(|(_, differs)| *differs).map(|(setting, _)| setting).collect()
            }
        }
    };
}
pub(super) use settings;

/// `name: Type = default, KIND, EFFECT, "help";` for each key of an entry.
macro_rules! entry {
    ($(#[$doc:meta])* $entry:ident { $(#[$name_doc:meta])* $named:ident : $named_type:ty }, $table:ident {
        $($name:ident : $type:ty = $default:tt, $kind:expr, $effect:expr, $help:expr;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $entry {
            $(#[$name_doc])* pub $named: $named_type,
            $(#[doc = $help] pub $name: $type,)*
        }

        /// The keys of such an entry.
        pub static $table: &[Key] = &[$(Key {
            name: stringify!($name),
            kind: $kind,
            default: default_text!($default),
            effect: $effect,
            help: $help,
        },)*];

        impl $entry {
            /// An entry that sets nothing.
            pub fn new($named: $named_type) -> Self {
                Self { $named, $($name: default_value!($type, $kind, $default),)* }
            }

            /// The keys whose values differ from `other`'s.
            pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
                let differs = [$((stringify!($name), self.$name != other.$name),)*];
                differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
            }
        }

        /// An entry without a name: what a key that another build does not write means.
        impl Default for $entry {
            fn default() -> Self {
                Self::new(Default::default())
            }
        }

        impl super::build::Keyed for $entry {
            const KEYS: &'static [Key] = $table;

            fn set(&mut self, name: &str, text: &str) -> Result<(), SetError> {
                match name {
                    $(stringify!($name) => self.$name = Field::read(&$kind, text).map_err(SetError::Invalid)?,)*
                    _ => return Err(SetError::Unknown),
                }
                Ok(())
            }
        }
    };
}
pub(super) use entry;
