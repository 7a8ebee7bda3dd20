//! The lines of `docs/edges`: the tests start programs with them, so a page cannot say what does not
//! work.

use std::path::Path;

use keyserver_tests::binaries;

/// The names that the pages use for a module, a site and a key.
const MODULE: &str = "/usr/lib/keyserver/libkeyserver_pkcs11.so";
const CERTIFICATE: &str = "/etc/keyserver/sites/shop.pem";
const OBJECT: &str = "object=shop";

/// The block of this language and number, from 0, on a page.
pub(crate) fn block(page: &str, language: &str, number: usize) -> String {
    let file = format!("docs/edges/{page}.md");
    let text = std::fs::read_to_string(binaries::source_root().join(&file)).unwrap();
    blocks(&text, language)
        .into_iter()
        .nth(number)
        .unwrap_or_else(|| panic!("{file} has no block {number} of {language}"))
}

/// The rights that the grant in this block of TOML gives.
pub(crate) fn rights(page: &str, number: usize) -> Vec<String> {
    let grant: toml::Table = toml::from_str(&block(page, "toml", number)).unwrap();
    let rights = grant["clients"][0]["grants"][0]["allow"].as_array();
    let rights = rights.unwrap().iter();
    rights.map(|right| right.as_str().unwrap().into()).collect()
}

fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(opened)) => inside = Some((opened == language, String::new())),
            (Some(_), Some(_)) => found.extend(
                inside
                    .take()
                    .and_then(|(wanted, text)| wanted.then_some(text)),
            ),
            (Some((_, gathered)), None) => {
                gathered.push_str(line);
                gathered.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The lines with a site of the test's in place of the page's.
pub(crate) fn with_site(lines: &str, name: &str, certificate: &Path) -> String {
    assert!(lines.contains(OBJECT), "no key is named in\n{lines}");
    lines
        .replace(CERTIFICATE, &certificate.display().to_string())
        .replace(OBJECT, &format!("object={name}"))
        .replace(MODULE, &binaries::pkcs11_module().display().to_string())
}

/// The lines with the module where it was built.
pub(crate) fn with_module(lines: &str) -> String {
    assert!(lines.contains(MODULE), "no module is named in\n{lines}");
    lines.replace(MODULE, &binaries::pkcs11_module().display().to_string())
}

/// The arguments of the command that begins with this program, as a shell would hand them over.
pub(crate) fn arguments(page: &str, program: &str) -> Vec<String> {
    let start = format!("{program} ");
    let console = (0..)
        .map(|number| block(page, "console", number))
        .find(|lines| lines.contains(&start))
        .unwrap();
    let command = console.split(&start).nth(1).unwrap();
    let command = command.replace("\\\n", " ");
    let words = command.lines().next().unwrap().split_whitespace();
    words.map(|word| word.replace('\'', "")).collect()
}

#[test]
fn blocks_and_commands_are_found() {
    let text = "a\n```ini\nx = 1\n```\n```toml\ny = 2\n```\n```ini\nz = 3\n```\n";
    assert_eq!(blocks(text, "ini"), ["x = 1\n", "z = 3\n"]);
    let command = arguments("gnutls", "gnutls-serv");
    assert_eq!(
        command.last().map(String::as_str),
        Some("pkcs11:object=shop;type=private")
    );
}
