//! TOML tables with their places: the layer between the parser and the meaning of the keys.
//!
//! One or more files are read as if they were one. A key that stands in several files counts as
//! the last file has it; entries of `[[lists]]` are put one after the other. Every key that a
//! [`Section`] is asked for is thereby known; the others are reported by [`Section::finish`] with
//! the known key that looks most like it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::pins;
use super::place::Place;
use super::problem::Problem;

/// The text of one file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Where each line begins: there are files with very many grants.
    starts: Vec<usize>,
}

/// Gathers everything that is wrong, so that one run shows it all.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

/// A table, put together from every file that has a part of it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// `tls`, `clients.grants`; empty for the whole document.
    name: String,
    parts: Vec<Part<'a>>,
    known: RefCell<BTreeSet<&'static str>>,
    problems: &'a Problems,
    /// Where a missing key is reported.
    main: &'a Source,
}

#[derive(Debug, Clone)]
struct Part<'a> {
    source: &'a Source,
    table: &'a DeTable<'a>,
    span: Range<usize>,
}

/// The value of a key.
#[derive(Debug, Clone)]
pub(super) struct Value<'a> {
    name: String,
    source: &'a Source,
    value: &'a Spanned<DeValue<'a>>,
    problems: &'a Problems,
}

impl Source {
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        Self { path, text, starts }
    }

    /// The number, from 1, of the line that holds the byte at `offset`.
    fn line_number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The same, and the text of the line as far as it may be shown.
    fn line(&self, offset: usize) -> (usize, String) {
        let number = self.line_number(offset);
        let rest = (self.starts.get(number - 1)).and_then(|start| self.text.get(*start..));
        let line = rest
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        (number, pins::shown(line).to_owned())
    }

    /// A problem at `span`.
    fn problem(&self, span: &Range<usize>, what: String, fix: String) -> Problem {
        Problem {
            file: self.path.clone(),
            line: Some(self.line(span.start)),
            what,
            fix,
        }
    }

    /// Parses the text.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, Problem> {
        DeTable::parse(&self.text).map_err(|error| {
            let what = format!("this is not TOML: {}", error.message());
            let fix =
                "compare the line with systemd/keyserver.toml; strings stand in double quotes";
            self.problem(&error.span().unwrap_or_default(), what, fix.to_owned())
        })
    }
}

impl Problems {
    pub(super) fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

impl<'a> Section<'a> {
    /// The whole of `files`, in order of rising weight.
    pub(super) fn root(
        files: impl Iterator<Item = (&'a Source, &'a Spanned<DeTable<'a>>)>,
        main: &'a Source,
        problems: &'a Problems,
    ) -> Self {
        let parts = files
            .map(|(source, table)| Part {
                source,
                table: table.get_ref(),
                span: table.span(),
            })
            .collect();
        Self {
            name: String::new(),
            parts,
            known: RefCell::default(),
            problems,
            main,
        }
    }

    fn named(&self, name: String, parts: Vec<Part<'a>>) -> Self {
        let (problems, main) = (self.problems, self.main);
        Self {
            name,
            parts,
            known: RefCell::default(),
            problems,
            main,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// Every value of `key`, in file order.
    fn values(&self, key: &'static str) -> Vec<Value<'a>> {
        self.known.borrow_mut().insert(key);
        let find = |part: &Part<'a>| {
            let (_, value) = part.table.iter().find(|(name, _)| name.get_ref() == key)?;
            let (source, problems) = (part.source, self.problems);
            Some(Value {
                name: self.path_of(key),
                source,
                value,
                problems,
            })
        };
        self.parts.iter().filter_map(find).collect()
    }

    /// The value of `key`, if there is one.
    pub(super) fn optional(&self, key: &'static str) -> Option<Value<'a>> {
        self.values(key).pop()
    }

    /// The value of `key`; without one, a problem that shows `example`.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Value<'a>> {
        let value = self.optional(key);
        if value.is_none() {
            let what = format!("`{}` is missing", self.path_of(key));
            let table = if self.parts.is_empty() {
                format!("[{}] ", self.name)
            } else {
                String::new()
            };
            self.problem(what, format!("add {table}`{key} = {example}`"));
        }
        value
    }

    /// The table `key`; an empty one if there is none.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let mut parts = Vec::new();
        for value in self.values(key) {
            match value.value.get_ref() {
                DeValue::Table(table) => {
                    parts.push(Part {
                        source: value.source,
                        table,
                        span: value.value.span(),
                    });
                }
                _ => value.wrong_type(&format!("a table, written as [{}]", value.name)),
            }
        }
        self.named(self.path_of(key), parts)
    }

    /// The entries of the list of tables `key`.
    pub(super) fn list(&self, key: &'static str) -> Vec<Self> {
        let name = self.path_of(key);
        let mut entries = Vec::new();
        for value in self.values(key) {
            let DeValue::Array(items) = value.value.get_ref() else {
                value.wrong_type(&format!("a list of tables, written as [[{name}]]"));
                continue;
            };
            for item in items {
                match item.get_ref() {
                    DeValue::Table(table) => {
                        let part = Part {
                            source: value.source,
                            table,
                            span: item.span(),
                        };
                        entries.push(self.named(name.clone(), vec![part]));
                    }
                    _ => value.wrong_type(&format!("a list of tables, written as [[{name}]]")),
                }
            }
        }
        entries
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        let place = if self.name.is_empty() {
            "at the top of the file".to_owned()
        } else {
            format!("in [{}]", self.name)
        };
        for part in &self.parts {
            for (key, _) in part.table {
                let name = key.get_ref().as_ref();
                if !known.contains(name) {
                    let what = format!("unknown key `{}` {place}", name.escape_debug());
                    let fix = suggest(name, known.iter().copied());
                    self.problems
                        .add(part.source.problem(&key.span(), what, fix));
                }
            }
        }
    }

    /// Where the section and the settings in it stand; those that were asked for.
    pub(super) fn place(&self) -> Place {
        let Some(part) = self.parts.last() else {
            return Place::new(self.main.path.clone(), 1, Vec::new());
        };
        let known = self.known.borrow();
        let settings = part.table.iter().filter_map(|(key, _)| {
            let name = known.get(key.get_ref().as_ref())?;
            Some((*name, part.source.line_number(key.span().start)))
        });
        let line = part.source.line_number(part.span.start);
        Place::new(part.source.path.clone(), line, settings.collect())
    }

    /// Something is wrong with the section as a whole.
    pub(super) fn problem(&self, what: String, fix: String) {
        self.problems.add(match self.parts.last() {
            Some(part) if !self.name.is_empty() => part.source.problem(&part.span, what, fix),
            _ => Problem {
                file: self.main.path.clone(),
                line: None,
                what,
                fix,
            },
        });
    }
}

impl<'a> Value<'a> {
    /// The full name of its key: `tls.certificate`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A problem with this value.
    pub(super) fn to_problem(&self, what: String, fix: impl Into<String>) -> Problem {
        self.source.problem(&self.value.span(), what, fix.into())
    }

    /// Reports a problem with this value.
    pub(super) fn problem(&self, what: String, fix: impl Into<String>) {
        self.problems.add(self.to_problem(what, fix));
    }

    fn wrong_type(&self, wanted: &str) {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(
            format!("`{}` is {found}", self.name),
            format!("give {wanted}"),
        );
    }

    /// A string.
    pub(super) fn string(&self, wanted: &str) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(wanted);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type("true or false, without quotes");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: Range<u64>) -> Option<u64> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            self.wrong_type(&format!(
                "a whole number from {} to {}",
                range.start,
                range.end - 1
            ));
            return None;
        };
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let good = value.filter(|value| range.contains(value));
        if good.is_none() {
            self.problem(
                format!("`{}` = {number} is out of bounds", self.name),
                format!(
                    "give a whole number from {} to {}",
                    range.start,
                    range.end - 1
                ),
            );
        }
        good
    }

    /// A string that `read` understands.
    pub(super) fn text<T>(&self, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.string(wanted)?;
        let value = read(text);
        if value.is_none() {
            let what = format!(
                "`{}` = \"{}\" is not understood",
                self.name,
                text.escape_debug()
            );
            self.problem(what, format!("give {wanted}"));
        }
        value
    }

    /// The text of a date, whether it is written as a TOML date or as a string.
    pub(super) fn date_text(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::Datetime(date) => Some(date.to_string()),
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong_type("the last day, like 2027-06-30");
                None
            }
        }
    }

    /// One string, or a list of strings, each with its own place.
    pub(super) fn items(&self, wanted: &str) -> Vec<Self> {
        match self.value.get_ref() {
            DeValue::String(_) => vec![self.clone()],
            DeValue::Array(items) => items
                .iter()
                .map(|value| Value {
                    value,
                    ..self.clone()
                })
                .collect(),
            _ => {
                self.wrong_type(wanted);
                Vec::new()
            }
        }
    }
}

/// "did you mean ...", or all that could have been meant.
pub(super) fn suggest(name: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let closest = known
        .clone()
        .min_by_key(|candidate| distance(name, candidate));
    match closest {
        Some(close) if distance(name, close) <= 1 + name.chars().count() / 3 => {
            format!("did you mean `{close}`?")
        }
        _ => format!(
            "remove it; known here: {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
/// (restricted Damerau-Levenshtein). Long names are cut: their distance is large anyway.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replace = last[j] + usize::from(from != to);
            let mut best = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_as_people_mistype() {
        assert_eq!(distance("certificate", "certificate"), 0);
        assert_eq!(distance("certifcate", "certificate"), 1);
        assert_eq!(distance("adress", "address"), 1);
        assert_eq!(distance("lsiten", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("clients", "keys"), 5);
    }

    #[test]
    fn a_suggestion_is_close_or_complete() {
        let known = ["address", "backlog"];
        assert_eq!(
            suggest("adress", known.into_iter()),
            "did you mean `address`?"
        );
        let far = suggest("hostname", known.into_iter());
        assert_eq!(far, "remove it; known here: address, backlog");
    }

    #[test]
    fn lines_are_counted_from_one() {
        let source = Source::new(PathBuf::from("x"), "a = 1\nb = 2\n".to_owned());
        assert_eq!(source.line(0), (1, "a = 1".to_owned()));
        assert_eq!(source.line(6), (2, "b = 2".to_owned()));
        assert_eq!(source.line(999), (3, String::new()));
    }
}
