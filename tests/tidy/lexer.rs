//! Just enough of Rust's lexical rules to tell code from comments and strings.

/// The code of a file: comments, and the contents of strings and character literals, are blank.
/// Lines keep their numbers.
pub(crate) fn code(text: &str) -> String {
    Lexer::new(text).run(false)
}

/// As [`code`], with the contents of strings left in place (for `#[path = "..."]`).
pub(crate) fn code_and_strings(text: &str) -> String {
    Lexer::new(text).run(true)
}

/// The words of a line of code: runs of letters, digits and underscores.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

struct Lexer {
    rest: std::collections::VecDeque<char>,
    out: String,
    keep_strings: bool,
}

impl Lexer {
    fn new(text: &str) -> Self {
        Self {
            rest: text.chars().collect(),
            out: String::new(),
            keep_strings: false,
        }
    }

    fn run(mut self, keep_strings: bool) -> String {
        self.keep_strings = keep_strings;
        let mut previous = ' ';
        while let Some(&next) = self.rest.front() {
            let starts_word = !(previous.is_alphanumeric() || previous == '_');
            if self.starts_with("//") {
                self.blank_while(|c| c != '\n');
            } else if self.starts_with("/*") {
                self.block_comment();
            } else if next == '"' {
                self.string(0);
            } else if let Some(hashes) = self.raw_string_ahead().filter(|_| starts_word) {
                self.raw_string(hashes);
            } else if next == '\'' {
                self.quote();
            } else {
                self.keep(1);
            }
            previous = next;
        }
        self.out
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(i, c)| self.rest.get(i) == Some(&c))
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            self.out.extend(self.rest.pop_front());
        }
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            let c = self.rest.pop_front();
            self.out.push(if c == Some('\n') { '\n' } else { ' ' });
        }
    }

    fn text(&mut self, count: usize) {
        if self.keep_strings {
            self.keep(count)
        } else {
            self.blank(count)
        }
    }

    fn blank_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.rest.front().is_some_and(|&c| wanted(c)) {
            self.blank(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.starts_with("/*") {
                depth += 1;
                self.blank(2);
            } else if self.starts_with("*/") {
                depth -= 1;
                self.blank(2);
            } else if !self.rest.is_empty() {
                self.blank(1);
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// A string in quotes; with `hashes` above zero, or for a raw string, without escapes.
    fn string(&mut self, hashes: usize) {
        self.keep(1);
        let end: String = std::iter::once('"')
            .chain(std::iter::repeat_n('#', hashes))
            .collect();
        while !self.rest.is_empty() && !self.starts_with(&end) {
            let escaped = hashes == 0 && self.starts_with("\\");
            self.text(if escaped { 2.min(self.rest.len()) } else { 1 });
        }
        self.keep(end.len().min(self.rest.len()));
    }

    /// The number of `#` of a raw string that starts here (`r"`, `br#"`, `cr##"`).
    fn raw_string_ahead(&self) -> Option<usize> {
        let prefix = ["r", "br", "cr"]
            .into_iter()
            .find(|p| self.starts_with(p))?
            .len();
        let hashes = self
            .rest
            .iter()
            .skip(prefix)
            .take_while(|&&c| c == '#')
            .count();
        (self.rest.get(prefix + hashes) == Some(&'"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) {
        while self.rest.front() != Some(&'"') {
            self.keep(1);
        }
        if hashes > 0 {
            self.string(hashes);
        } else {
            self.keep(1);
            while self.rest.front().is_some_and(|&c| c != '"') {
                self.text(1);
            }
            self.keep(1);
        }
    }

    /// A quotation mark begins a character literal or a lifetime.
    fn quote(&mut self) {
        let escaped = self.rest.get(1) == Some(&'\\');
        if !escaped && self.rest.get(2) != Some(&'\'') {
            self.keep(1); // a lifetime
            return;
        }
        self.keep(1);
        self.blank(if escaped { 2 } else { 1 });
        self.blank_while(|c| c != '\'');
        self.keep(1);
    }
}

#[test]
fn comments_strings_and_characters_are_not_code() {
    let text = "let a = \"unsafe \\\" { \"; // unsafe\n/* unsafe /* nested */ unsafe */ let b = '\"';\n\
                let c = r#\"unsafe \" \"#; let d: &'static str = r\"unsafe\"; let e = b'\\''; unsafe {}";
    let code = code(text);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.matches("unsafe").count(), 1, "{code}");
    assert!(code.trim_end().ends_with("unsafe {}"), "{code}");
    assert!(code.contains("&'static str"), "{code}");
    assert_eq!(code_and_strings(text).matches("unsafe").count(), 4);
}

#[test]
fn words_are_whole() {
    assert_eq!(
        words("use aws_lc_sys::{A, b};").collect::<Vec<_>>(),
        ["use", "aws_lc_sys", "A", "b"]
    );
}
