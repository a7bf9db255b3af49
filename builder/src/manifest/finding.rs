//! What is wrong with a file a user wrote, and where: shown with line, column, the line itself and
//! a caret, so that it can be mended without looking anything up.

use std::fmt::{self, Display, Write as _};
use std::ops::Range;

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Bytes of the text it is about; `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding about `span`.
    pub fn new(span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A file that cannot be used, with everything that was found wrong.
#[derive(Debug, thiserror::Error)]
#[error("{shown}")]
pub struct Rejected {
    /// What is wrong, in the order of the file.
    pub findings: Vec<Finding>,
    shown: String,
}

impl Rejected {
    /// `file` is the name to show, `text` its content.
    pub fn new(file: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.span.as_ref().map_or(0, |span| span.start));
        let shown = findings
            .iter()
            .map(|finding| show(file, text, finding))
            .collect::<Vec<_>>()
            .join("\n");
        Self { findings, shown }
    }
}

/// `file:line:column: message`, the line, a caret under what is meant, and the hint.
fn show(file: &str, text: &str, finding: &Finding) -> String {
    let mut out = String::new();
    let place = finding.span.as_ref().map(|span| Place::of(text, span));
    let (line, column) = place.as_ref().map_or((1, 1), |p| (p.line, p.column));
    let _ = write!(out, "{file}:{line}:{column}: {}", finding.message);
    if let Some(place) = place {
        let _ = write!(out, "{place}");
    }
    if let Some(hint) = &finding.hint {
        let _ = write!(out, "\n   = {hint}");
    }
    out
}

/// A span as people count: lines and columns (in characters) from one.
struct Place<'a> {
    line: usize,
    column: usize,
    content: &'a str,
    /// Characters to underline on this line.
    width: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let content = text[line_start..].lines().next().unwrap_or("");
        let line_end = line_start + content.len();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            content,
            width: text[start..end.min(line_end).max(start)]
                .chars()
                .count()
                .max(1),
        }
    }
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        // Tabs in front of the caret are kept, so that it stands under the same column.
        let lead: String = self
            .content
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(
            f,
            "\n{number:>4} | {}\n     | {lead}{}",
            self.content,
            "^".repeat(self.width)
        )
    }
}

/// The nearest character boundary at or before `at`, within the text.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_line_column_caret_and_hint() {
        let text = "a = 1\n\tkéy = \"v\"\n";
        let at = text.find("\"v\"").unwrap();
        let finding = Finding::new(Some(at..at + 3), "`key` is wrong").hint("try `w`");
        assert_eq!(
            Rejected::new("f.toml", text, vec![finding]).to_string(),
            "f.toml:2:8: `key` is wrong\n   2 | \tkéy = \"v\"\n     | \t      ^^^\n   = try `w`"
        );
    }

    #[test]
    fn no_span_breaks_it() {
        let text = "é\né";
        for start in 0..8 {
            for end in 0..8 {
                let finding = Finding::new(Some(start..end), "m");
                assert!(Rejected::new("f", text, vec![finding])
                    .to_string()
                    .starts_with("f:"));
            }
        }
    }
}
