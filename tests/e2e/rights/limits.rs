//! Rates and daily limits: over connections, reloads, restarts and crashes.

use super::*;

/// Asks until the server has written its uses down, which is all that "busy" can mean for a grant without a rate.
fn use_daily(wire: &mut Wire, ski: Ski) -> Answer {
    for _ in 0..3000 {
        match sign13(wire, ski) {
            Err((ErrorCode::Busy, _)) => thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
    panic!("the server never wrote down what may be used");
}

/// How often it can be used, at most so often.
fn uses(wire: &mut Wire, ski: Ski, most: usize) -> usize {
    let used = (0..most).take_while(|_| use_daily(wire, ski).is_ok());
    used.count()
}

#[test]
fn a_rate_says_when_to_come_back_to_those_with_the_right() {
    let clients = vec![
        rule("edge-1", &["tls13-sign"], ""),
        rule("slow", &["tls13-sign"], "rate = \"1/h\"\nburst = 2"),
    ];
    let site = Site::start(
        Fixture::new(),
        ServerConfig {
            clients,
            ..ServerConfig::default()
        },
    );
    let ski = site.ski("shop");
    let mut slow = site.connect("slow");
    sign13(&mut slow, ski).unwrap();
    // All connections of a client share its limits.
    let mut again = site.connect("slow");
    sign13(&mut again, ski).unwrap();
    for wire in [&mut slow, &mut again] {
        let Err((ErrorCode::Busy, Some(wait_ms))) = sign13(wire, ski) else {
            panic!("it is used up")
        };
        assert!((3_000_000..=3_600_001).contains(&wait_ms), "{wait_ms}");
    }
    // A stock client knows no such word.
    let string = tls13_string();
    let stock = Request {
        extended: false,
        signature_scheme: Some(ECDSA),
        ..request(Opcode::SignTls13, ski, &string)
    };
    assert_eq!(slow.ask(&stock), Err((ErrorCode::Internal, None)));
    // What is not granted is refused as ever, and costs nothing of it.
    assert_eq!(
        sign(
            &mut slow,
            Opcode::SignTls12,
            ski,
            ECDSA,
            &tls12_string(true)
        ),
        DENIED
    );
    site.said(&["reload", "--wait"], 0);
    assert!(
        matches!(sign13(&mut slow, ski), Err((ErrorCode::Busy, _))),
        "a reload refills nothing"
    );
    let (no, decided) = site.explain(&["--client", "slow", "--key", "shop", "--op", "tls13-sign"]);
    assert_eq!(
        (no, decided),
        (
            false,
            format!(
                "{}: `rate`: it was used too often of late",
                site.line("rate =")
            )
        )
    );
    sign13(&mut site.connect("edge-1"), ski).unwrap();
    assert!(
        site.server
            .metric(&["keyserver_rejected_total", "\"rate\""])
            .unwrap()
            >= 4.0
    );
}

#[test]
fn a_day_has_its_uses_whatever_is_restarted() {
    clock::wait_past_midnight();
    let clients = vec![
        rule("edge-1", &["tls13-sign"], ""),
        rule("few", &["tls13-sign"], "daily = 60"),
    ];
    let mut site = Site::start(
        Fixture::new(),
        ServerConfig {
            clients,
            ..ServerConfig::default()
        },
    );
    let ski = site.ski("shop");
    assert_eq!(uses(&mut site.connect("few"), ski, 10), 10);
    site.said(&["reload", "--wait"], 0);
    assert_eq!(uses(&mut site.connect("few"), ski, 10), 10);
    // A stop in good order costs nothing.
    site.restart(Signal::SIGTERM);
    let left = info(&mut site.connect("few")).client.unwrap().terms[0].daily_left;
    assert_eq!(left, Some(40));
    assert_eq!(uses(&mut site.connect("few"), ski, 10), 10);
    // SIGKILL gives nothing back; what was written down ahead is lost.
    site.restart(Signal::SIGKILL);
    let rest = uses(&mut site.connect("few"), ski, 1000);
    assert!((22..=30).contains(&rest), "{rest}");
    assert_eq!(use_daily(&mut site.connect("few"), ski), DENIED);
    site.restart(Signal::SIGKILL);
    assert_eq!(use_daily(&mut site.connect("few"), ski), DENIED);
    sign13(&mut site.connect("edge-1"), ski).unwrap();

    let status = site.said(&["status"], 0);
    assert!(
        status.contains("client \"few\" has used all 60 uses of the day"),
        "{status}"
    );
    let (no, decided) = site.explain(&["--client", "few", "--key", "shop", "--op", "tls13-sign"]);
    let expected = format!(
        "{}: `daily`: it was used as often as a day allows",
        site.line("daily =")
    );
    assert_eq!((no, decided), (false, expected));
    assert!(
        site.server
            .metric(&["keyserver_rejected_total", "daily-ceiling"])
            .unwrap()
            >= 1.0
    );
    let patience = Duration::from_secs(30);
    let seen = site
        .server
        .log()
        .wait_for(patience, |line| line.contains("daily_ceiling"));
    assert!(seen.is_some(), "an alarm is raised");
    let alarms = site.server.log().matching("daily_ceiling");
    assert_eq!(alarms.len(), 1, "once a day: {alarms:?}");
}
