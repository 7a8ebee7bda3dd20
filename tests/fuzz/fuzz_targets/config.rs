//! The configuration reader: whatever the text, an answer, and every problem comes with a fix.

#![no_main]

use std::path::Path;

use keyserver::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::parse(Path::new("keyserver.toml"), text) {
        assert!(!error.problems().is_empty());
        for problem in error.problems() {
            assert!(!problem.what.is_empty() && !problem.fix.is_empty());
        }
    }
});
