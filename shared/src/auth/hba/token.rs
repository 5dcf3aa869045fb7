//! The words of a line: fields separated by blanks, each a list of words separated by commas, as PostgreSQL's `hba.c` reads them.

/// A word. In quotes it is a name, whatever it spells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) quoted: bool,
}

impl Token {
    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// What stands behind `mark`, if it begins so and is not quoted.
    pub(super) fn marked(&self, mark: char) -> Option<&str> {
        self.text.strip_prefix(mark).filter(|rest| !self.quoted && !rest.is_empty())
    }
}

/// Words, and where in the line they end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) tokens: Vec<Token>,
    pub(super) end: usize,
}

impl Field {
    /// The word, if it is only one.
    pub(super) fn single(&self) -> Option<&Token> {
        match &self.tokens[..] {
            [token] => Some(token),
            _ => None,
        }
    }
}

/// The fields of a line, and its length without the comment.
pub(super) fn fields(line: &str) -> Result<(Vec<Field>, usize), &'static str> {
    let mut reader = Reader { line, at: 0 };
    let mut fields = Vec::new();
    let mut goes_on = false;
    while let Some((token, comma)) = reader.token()? {
        match fields.last_mut() {
            Some(Field { tokens, end }) if goes_on => {
                tokens.push(token);
                *end = reader.at;
            }
            _ => fields.push(Field { tokens: vec![token], end: reader.at }),
        }
        goes_on = comma;
    }
    Ok((fields, reader.at))
}

struct Reader<'a> {
    line: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.line[self.at..].chars().next()
    }

    /// The next word, and whether a comma follows it at once. `None` at the comment or the end, where `at` stays.
    fn token(&mut self) -> Result<Option<(Token, bool)>, &'static str> {
        while let Some(c) = self.peek().filter(|c| is_blank(*c) || *c == ',') {
            self.at += c.len_utf8();
        }
        let mut token = Token { text: String::new(), quoted: false };
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                '#' => break,
                ',' => {
                    self.at += 1;
                    return Ok(Some((token, true)));
                }
                '"' => {
                    token.quoted |= self.at == start;
                    self.quoted(&mut token.text)?;
                    continue;
                }
                c if is_blank(c) => break,
                c => token.text.push(c),
            }
            self.at += c.len_utf8();
        }
        Ok((self.at > start).then_some((token, false)))
    }

    /// Reads from one quote to the other; two in a row stand for one.
    fn quoted(&mut self, text: &mut String) -> Result<(), &'static str> {
        loop {
            let rest = &self.line[self.at + 1..];
            let end = rest.find('"').ok_or("a quote is not closed")?;
            text.push_str(&rest[..end]);
            self.at += end + 2;
            if self.peek() != Some('"') {
                return Ok(());
            }
            text.push('"');
        }
    }
}

/// What separates fields.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `field|field`, words by commas, quoted ones with an apostrophe.
    fn shown(line: &str) -> String {
        let word = |t: &Token| format!("{}{}", if t.quoted { "'" } else { "" }, t.text);
        let field = |f: &Field| f.tokens.iter().map(word).collect::<Vec<_>>().join(",");
        fields(line).unwrap().0.iter().map(field).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn blanks_separate_fields_and_commas_words() {
        for (line, expected) in [
            ("host all all 0.0.0.0/0 md5", "host|all|all|0.0.0.0/0|md5"),
            ("  host\ta,b\tc ", "host|a,b|c"),
            ("host a, b c", "host|a,b|c"),
            ("host a ,b c", "host|a|b|c"),
            (",host a,,b", "host|a,b"),
            ("", ""),
            ("# host", ""),
            ("host all#comment", "host|all"),
            ("host \"a#b\" # \"", "host|'a#b"),
            (r#""all" "with space" "a""b" x"y z""#, "'all|'with space|'a\"b|xy z"),
            (r#""""" "" """#, "'\"|'|'"),
            ("\"a,b\",c", "'a,b,c"),
            ("größe \"ü ö\"", "größe|'ü ö"),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
        assert_eq!(fields("host \"all"), Err("a quote is not closed"));
    }

    #[test]
    fn a_fields_end_and_the_comment_are_found() {
        let line = "host a,b  md5 x=\"#\" # no";
        let (fields, length) = fields(line).unwrap();
        assert_eq!(&line[fields[1].end..length], "  md5 x=\"#\" ");
    }
}
