//! Crypto threads without work prepare for later work, if the configuration says so, and sleep when all is prepared.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use accel::{Backend, Class, Engine, EngineChoice, EngineConfig, Job, Single, VerifyRate};
use common::{MINIMAL, Site};
use keyserver::config::Config;
use keyserver::{Server, clock};

/// What a thread of this test prepares before it is done.
const PLENTY: usize = 50;

/// AWS-LC under another name, which counts how often it is told to prepare something.
struct Counting(Arc<AtomicUsize>);

impl Backend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn prepare(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) < PLENTY
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
    }
}

fn server(precompute: bool) -> (Server, Arc<AtomicUsize>) {
    let site = Site::new();
    site.add_key("shop");
    let calls = Arc::new(AtomicUsize::new(0));
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        verify_ecdsa: VerifyRate::NEVER,
        calibration: Duration::ZERO,
    };
    let lanes = Box::new(Counting(Arc::clone(&calls)));
    let engine = Engine::with_lanes(config, Some(lanes)).unwrap();
    let engine = if precompute {
        engine.precompute_ecdsa()
    } else {
        engine
    };
    let config = Config::load(&site.config()).unwrap();
    (Server::start_on(config, engine).unwrap(), calls)
}

#[test]
fn idle_threads_prepare_until_all_is_prepared() {
    let (server, calls) = server(true);
    let began = clock::now();
    while calls.load(Ordering::Relaxed) <= PLENTY {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    // From here on each thread asks once whenever it wakes, which is once a second.
    let (before, began) = (calls.load(Ordering::Relaxed), clock::now());
    std::thread::sleep(Duration::from_millis(1500));
    let asked = calls.load(Ordering::Relaxed) - before;
    let threads = std::thread::available_parallelism().unwrap().get();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(asked <= threads * (seconds + 3), "asked {asked} times");
    server.stop();
}

#[test]
fn nothing_is_prepared_unless_asked_for() {
    let (server, calls) = server(false);
    std::thread::sleep(Duration::from_millis(300));
    server.stop();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn the_setting_reaches_the_engine() {
    let parse = |text: &str| Config::parse(std::path::Path::new("keyserver.toml"), text);
    assert!(!parse(MINIMAL).unwrap().accel.precompute_ecdsa);
    let site = Site::new();
    site.add_key("shop");
    for (setting, expected) in [("true", true), ("false", false)] {
        site.configure(&format!(
            "{MINIMAL}\n[accel]\nprecompute_ecdsa = {setting}\n"
        ));
        let config = Config::load(&site.config()).unwrap();
        let server = Server::start(config).unwrap();
        assert_eq!(server.state().engine().precomputes(), expected);
        server.stop();
    }
    parse(&format!("{MINIMAL}\n[accel]\nprecompute_ecdsa = \"yes\"\n")).unwrap_err();
}
