//! The files of `systemd/`, through systemd's own programs and the real `keyserver check`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyserver_tests::{Fixture, KeyKind, binaries, parts};
use tempfile::TempDir;

/// The highest exposure that `systemd-analyze security` may find, times ten.
const EXPOSURE_MAX: u32 = 12;

/// A unit without any hardening line: the check must refuse it.
const OPEN_UNIT: &str = "[Service]\nExecStart=/bin/true\n";

fn systemd_folder() -> PathBuf {
    binaries::source_root().join("systemd")
}

/// The program, or `None` after saying that the test is skipped.
fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/bin", "/usr/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        parts::missing(&format!("{name} (Debian: systemd)"));
    }
    found
}

/// The units with the paths of the binaries under test in place of the installed ones, because
/// systemd looks whether what a unit starts exists.
fn units_for_here() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let read = |name| std::fs::read_to_string(systemd_folder().join(name)).expect("a unit");
    let service = read("keyserver.service")
        .replace(
            "/usr/bin/keyserver",
            &binaries::keyserver().to_string_lossy(),
        )
        .replace("/usr/bin/ksctl", &binaries::ksctl().to_string_lossy());
    std::fs::write(folder.path().join("keyserver.service"), service).expect("a unit");
    std::fs::write(
        folder.path().join("keyserver.socket"),
        read("keyserver.socket"),
    )
    .expect("a unit");
    folder
}

fn verify(analyze: &Path, folder: &Path) -> Output {
    Command::new(analyze)
        .args(["verify", "--man=no", "--recursive-errors=yes"])
        .args([
            folder.join("keyserver.service"),
            folder.join("keyserver.socket"),
        ])
        .output()
        .expect("systemd-analyze starts")
}

fn exposure(analyze: &Path, unit: &Path) -> Output {
    Command::new(analyze)
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_MAX}"))
        .arg(unit)
        .output()
        .expect("systemd-analyze starts")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// The kernel tells the server who gives it a command, in the numbers of the server's own user namespace.
#[test]
fn who_commands_keeps_the_number_that_the_log_shows() {
    let unit = std::fs::read_to_string(systemd_folder().join("keyserver.service")).expect("a unit");
    let set = unit.lines().find(|line| line.starts_with("PrivateUsers="));
    assert_eq!(set, None);
}

#[test]
fn systemd_accepts_the_units() {
    let Some(analyze) = program("systemd-analyze") else {
        return;
    };
    let folder = units_for_here();
    let good = verify(&analyze, folder.path());
    assert!(
        good.status.success() && text(&good).trim().is_empty(),
        "{}",
        text(&good)
    );

    // It would have said so.
    let path = folder.path().join("keyserver.service");
    let bad = std::fs::read_to_string(&path)
        .expect("a unit")
        .replace("WatchdogSec=10s", "WatchdogSec=soon");
    std::fs::write(&path, bad).expect("a unit");
    let bad = verify(&analyze, folder.path());
    assert!(text(&bad).contains("Failed to parse"), "{}", text(&bad));
}

#[test]
fn the_sandbox_is_as_tight_as_promised() {
    let Some(analyze) = program("systemd-analyze") else {
        return;
    };
    let ours = exposure(&analyze, &systemd_folder().join("keyserver.service"));
    assert!(ours.status.success(), "{}", text(&ours));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = folder.path().join("open.service");
    std::fs::write(&open, OPEN_UNIT).expect("a unit");
    assert!(
        !exposure(&analyze, &open).status.success(),
        "an open unit must be refused"
    );
}

#[test]
fn the_account_and_the_folders_can_be_made() {
    let (Some(sysusers), Some(tmpfiles)) =
        (program("systemd-sysusers"), program("systemd-tmpfiles"))
    else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        parts::missing("root, to make an account in another root folder");
        return;
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(root.path().join("etc")).expect("a folder");
    let run = |program: &Path, file: &str, create: bool| {
        let mut command = Command::new(program);
        command.arg(format!("--root={}", root.path().display()));
        if create {
            command.arg("--create");
        }
        let output = command
            .arg(systemd_folder().join(file))
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{file}: {}", text(&output));
    };
    run(&sysusers, "keyserver.sysusers", false);
    let accounts = std::fs::read_to_string(root.path().join("etc/passwd")).expect("accounts");
    let account = accounts
        .lines()
        .find(|line| line.starts_with("keyserver:"))
        .expect("the account");
    assert!(account.ends_with("/nologin"), "{account}");

    run(&tmpfiles, "keyserver.tmpfiles", true);
    for folder in ["etc/keyserver", "etc/keyserver/keys", "etc/keyserver/pki"] {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let found = std::fs::metadata(root.path().join(folder)).expect("the folder");
        assert_eq!(found.permissions().mode() & 0o7777, 0o750, "{folder}");
        assert_eq!(found.uid(), 0, "{folder}");
    }
}

/// The example in a folder laid out as `/etc/keyserver`.
fn example() -> (Fixture, PathBuf) {
    let fixture = Fixture::new();
    fixture.add_key("shop", KeyKind::P256);
    fixture.write("pki/client-ca.pem", fixture.pki.certificate());
    let text =
        std::fs::read_to_string(systemd_folder().join("keyserver.toml")).expect("the example");
    // The one path in it that is not relative and must exist: StateDirectory= makes it.
    let state = fixture.path("state");
    let text = text.replace("/var/lib/keyserver", state.to_str().expect("plain text"));
    let path = fixture.write("keyserver.toml", text);
    (fixture, path)
}

fn check(config: &Path) -> Output {
    let mut command = Command::new(binaries::keyserver());
    command
        .args(["check", "--config"])
        .arg(config)
        .output()
        .expect("keyserver starts")
}

#[test]
fn the_example_configuration_is_accepted() {
    let (_fixture, path) = example();
    let output = check(&path);
    assert!(output.status.success(), "{}", text(&output));
}

/// Every setting that the example shows as a comment is a setting, and the value shown is allowed.
#[test]
fn the_settings_in_comments_are_accepted_too() {
    let (fixture, path) = example();
    let is_setting = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let example = std::fs::read_to_string(&path).expect("the example");
    let mut shown = 0;
    let lines =
        example.lines().map(
            |line| match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
                Some(setting) => {
                    shown += 1;
                    setting
                }
                None => line,
            },
        );
    let all = lines.collect::<Vec<_>>().join("\n");
    assert!(shown >= 12, "only {shown} settings in comments:\n{all}");
    let output = check(&fixture.write("keyserver.toml", all));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_mistake_in_the_example_is_found_with_its_line_and_a_suggestion() {
    let (fixture, path) = example();
    let example = std::fs::read_to_string(&path).expect("the example");
    let bad = fixture.write(
        "keyserver.toml",
        example.replace("client_ca =", "client_cas ="),
    );
    let line = example
        .lines()
        .position(|line| line.starts_with("client_ca ="))
        .expect("the line")
        + 1;
    let output = check(&bad);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let said = text(&output);
    assert!(
        said.contains(&format!("keyserver.toml:{line}")) && said.contains("client_ca"),
        "{said}"
    );
}
