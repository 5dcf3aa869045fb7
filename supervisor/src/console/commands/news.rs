//! What has changed, or why nothing has, for whoever gave the command. The log has all of it, the console the beginning.

use shared::config::News;

/// The most lines of a kind.
const LINES: usize = 20;

/// Notices with their severities.
pub(super) fn lines(news: News) -> Vec<(&'static str, String)> {
    let with = |severity, lines| cut(lines).into_iter().map(move |line| (severity, line));
    with("NOTICE", news.changed).chain(with("WARNING", news.needs_restart)).collect()
}

/// An error's detail.
pub(super) fn reasons(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| cut(reasons.to_vec()).join("\n"))
}

fn cut(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LINES);
    if more > 0 {
        lines.truncate(LINES);
        lines.push(format!("and {more} more, which the log tells"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(reasons(&[]), None);
        assert_eq!(reasons(&many(2)).as_deref(), Some("0\n1"));
        assert!(reasons(&many(25)).is_some_and(|text| text.ends_with("\n19\nand 5 more, which the log tells")));
        let told = lines(News { changed: many(20), needs_restart: vec!["x".into()] });
        assert_eq!((told.len(), &told[20]), (21, &("WARNING", "x".to_owned())));
    }
}
