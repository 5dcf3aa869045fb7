//! DRAIN (ours): nobody is let in and every client is sent away between two transactions. Answered when none is left.

use super::Reply;
use crate::fleet::Request;
use std::time::Duration;

/// `None`: options that are not understood.
pub(super) fn run(options: &[String]) -> Option<Reply> {
    let (per_second, deadline) = parse(options)?;
    Some(Reply::order(Request::Drain { per_second, deadline }, "DRAIN"))
}

/// `[RATE clients a second] [DEADLINE seconds]`, in any order, each a whole number from 1.
fn parse(options: &[String]) -> Option<(Option<u32>, Option<Duration>)> {
    let (mut per_second, mut deadline) = (None, None);
    let (pairs, rest) = options.as_chunks::<2>();
    for [name, value] in pairs {
        let value: u32 = value.parse().ok().filter(|value| *value > 0)?;
        let before = match name.to_ascii_lowercase().as_str() {
            "rate" => per_second.replace(value),
            "deadline" => deadline.replace(value),
            _ => return None,
        };
        if before.is_some() {
            return None;
        }
    }
    rest.is_empty().then_some((per_second, deadline.map(|seconds| Duration::from_secs(seconds.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse(""), Some((None, None)));
        assert_eq!(parse("rate 5"), Some((Some(5), None)));
        assert_eq!(parse("DEADLINE 30 Rate 5"), Some((Some(5), Some(Duration::from_secs(30)))));
        for wrong in ["rate", "rate 0", "rate x", "5", "rate 5 rate 6", "rate 5 deadline", "speed 5", "deadline 99999999999"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
