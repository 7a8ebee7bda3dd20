//! The program, run as users run it, against a server with known faults.

#![expect(clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Faults, NullServer, text_of};

fn number(value: &Value, path: &str) -> f64 {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} is no number in {value}"))
}

const MS: f64 = 1e6;

#[test]
fn an_open_loop_keeps_its_rate_and_its_mix_and_every_answer_is_checked() {
    let server = NullServer::start(Faults::default());
    let (status, result) = server.run_json(
        "--mix p256=3,ping=1 -r 2k -d 2s -w 200ms -c 4 --verify all --fail-on slo \
         --slo errors<0.01% --slo p50<1s --label purpose=test",
    );
    assert_eq!(status, 0, "{result}");
    assert_eq!(result["schema"], "loadgen.run/1");
    assert_eq!(result["run"]["label"]["purpose"], "test");
    // 4,000 expected, standard deviation 63.
    let requests = number(&result, "/result/requests");
    assert!((3_680.0..4_320.0).contains(&requests), "{requests}");
    assert_eq!(number(&result, "/result/ok"), requests);
    assert_eq!(number(&result, "/result/verified"), requests);
    assert_eq!(number(&result, "/result/wrong_signatures"), 0.0);
    let share = number(&result, "/result/by_class/0/ok") / requests;
    // Three quarters, standard deviation below 0.7 %.
    assert!((share - 0.75).abs() < 0.03, "{share}");
    assert_eq!(result["slo"][0]["verdict"], "met");
    assert_eq!(result["target"]["tls_version"], "TLSv1_3");
}

#[test]
fn the_same_seed_draws_the_same_mix() {
    let server = NullServer::start(Faults::default());
    let classes = |seed: &str| {
        let (_, result) = server.run_json(&format!(
            "--mix p256=1,ping=1 --closed -c 1 --inflight-per-conn 1 -n 400 -w 0s --seed {seed}"
        ));
        assert_eq!(number(&result, "/result/requests"), 400.0);
        number(&result, "/result/by_class/0/ok")
    };
    assert_eq!(classes("1"), classes("1"));
    assert_ne!(
        classes("1"),
        classes("2"),
        "these two seeds are known to differ"
    );
}

#[test]
fn a_stall_is_charged_to_everyone_it_kept_waiting() {
    let stall = (Duration::from_millis(700), Duration::from_millis(200));
    let server = NullServer::start(Faults {
        stall: Some(stall),
        ..Faults::default()
    });
    // One place: while the server stands still one request is with it, and 200 wait to leave.
    let (_, result) = server
        .run_json("--mix ping -r 1k --arrival constant -d 3s -w 200ms -c 1 --inflight-per-conn 1");
    let response = number(&result, "/result/latency/response/p999");
    let service = number(&result, "/result/latency/service/p999");
    assert!(response > 150.0 * MS, "response p99.9 is {response}");
    // One request of 3,000 saw the stall from inside: the largest, not the 99.9th percentile.
    assert!(service < 100.0 * MS, "service p99.9 is {service}");
    assert!(number(&result, "/result/latency/service/max") > 150.0 * MS);
    assert!(number(&result, "/result/held_back") >= 100.0);
    // The generator does not blame itself for it.
    assert!(number(&result, "/validity/send_lag/p999") < 100.0 * MS);
}

#[test]
fn wrong_signatures_are_counted_and_end_with_status_4() {
    let server = NullServer::start(Faults {
        wrong_signature_every: Some(10),
        ..Faults::default()
    });
    let arguments = "--mix p256 --closed -c 1 --inflight-per-conn 4 -n 500 -w 0s --verify all";
    let (status, result) = server.run_json(arguments);
    assert_eq!(status, 4, "{result}");
    assert_eq!(number(&result, "/result/wrong_signatures"), 50.0);
    assert_eq!(number(&result, "/result/by_class/0/wrong_signatures"), 50.0);
    assert_eq!(number(&result, "/result/verified"), 450.0);
    let (status, _) = server.run_json(&format!("{arguments} --fail-on never"));
    assert_eq!(status, 0);
}

#[test]
fn wrong_pongs_are_wrong_answers() {
    let server = NullServer::start(Faults {
        wrong_pong_every: Some(20),
        ..Faults::default()
    });
    let (status, result) = server.run_json("--mix ping --closed -c 1 -n 400 -w 0s --verify none");
    assert_eq!(status, 0, "{result}");
    let (status, result) = server.run_json("--mix ping --closed -c 1 -n 400 -w 0s --verify 1%");
    assert_eq!(status, 4, "{result}");
    assert_eq!(number(&result, "/result/errors/wrong-echo"), 20.0);
}

#[test]
fn error_replies_are_no_throughput() {
    let server = NullServer::start(Faults {
        busy_every: Some(4),
        ..Faults::default()
    });
    let arguments = "--mix ping --closed -c 1 -n 1000 -w 0s";
    let (status, result) = server.run_json(arguments);
    assert_eq!(
        status, 4,
        "25 % errors are over the default limit: {result}"
    );
    assert_eq!(number(&result, "/result/errors/busy"), 250.0);
    assert_eq!(number(&result, "/result/ok"), 750.0);
    assert_eq!(number(&result, "/result/latency/response/count"), 750.0);
    let (status, result) = server.run_json(&format!("{arguments} --slo errors<30% --fail-on slo"));
    assert_eq!(
        status, 0,
        "an objective replaces the default limit: {result}"
    );
}

#[test]
fn a_lost_connection_is_counted_and_made_again() {
    let server = NullServer::start(Faults {
        hang_up_every: Some(300),
        ..Faults::default()
    });
    let (_, result) =
        server.run_json("--mix ping --closed -c 2 --inflight-per-conn 4 -n 2000 -w 0s");
    assert!(
        number(&result, "/result/connections_lost") >= 5.0,
        "{result}"
    );
    assert!(number(&result, "/result/errors/disconnected") >= 5.0);
    assert!(number(&result, "/result/ok") > 1900.0);
}

#[test]
fn requests_without_an_answer_time_out_and_stay_in_the_tail() {
    let stall = (Duration::from_millis(300), Duration::from_millis(1500));
    let server = NullServer::start(Faults {
        stall: Some(stall),
        ..Faults::default()
    });
    let (_, result) = server
        .run_json("--mix ping -r 500 -d 2500ms -w 0s -c 1 --inflight-per-conn 8 --timeout 400ms");
    assert!(number(&result, "/result/errors/timeout") >= 8.0, "{result}");
    assert!(number(&result, "/result/latency/response/max") >= 400.0 * MS);
}

#[test]
fn exit_statuses_follow_the_verdict() {
    let server = NullServer::start(Faults::default());
    let short = "--mix ping -r 200 -d 500ms -w 0s -c 1";
    let (status, result) = server.run_json(&format!("{short} --slo p50<1ns --fail-on slo"));
    assert_eq!(status, 1, "{result}");
    assert_eq!(result["slo"][0]["verdict"], "missed");
    // No generator is late by less than a tenth of a nanosecond: a tight objective makes the run invalid.
    let (status, result) = server.run_json(&format!("{short} --slo p50<1ns"));
    assert_eq!(status, 3, "{result}");
    assert_eq!(result["validity"]["ok"], false);
    let (status, _) = server.run_json(&format!("{short} --slo p50<1ns --fail-on never"));
    assert_eq!(status, 0);
}

#[test]
fn what_cannot_be_done_is_explained() {
    let server = NullServer::start(Faults::default());
    let fails = |more: &str, expected: i32, says: &str| {
        let output = server.loadgen(more).output().unwrap();
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(expected), "{more:?}: {text}");
        assert!(text.contains(says), "{more:?}: {text}");
        assert!(output.stdout.is_empty(), "{more:?}: {text}");
    };
    fails("--closed --mix rsa2048", 2, "no key for `rsa2048`");
    fails(
        "--closed --mix p256 --public-keys /nonexistent",
        2,
        "/nonexistent",
    );
    fails(
        "--closed --server-pid 4294967295 --mix p256",
        2,
        "no such process",
    );
    fails("--closed --out /proc/none --mix p256", 2, "--out");
    fails("", 2, "--rate");
    // tcpmux, which nobody serves; a port that was just free may be another test's by now.
    let nobody = "127.0.0.1:1";
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args([
        "run",
        "--closed",
        "--target",
        nobody,
        "--server-name",
        "localhost",
    ]);
    for (option, file) in [
        ("--ca", "ca.pem"),
        ("--cert", "client.pem"),
        ("--key", "client.key"),
    ] {
        command.arg(option).arg(server.path(file));
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text_of(&output));
    assert!(text_of(&output).contains("refused"), "{}", text_of(&output));
}

#[test]
fn a_stock_server_is_served_with_given_public_keys() {
    let server = NullServer::start(Faults {
        stock: true,
        ..Faults::default()
    });
    let output = server.loadgen("--closed --mix p256").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text_of(&output).contains("--public-keys"),
        "{}",
        text_of(&output)
    );
    let public = server.path("public");
    let (status, result) = server.run_json(&format!(
        "--mix p256 --closed -c 2 -n 200 -w 0s --verify all --public-keys {}",
        public.display()
    ));
    assert_eq!(status, 0, "{result}");
    assert_eq!(number(&result, "/result/verified"), 200.0);
    assert!(result["target"]["server"].is_null());
}

#[test]
fn an_interrupt_keeps_what_was_measured() {
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    let server = NullServer::start(Faults {
        answered: Some(&ANSWERED),
        ..Faults::default()
    });
    let child = server
        .loadgen("--mix ping -r 500 -d 60s -w 0s -c 1 --format json --no-progress")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while ANSWERED.load(Ordering::Relaxed) < 200 {
        assert!(Instant::now() < end, "{ANSWERED:?} answers");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text_of(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["run"]["interrupted"], true);
    assert!(number(&result, "/result/ok") > 100.0);
    assert!(number(&result, "/run/measured_ns") < 60e9);
}

#[test]
fn threads_share_the_load() {
    let server = NullServer::start(Faults::default());
    let (_, result) =
        server.run_json("--mix ping -r 1k --arrival constant -d 2s -w 100ms -c 4 -t 2");
    assert_eq!(number(&result, "/result/requests"), 2000.0);
    assert_eq!(
        result["validity"]["thread_busy"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        result["intervals"].as_array().unwrap().len(),
        2,
        "{}",
        result["intervals"]
    );
    assert_eq!(number(&result, "/result/ok"), 2000.0);
    // An answer that comes after the last second, because the machine stood still then, is in none of them.
    let answered: f64 = (0..2)
        .map(|second| number(&result, &format!("/intervals/{second}/achieved")))
        .sum();
    assert!(answered > 1700.0, "{answered}");
}

#[test]
fn a_target_that_cannot_keep_up_is_told_from_a_generator_that_cannot() {
    // One place and a server that needs a millisecond per answer at best: a tenth of what is offered.
    let server = NullServer::start(Faults {
        delay: Some(Duration::from_millis(1)),
        ..Faults::default()
    });
    let (_, result) = server.run_json("--mix ping -r 10k -d 1s -w 0s -c 1 --inflight-per-conn 1");
    let notes = result["validity"]["notes"].to_string();
    assert!(notes.contains("the target did not keep up"), "{result}");
    assert!(number(&result, "/result/achieved") < 1100.0);
    assert!(number(&result, "/result/unsent") > 5000.0);
}

#[test]
fn what_waits_for_a_place_is_given_up_in_time_however_much_is_offered() {
    // 20 times of what the one place takes, and nobody waits longer than 100 ms for it.
    let server = NullServer::start(Faults {
        delay: Some(Duration::from_millis(2)),
        ..Faults::default()
    });
    let (_, result) = server
        .run_json("--mix ping -r 10k -d 1s -w 500ms -c 1 --inflight-per-conn 1 --timeout 100ms");
    let given_up = number(&result, "/result/errors/unsent");
    assert!(given_up > 5_000.0, "{result}");
    assert!(number(&result, "/result/unsent") >= given_up);
    assert!(number(&result, "/result/ok") > 50.0, "{result}");
    // Those that left had waited nearly as long as they may, and the server was quick all the same.
    assert!(number(&result, "/result/latency/response/p50") > 90.0 * MS);
    assert!(number(&result, "/result/latency/service/p50") < 60.0 * MS);
    let notes = result["validity"]["notes"].to_string();
    assert!(notes.contains("the target did not keep up"), "{result}");
}

#[test]
fn deadlines_are_sent_when_asked_for_and_refusals_with_a_time_are_counted() {
    let server = NullServer::start(Faults {
        deadline_us: Some(250_000),
        busy_every: Some(10),
        ..Faults::default()
    });
    let run = |more: &str| {
        let common = "--mix ping --closed -c 1 --inflight-per-conn 1 -n 200 -w 0s --fail-on never";
        server.run_json(&format!("{common} {more}")).1
    };
    let with = run("--deadline 250ms");
    assert_eq!(with["workload"]["deadline_ns"], 250_000_000);
    assert_eq!(number(&with, "/result/ok"), 180.0, "{with}");
    assert_eq!(number(&with, "/result/errors/busy"), 20.0);
    assert_eq!(number(&with, "/result/retry_after"), 20.0);
    let without = run("");
    assert_eq!(number(&without, "/result/ok"), 0.0, "{without}");
    assert_eq!(number(&without, "/result/errors/deadline-exceeded"), 180.0);
}

#[test]
fn a_deadline_that_the_server_does_not_understand_is_a_mistake() {
    let server = NullServer::start(Faults {
        stock: true,
        ..Faults::default()
    });
    let output = server
        .loadgen("--closed --mix ping --deadline 1ms")
        .arg("--public-keys")
        .arg(server.path("public"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("does not understand deadlines"));
}
