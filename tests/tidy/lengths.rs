//! Short files and short lines: past 600 lines a file has two nouns.

use crate::tree::{self, File};

/// Lines a source file may have.
const FILE_LINES_MAX: usize = 600;

/// Columns a line of Rust may have. rustfmt breaks code at 100 and leaves comments as they are.
const LINE_COLUMNS_MAX: usize = 140;

/// Files that are longer, with their length when they were let in and the reason. The number may
/// only go down; a file that has become short leaves the list.
const LONGER: &[(&str, usize, &str)] = &[];

fn check(files: &[File], longer: &[(&str, usize, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let lines = file.text.lines().count();
        let exception = longer.iter().find(|(path, ..)| *path == file.path);
        let limit = exception.map_or(FILE_LINES_MAX, |(_, limit, _)| *limit);
        let path = &file.path;
        if lines > limit {
            findings.push(format!(
                "{path}: {lines} lines, at most {limit}: give its second noun a file"
            ));
        } else if exception.is_some() && lines <= FILE_LINES_MAX {
            findings.push(format!(
                "{path}: short enough now, take it off the list in tests/tidy/lengths.rs"
            ));
        }
        for (number, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX && can_be_broken(line) {
                findings.push(format!(
                    "{path}:{}: {columns} columns, at most {LINE_COLUMNS_MAX}",
                    number + 1
                ));
            }
        }
    }
    findings
}

/// False for a row of a table in a comment, for a line that is one string (a message is found best in
/// one piece), and for a line with few places to break, such as a test vector.
fn can_be_broken(line: &str) -> bool {
    let text = line.trim_start();
    let is_row = text.trim_start_matches(['/', '!', ' ']).starts_with('|');
    !is_row && !text.starts_with('"') && text.split_whitespace().count() > 4
}

#[test]
fn files_and_lines_are_short() {
    tree::assert_none(&check(&tree::files(), LONGER));
}

#[test]
fn long_files_and_lines_are_found() {
    let long = File::sample("a.rs", &"\n".repeat(FILE_LINES_MAX + 1));
    let wide = File::sample("b.rs", &"word ".repeat(30));
    assert_eq!(check(&[long.clone(), wide], &[]).len(), 2);
    let length = FILE_LINES_MAX + 1;
    assert!(check(std::slice::from_ref(&long), &[("a.rs", length, "a reason")]).is_empty());
    assert_eq!(
        check(&[File::sample("a.rs", "")], &[("a.rs", length, "a reason")]).len(),
        1
    );
}
