//! Headless Chromium, driven over the DevTools protocol, before an nginx whose key is on the key
//! server.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyserver_tests::{KeyKind, binaries, parts};
use serde_json::{Value, json};

use crate::edge::{AT_ONCE, Edge, PATIENCE, run};
use crate::nginx::{self, BODY, Nginx};

/// A browser with a profile of its own. It speaks DevTools on the pipes that it finds at 3 and 4.
struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
}

/// What is done to the key server.
type Action = fn(&mut Edge);

/// A tab.
struct Tab(Value);

impl Browser {
    /// Trusts the site's key, since its authority is nobody's; every name leads to this machine.
    fn start(program: &str, edge: &Edge, site: &str) -> Self {
        let mut command = Command::new("sh");
        // The shell only puts the pipes where the browser looks for them.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"]);
        command
            .arg(program)
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-dev-shm-usage"])
            .arg("--host-resolver-rules=MAP * 127.0.0.1")
            .arg(format!(
                "--ignore-certificate-errors-spki-list={}",
                public_key_hash(edge, site)
            ))
            .arg(format!(
                "--user-data-dir={}",
                edge.path("profile").display()
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let (sender, messages) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                if sender
                    .send(serde_json::from_slice(&message).unwrap())
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            commands: process.stdin.take().unwrap(),
            process,
            messages,
            last: 0,
        }
    }

    /// A command's result.
    fn ask(&mut self, tab: Option<&Tab>, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(Tab(session)) = tab {
            message["sessionId"] = session.clone();
        }
        write!(self.commands, "{message}\0").unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self.messages.recv_timeout(left).unwrap();
            if answer["id"] == self.last {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    fn tab(&mut self) -> Tab {
        let target = self.ask(
            None,
            "Target.createTarget",
            &json!({ "url": "about:blank" }),
        );
        let parameters = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.ask(None, "Target.attachToTarget", &parameters);
        Tab(attached["sessionId"].clone())
    }

    /// Loads a page; an error is what the browser calls it.
    fn load(&mut self, tab: &Tab, url: &str) -> Result<String, String> {
        let navigated = self.ask(Some(tab), "Page.navigate", &json!({ "url": url }));
        match navigated["errorText"].as_str() {
            Some(error) if !error.is_empty() => Err(error.into()),
            _ => Ok(self.evaluate(
                tab,
                "new Promise(done => { const look = () => document.readyState === 'complete' \
                 ? done(document.body.innerText) : setTimeout(look, 5); look() })",
            )),
        }
    }

    /// The text that a script comes to.
    fn evaluate(&mut self, tab: &Tab, script: &str) -> String {
        let parameters = json!({ "expression": script, "awaitPromise": true });
        let evaluated = self.ask(Some(tab), "Runtime.evaluate", &parameters);
        let text = evaluated["result"]["value"].as_str();
        text.unwrap_or_else(|| panic!("{script}: {evaluated}"))
            .into()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own children when it is asked to end, and may be gone already.
        drop(write!(
            self.commands,
            "{}\0",
            json!({ "id": 0, "method": "Browser.close" })
        ));
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// SHA-256 of the public key in a site's certificate, as Chromium writes it.
fn public_key_hash(edge: &Edge, site: &str) -> String {
    let certificate = edge.path(&format!("sites/{site}.pem"));
    let mut extract = Command::new("openssl");
    let pem = run(extract
        .args(["x509", "-pubkey", "-noout", "-in"])
        .arg(certificate));
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = STANDARD.decode(body).unwrap();
    STANDARD.encode(digest(&SHA256, &key))
}

fn ksctl(edge: &Edge, arguments: &[&str]) {
    let mut command = Command::new(binaries::ksctl());
    command.arg("--socket").arg(edge.path("run/admin.sock"));
    run(command.args(arguments));
}

/// It loads; the key is disabled, or the server gone: new connections fail, and the established one
/// goes on; then it loads again, and nginx was not restarted.
#[test]
fn a_page_loads_and_fails_and_loads_again() {
    let Some(program) = parts::program_of("chromium-headless-shell", "chromium-headless-shell")
    else {
        return;
    };
    let Some(server) = nginx::program() else {
        return;
    };
    let mut nginx = Nginx::start(&server, &[KeyKind::P256], 2);
    let mut browser = Browser::start(program.to_str().unwrap(), &nginx.edge, "p-256");
    let port = nginx.addresses[0].port();
    let established = browser.tab();
    let home = format!("https://localhost:{port}/");
    assert_eq!(browser.load(&established, &home).as_deref(), Ok(BODY));
    let connection = "fetch('/connection').then(answer => answer.text())";
    let before = browser.evaluate(&established, connection);

    // A host of its own for each, so that the browser cannot take a connection that it has.
    let (mut hosts, other) = (0.., browser.tab());
    let mut fresh = |browser: &mut Browser| {
        let host = format!("https://new-{}.site.example:{port}/", hosts.next().unwrap());
        browser.load(&other, &host)
    };
    assert_eq!(fresh(&mut browser).as_deref(), Ok(BODY));

    let actions: [(&str, Action, Action); 2] = [
        (
            "the key is disabled",
            |edge| ksctl(edge, &["keys", "disable", "p-256", "--reason", "a test"]),
            |edge| ksctl(edge, &["keys", "enable", "p-256", "--reason", "again"]),
        ),
        ("the server is gone", Edge::stop_server, Edge::start_server),
    ];
    for (what, stop, start) in actions {
        stop(&mut nginx.edge);
        let begun = Instant::now();
        // The very first connection after the command has returned, not one of some time later.
        let failed = fresh(&mut browser).expect_err(what);
        let took = begun.elapsed();
        println!("{what}: {failed} after {took:?}");
        assert!(failed.starts_with("net::ERR_"), "{failed}");
        assert!(took < AT_ONCE, "{what}: after {took:?}");
        let still = browser.evaluate(&established, connection);
        assert_eq!(still, before, "{what}: the established connection goes on");

        start(&mut nginx.edge);
        let deadline = Instant::now() + PATIENCE;
        while fresh(&mut browser).as_deref() != Ok(BODY) {
            assert!(Instant::now() < deadline, "{what}: {}", nginx.process.log);
        }
    }
    let after = browser.evaluate(&established, connection);
    assert_eq!(after, before, "one connection all along");
}
