//! The targets on their corpora and mutations of them. A failure prints the seed: `PGFLEET_SEED=… cargo test -p worker fuzz` runs that one again.

use replay::{Extent, survives};

macro_rules! targets {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            survives(stringify!($target), Extent::default(), super::$target);
        }
    )*};
}
targets!(startup proxy access ldap scram client_stream server_stream exchange);
