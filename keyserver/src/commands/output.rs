//! The one place that writes to the terminal. Everything else returns text or logs.

use std::io::{self, IsTerminal, Write};

/// Writes `text` to standard output as it is. A closed pipe (`keyserver man | head`) is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    // There is nobody left to tell.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a line to standard output.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Writes an error for a person to standard error.
pub fn error(program: &str, text: &str) {
    let mut out = io::stderr().lock();
    let _ = writeln!(
        out,
        "{}: {text}",
        paint(
            io::stderr().is_terminal(),
            "31;1",
            &format!("{program}: error")
        )
    );
}

/// Colours `text` for a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
#[must_use]
pub fn paint(terminal: bool, colour: &str, text: &str) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if terminal && wanted {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Colours `text` for standard output.
#[must_use]
pub fn paint_out(colour: &str, text: &str) -> String {
    paint(io::stdout().is_terminal(), colour, text)
}
