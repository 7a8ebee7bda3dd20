//! The blocking client: callers that lead, callers that wait, callbacks, and servers that go away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use keyserver_client::blocking::{Client, ClientBuilder};
use keyserver_client::{
    Error, ErrorCode, Event, Fault, KeyId, Observer, Operation, Pool, SignatureAlgorithm,
    SignatureScheme,
};

use crate::support::{Act, Frame, KEY, NOBODY, Pki, Server, extended_answer, refusal, reply};

const HASH: [u8; 32] = [3; 32];
const PATIENT: Duration = Duration::from_secs(20);

fn builder(server: &Server) -> ClientBuilder {
    Client::builder("localhost", server.identity())
        .server(server.address())
        .deadline(PATIENT)
        .connect_limit(PATIENT)
}

/// Runs on a thread that may block, beside the servers' runtime.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

fn sign(client: &Client) -> Result<Vec<u8>, Error> {
    let key = KeyId::from_ski(KEY);
    client.sign(&key, SignatureAlgorithm::EcdsaSha256, &HASH)
}

fn expected() -> Vec<u8> {
    [&[0x15], &KEY[..], &HASH[..]].concat()
}

fn is_sign(frame: &Frame) -> bool {
    frame.opcode == 0x15
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_over_one_connection() {
    let server = Server::extended().await;
    let client = builder(&server).build().unwrap();
    assert_eq!(
        server.connections(),
        0,
        "nothing is connected before a call"
    );
    let own = client.clone();
    blocking(move || {
        assert_eq!(own.ping(b"hello").unwrap(), b"hello");
        assert_eq!(sign(&own).unwrap(), expected());
        let info = own.server_info().unwrap().unwrap();
        assert_eq!(info.version, "9.9.9");
        let labels: Vec<_> = own
            .keys()
            .unwrap()
            .into_iter()
            .map(|key| key.label)
            .collect();
        assert_eq!(labels, ["first", "second"]);
        let block = own.decrypt(&KeyId::from_ski(KEY), &[1; 256]).unwrap();
        assert_eq!(block.len(), 1 + 20 + 256);
        let unknown = KeyId::from_ski([9; 20]);
        let refused = own.sign(&unknown, SignatureAlgorithm::EcdsaSha256, &HASH);
        assert!(matches!(
            refused,
            Err(Error::Refused(ErrorCode::KeyNotFound))
        ));
        assert_eq!(own.in_flight(), 0);
    })
    .await;
    assert_eq!(server.connections(), 1);
    let sign = server.frames().into_iter().find(is_sign).unwrap();
    assert!(
        sign.tags.contains(&0x30) && sign.tags.contains(&0x32),
        "deadline and extended"
    );
    blocking(move || drop(client)).await;
    for _ in 0..200 {
        if server.goodbyes() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no goodbye");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_server_is_sent_nothing_new() {
    let server = Server::stock().await;
    let client = builder(&server).build().unwrap();
    blocking(move || {
        assert_eq!(sign(&client).unwrap(), expected());
        assert_eq!(client.server_info().unwrap(), None);
        let key = KeyId::from_ski(KEY);
        let tls = Operation::sign_tls13(
            &key,
            SignatureScheme::from_u16(0x0403).unwrap(),
            &[b' '; 130],
        );
        let signature = client.call(tls).unwrap();
        assert_eq!(signature[0], 0x15, "the digest operation");
        assert_eq!(signature.len(), 1 + 20 + 32);
    })
    .await;
    for frame in server.frames() {
        let additions = |tag: &u8| (0x30..=0x3f).contains(tag);
        assert!(!frame.tags.iter().any(additions), "{frame:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_share_one_connection() {
    let server = Server::extended().await;
    let client = builder(&server).build().unwrap();
    blocking(move || {
        std::thread::scope(|scope| {
            for thread in 0..16_u8 {
                let client = &client;
                scope.spawn(move || {
                    for round in 0..200_u8 {
                        let payload = [thread, round];
                        assert_eq!(client.ping(&payload).unwrap(), payload);
                    }
                });
            }
        });
    })
    .await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_are_told_once_each_beside_callers_that_wait() {
    let server = Server::extended().await;
    let client = builder(&server).build().unwrap();
    blocking(move || {
        // A caller leads first, so that the lead has to be handed over.
        client.ping(b"first").unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..500_u16 {
            let sender = sender.clone();
            let operation = Operation::ping(&number.to_be_bytes());
            let done = move |outcome: Result<Vec<u8>, Error>| {
                sender.send((number, outcome.unwrap())).unwrap();
            };
            client.submit(operation, done).unwrap();
            if number % 50 == 0 {
                client.ping(b"between").unwrap();
            }
        }
        drop(sender);
        let told: Vec<_> = receiver.iter().collect();
        assert_eq!(told.len(), 500);
        assert!(
            told.iter()
                .all(|(number, echo)| *echo == number.to_be_bytes())
        );
        // A callback may submit, and a panic in one hurts nobody else.
        let (sender, receiver) = mpsc::channel();
        let again = client.clone();
        client
            .submit(Operation::ping(b"one"), move |_| {
                let done = move |outcome| sender.send(outcome).unwrap();
                again.submit(Operation::ping(b"two"), done).unwrap();
                panic!("a callback that panics, on purpose");
            })
            .unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), b"two");
        client.ping(b"still here").unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_tells_every_callback() {
    let server = Server::scripted(|frame| is_sign(frame).then(Vec::new)).await;
    let client = builder(&server).build().unwrap();
    blocking(move || {
        let (sender, receiver) = mpsc::channel();
        let key = KeyId::from_ski(KEY);
        for _ in 0..10 {
            let operation = Operation::sign(&key, SignatureAlgorithm::EcdsaSha256, &HASH);
            let sender = sender.clone();
            let done = move |outcome| sender.send(outcome).unwrap();
            client.submit(operation.unwrap(), done).unwrap();
        }
        drop(sender);
        drop(client);
        let told: Vec<_> = receiver.iter().collect();
        assert_eq!(told.len(), 10);
        assert!(
            told.iter()
                .all(|outcome| matches!(outcome, Err(Error::Closed)))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listens_and_the_caller_hears_soon() {
    let pki = Pki::new();
    blocking(move || {
        let client = Client::builder("localhost", pki.identity()).server(NOBODY);
        let client = client.deadline(PATIENT).build().unwrap();
        for _ in 0..3 {
            let begun = Instant::now();
            let error = sign(&client).unwrap_err();
            assert_eq!(error.fault(), Fault::Network);
            assert!(error.to_string().contains(NOBODY), "{error}");
            assert!(begun.elapsed() < PATIENT / 4, "{:?}", begun.elapsed());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_server_is_not_waited_for_beyond_the_deadline() {
    let server = Server::scripted(|frame| is_sign(frame).then(Vec::new)).await;
    let client = builder(&server).build().unwrap();
    blocking(move || {
        client.ping(b"connect").unwrap();
        let limit = Duration::from_millis(200);
        let begun = Instant::now();
        let error = sign(&client.with_deadline(limit)).unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(begun.elapsed() >= limit && begun.elapsed() < PATIENT / 4);
        client.ping(b"the connection goes on").unwrap();
        assert_eq!(client.in_flight(), 0);
    })
    .await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_survived_without_a_failed_call() {
    let mut server = Server::extended().await;
    let client = builder(&server).build().unwrap();
    let own = client.clone();
    blocking(move || sign(&own).unwrap()).await;
    server.stop();
    server.restart().await;
    blocking(move || {
        for _ in 0..10 {
            assert_eq!(sign(&client).unwrap(), expected());
            let block = client.decrypt(&KeyId::from_ski(KEY), &[1; 256]);
            assert_eq!(
                block.unwrap().len(),
                1 + 20 + 256,
                "never repeated, and not lost"
            );
        }
    })
    .await;
    assert_eq!(server.connections(), 2);
}

/// It is told behind the client's lock, and by a thread that others wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_panics_hurts_nobody() {
    struct Panics;
    impl Observer for Panics {
        fn observe(&self, event: Event<'_>) {
            panic!("{event:?}");
        }
    }
    let server = Server::extended().await;
    let client = builder(&server).observer(Arc::new(Panics)).build().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            blocking(move || (0..5).for_each(|_| assert_eq!(sign(&client).unwrap(), expected())))
        })
        .collect();
    for thread in threads {
        tokio::time::timeout(PATIENT, thread).await.unwrap();
    }
    let pool = Pool::builder("localhost", server.identity()).server(server.address());
    let pool = pool.observer(Arc::new(Panics)).deadline(PATIENT);
    let pool = pool.connect().await.unwrap();
    assert_eq!(pool.call(&Operation::ping(b"x")).await.unwrap(), b"x");
}

/// A callback keeps the thread that leads busy while the server cuts the connection. Who asks meanwhile sees that all the
/// same, and a decryption waits for the next connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decryption_does_not_leave_on_a_connection_that_was_cut() {
    let mut server = Server::extended().await;
    let client = builder(&server).build().unwrap();
    let (entered, is_entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let busy = move |_| {
        entered.send(()).unwrap();
        released.recv().unwrap();
    };
    client.submit(Operation::ping(b"x"), busy).unwrap();
    blocking(move || is_entered.recv().unwrap()).await;
    server.stop();
    server.restart().await;
    blocking(move || {
        let own = client.clone();
        let asker = std::thread::spawn(move || own.decrypt(&KeyId::from_ski(KEY), &[1; 256]));
        let begun = Instant::now();
        while client.in_flight() == 0 && !asker.is_finished() {
            assert!(begun.elapsed() < PATIENT, "the call does not begin");
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        assert_eq!(asker.join().unwrap().unwrap().len(), 1 + 20 + 256);
    })
    .await;
}

/// Two servers behind one authority, each with a script of its own.
async fn two(
    first: impl Fn(&Frame) -> Option<Vec<Act>> + Send + Sync + 'static,
    second: impl Fn(&Frame) -> Option<Vec<Act>> + Send + Sync + 'static,
) -> (Server, Server) {
    let one = Server::scripted(first).await;
    let two = Server::scripted_under(&one.pki, second).await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_goes_elsewhere_and_a_decryption_does_not() {
    let broken = |frame: &Frame| (frame.opcode < 0x20).then(|| vec![Act::Cut]);
    let (bad, good) = two(broken, |_| None).await;
    let client = builder(&bad).server(good.address()).build().unwrap();
    blocking(move || {
        for _ in 0..50 {
            assert_eq!(sign(&client).unwrap(), expected());
        }
        let key = KeyId::from_ski(KEY);
        // The signatures may have had it put aside: it is asked again when it is let back in.
        let begun = Instant::now();
        let failed = std::iter::repeat_with(|| client.decrypt(&key, &[1; 256]).err())
            .take_while(|_| begun.elapsed() < PATIENT)
            .find_map(|error| {
                std::thread::sleep(Duration::from_millis(2));
                error
            });
        assert!(matches!(failed, Some(Error::Network(_))), "{failed:?}");
    })
    .await;
    let decrypts = |server: &Server| {
        let frames = server.frames();
        frames.iter().filter(|frame| frame.opcode == 1).count()
    };
    assert_eq!(decrypts(&bad), 1, "asked once, failed, and not asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let busy = move |frame: &Frame| {
        is_sign(frame).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            // Error 0x20 with a retry-after of 800 ms.
            let mut frame = refusal(frame.id, 0x20);
            let body = [
                &[0x11, 0, 1, 0xff, 0x12, 0, 1, 0x20, 0x33, 0, 4][..],
                &[0, 0, 3, 0x20],
            ];
            let body = body.concat();
            frame.truncate(8);
            frame[2..4].copy_from_slice(&(body.len() as u16).to_be_bytes());
            frame.extend(body);
            vec![Act::Send(frame)]
        })
    };
    let (first, second) = two(busy, |_| None).await;
    let client = builder(&first).server(second.address()).build().unwrap();
    let begun = blocking(move || {
        // Both are connected before the count begins.
        let begun = Instant::now();
        for _ in 0..300 {
            assert_eq!(sign(&client).unwrap(), expected());
        }
        begun
    })
    .await;
    let periods = begun.elapsed().as_millis() as usize / 800;
    assert!(refused.load(Ordering::SeqCst) <= 1 + periods, "left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_final() {
    for code in [0x21, 0x22, 0x23, 2, 1] {
        let script =
            move |frame: &Frame| is_sign(frame).then(|| vec![Act::Send(refusal(frame.id, code))]);
        let (first, second) = two(script, script).await;
        // A machine that stands still for a moment makes a server look slow, and the other is asked as well.
        let client = builder(&first).server(second.address()).hedging(false);
        let client = client.build().unwrap();
        let error = blocking(move || sign(&client).unwrap_err()).await;
        assert!(matches!(error, Error::Refused(_)), "{error}");
        let frames = [first.frames(), second.frames()].concat();
        assert_eq!(frames.iter().filter(|frame| is_sign(frame)).count(), 1);
    }
}

/// Counts what the observer is told, by name.
#[derive(Default)]
pub struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn observe(&self, event: Event<'_>) {
        let text = format!("{event:?}");
        let name = text.split([' ', '{']).next().unwrap().to_owned();
        self.0.lock().unwrap().push(name);
    }
}

impl Log {
    pub fn count(&self, name: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|one| *one == name)
            .count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_server_is_hedged_and_a_decryption_is_not() {
    // Stalls after its first hundred signatures.
    let left = AtomicUsize::new(100);
    let stall = move |frame: &Frame| {
        let answer = frame.opcode >= 0x20
            || left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        (!answer).then(Vec::new)
    };
    let (first, second) = two(stall, |_| None).await;
    let log = Arc::new(Log::default());
    let client = builder(&first).server(second.address());
    let client = client.observer(log.clone()).build().unwrap();
    let seen = log.clone();
    blocking(move || {
        let since = Instant::now();
        // How soon the first has had its hundred, chance decides.
        let enough = |number: u32| number >= 600 && seen.count("Hedged") > 0;
        for _ in (0..).take_while(|number| !enough(*number) && since.elapsed() < PATIENT) {
            let begun = Instant::now();
            assert_eq!(sign(&client).unwrap(), expected());
            assert!(
                begun.elapsed() < PATIENT / 4,
                "nobody waits for the stalled one"
            );
        }
    })
    .await;
    assert!(log.count("Hedged") > 0);
    assert_eq!(log.count("Failed"), 0);
    assert!(log.count("Answered") >= 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_server_is_left() {
    let asked = AtomicUsize::new(0);
    let draining = move |frame: &Frame| {
        // Serving when we join, draining from the second question on.
        (frame.opcode == 0x47 && asked.fetch_add(1, Ordering::SeqCst) > 0).then(|| {
            let answer = extended_answer(frame);
            let answer = String::from_utf8_lossy(&answer);
            let (_, info) = answer.split_once('{').unwrap();
            let (info, _) = info.rsplit_once('}').unwrap();
            let info = format!("{{{info}}}").replace("serving", "draining");
            vec![Act::Send(reply(frame.id, 0xf0, info.as_bytes()))]
        })
    };
    let (first, second) = two(draining, |_| None).await;
    let log = Arc::new(Log::default());
    let client = builder(&first).server(second.address());
    let client = client.observer(log.clone()).build().unwrap();
    let signs = |server: &Server| server.frames().iter().filter(|f| is_sign(f)).count();
    let watched = log.clone();
    let own = client.clone();
    blocking(move || {
        let begun = Instant::now();
        while watched.count("Draining") == 0 {
            assert_eq!(sign(&own).unwrap(), expected());
            assert!(
                begun.elapsed() < PATIENT,
                "the server was never asked again"
            );
        }
    })
    .await;
    let before = signs(&first);
    assert!(before > 0);
    blocking(move || (0..100).for_each(|_| assert_eq!(sign(&client).unwrap(), expected()))).await;
    assert_eq!(signs(&first), before, "left before it closes");
}

#[test]
fn impossible_settings_are_refused() {
    let pki = Pki::new();
    let build = |name: &str, server: Option<&str>| {
        let builder = Client::builder(name, pki.identity());
        let builder = server.into_iter().fold(builder, ClientBuilder::server);
        builder.build().map(|_| ()).unwrap_err().to_string()
    };
    assert!(build("localhost", None).contains("no server"));
    assert!(build("localhost", Some("keys.internal")).contains("host:port"));
    assert!(build("no name", Some("keys.internal:2407")).contains("server_name"));
}
