//! The way to tell a running module what to do: a UNIX socket, lines of text.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use cryptoki_sys::{CK_RV, CKR_OK};

use crate::faults::FAULTS;

/// Answers commands on a socket, from a thread of its own, as long as the process lives.
pub(crate) fn listen(path: PathBuf) {
    // Left over from a process that is gone.
    let _ = std::fs::remove_file(&path);
    let Ok(listener) = UnixListener::bind(path) else {
        return;
    };
    // Without the thread the test's first command fails, and says so.
    let _ = thread::Builder::new()
        .name("pkcs11-shim".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = thread::Builder::new()
                    .name("pkcs11-shim".into())
                    .spawn(move || serve(stream));
            }
        });
}

fn serve(stream: UnixStream) {
    let Ok(mut answers) = stream.try_clone() else {
        return;
    };
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        let answer = obey(&words).unwrap_or_else(|| "not understood".to_owned());
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

/// Carries out a command: those that need the real module, here.
fn obey(words: &[&str]) -> Option<String> {
    let said = |code: CK_RV| {
        if code == CKR_OK {
            "ok".to_owned()
        } else {
            format!("{code:#x}")
        }
    };
    match *words {
        ["logout", slot] => Some(said(crate::log_out(slot.parse().ok()?))),
        ["close", slot] => Some(said(crate::close_all(slot.parse().ok()?))),
        ["remove", slot] => {
            let answer = FAULTS.command(words);
            crate::close_all(slot.parse().ok()?);
            answer
        }
        ["finalize"] => Some(said(crate::forget())),
        _ => FAULTS.command(words),
    }
}

/// The test's side.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "for tests: a command that does not arrive ends the test"
)]
impl Control {
    /// For a module that listens there, or will once it is loaded.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Sends a command of the table in README.md and returns the answer.
    #[must_use]
    pub fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket)
            .unwrap_or_else(|error| panic!("{}: {error}", self.socket.display()));
        writeln!(stream, "{command}").expect("a command sent");
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .expect("an answer");
        answer.trim_end().to_owned()
    }

    /// Sends a command that must be answered with `ok`.
    pub fn tell(&self, command: &str) {
        assert_eq!(self.ask(command), "ok", "{command}");
    }

    /// How often a function was called.
    #[must_use]
    pub fn count(&self, function: &str) -> u64 {
        self.ask(&format!("count {function}"))
            .parse()
            .expect("a number")
    }
}
