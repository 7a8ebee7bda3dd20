//! Which lines of a configuration may be shown in an error.
//!
//! A PIN does not belong in the file. Whoever writes one there all the same is told so, and must not
//! find it again in a terminal, a log or a bug report: the line is not quoted.

/// Names under which people write a PIN.
const NAMES: [&str; 9] = [
    "pin",
    "pin_source",
    "pin-source",
    "pinsource",
    "pin_value",
    "pin-value",
    "pinvalue",
    "password",
    "passphrase",
];

/// How a value begins that says where a PIN is, and holds none.
const PLACES: [&str; 3] = ["credential:", "file:", "env:"];

/// What stands in the place of a line that may hold a PIN.
const HIDDEN: &str = "(not shown here: a PIN may stand in it)";

/// The line, unless a PIN may stand in it.
pub(super) fn shown(line: &str) -> &str {
    if may_hold_pin(&line.to_ascii_lowercase()) {
        HIDDEN
    } else {
        line
    }
}

/// Whether a word of `line` (in lower case) is one of [`NAMES`], and what follows is not one of
/// [`PLACES`].
fn may_hold_pin(line: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut rest = line;
    while let Some(start) = rest.find(part_of_word) {
        let word = rest.get(start..).unwrap_or_default();
        let end = word.find(|c| !part_of_word(c)).unwrap_or(word.len());
        let (name, after) = word.split_at_checked(end).unwrap_or((word, ""));
        let value = after.trim_start_matches([' ', '\t', '=', '"', '\'']);
        let named = NAMES.contains(&name);
        if named && !value.is_empty() && !PLACES.iter().any(|place| value.starts_with(place)) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_pin_is_not_shown() {
        for line in [
            "pin = \"1234\"",
            "PIN = 1234",
            "pin_source = \"1234\"",
            "pin-source=\"creds:1234\"",
            "uri = \"pkcs11:token=a;object=b?pin-value=1234&module-path=/x\"",
            "keys = [{ uri = \"x\", pin_source = '1234' }]",
            "pin 1234",
            "uri = \"pkcs11:a=b?pin-source=file:/x\", pin = 1234",
        ] {
            assert_eq!(shown(line), HIDDEN, "{line}");
        }
        for line in [
            "pin_source = \"credential:hsm-pin\"",
            "uri = \"pkcs11:token=a?pin-source=env:HSM_PIN\"",
            "label = \"shopping\"",
            "spin = 1",
            "[[keys]]",
            "pin_source =",
        ] {
            assert_eq!(shown(line), line);
        }
    }
}
