//! Options of our own commands: `NAME number`, in any order, each at most once.

/// The numbers, whole ones from 1, in the order of `names`. `None`: something else was written.
pub(super) fn numbers<const N: usize>(words: &[String], names: [&str; N]) -> Option<[Option<u32>; N]> {
    let mut values = [None; N];
    let (pairs, rest) = words.as_chunks::<2>();
    for [name, value] in pairs {
        let value: u32 = value.parse().ok().filter(|value| *value > 0)?;
        let at = names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        if values[at].replace(value).is_some() {
            return None;
        }
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_any_order_and_nothing_else() {
        let read = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            numbers(&words, ["rate", "deadline"])
        };
        assert_eq!(read(""), Some([None, None]));
        assert_eq!(read("rate 5"), Some([Some(5), None]));
        assert_eq!(read("DEADLINE 30 Rate 5"), Some([Some(5), Some(30)]));
        for wrong in ["rate", "rate 0", "rate x", "5", "rate 5 rate 6", "rate 5 deadline", "speed 5", "deadline 99999999999"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
