//! A process that writes the ledger is killed at any moment; whoever opens it afterwards finds what was answered.
//!
//! `KEYSERVER_LEDGER_KILLS=1000 cargo nextest run -p keyserver --test ledger_kill --no-capture` kills a thousand times
//! instead of twenty. The whole server is killed under load in `tests/e2e/ledger.rs`; here is the store alone, whose
//! start takes milliseconds, so that the moments are many: within the opening and the recovery, within a write and its
//! sync, while files are merged.

#![allow(
    clippy::allow_attributes,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, UNIX_EPOCH};

use keyserver::clock;
use keyserver::ledger::{Binding, Question, Store, Verdict};

/// Names the ledger's directory to the process that is to be killed, and its round.
const CHILD: &str = "KEYSERVER_LEDGER_KILLS_CHILD";

const ASKER: Binding = Binding([1; 8]);
const STRANGER: Binding = Binding([2; 8]);

/// The questions of a batch: from 1 to 200, the same in both processes.
fn batch(round: u64, number: u64, binding: Binding) -> Vec<Question> {
    let size = 1 + mix(round << 32 | number) % 200;
    let question = |at: u64| {
        let mut tag = [0; 16];
        let (high, low) = tag.split_at_mut(8);
        let name = (round << 40) | (number << 10) | at;
        high.copy_from_slice(&mix(name).to_be_bytes());
        low.copy_from_slice(&name.to_be_bytes());
        Question {
            key: [3; 20],
            tag,
            binding,
        }
    };
    (0..size).map(question).collect()
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn ask(store: &mut Store, questions: &[Question]) -> Vec<Verdict> {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap();
    let mut verdicts = Vec::new();
    store
        .settle(
            questions,
            now.as_millis().try_into().unwrap(),
            &mut verdicts,
        )
        .unwrap();
    verdicts
}

/// Writes until it is killed, and says what has become durable.
fn write_for_ever(directory: &str, round: u64) -> ! {
    let (mut store, _) = Store::open(Path::new(directory)).unwrap();
    for number in 0.. {
        let verdicts = ask(&mut store, &batch(round, number, ASKER));
        assert!(verdicts.iter().all(|it| matches!(it, Verdict::Answer(_))));
        let mut output = std::io::stdout().lock();
        writeln!(output, "durable {number}").unwrap();
        output.flush().unwrap();
    }
    panic!("it was to be killed");
}

/// Starts the other process. The numbers of its batches come as they become durable.
fn start(directory: &Path, round: u64) -> (Child, Receiver<u64>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_killed_ledger_forgets_nothing", "--nocapture"])
        .env(CHILD, format!("{round} {}", directory.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, numbers) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let number = line.strip_prefix("durable ").and_then(|it| it.parse().ok());
            if number.is_some_and(|number: u64| sender.send(number).is_err()) {
                return;
            }
        }
    });
    (child, numbers)
}

#[test]
fn a_killed_ledger_forgets_nothing() {
    if let Ok(child) = env::var(CHILD) {
        let (round, directory) = child.split_once(' ').unwrap();
        write_for_ever(directory, round.parse().unwrap());
    }
    let kills = env::var("KEYSERVER_LEDGER_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (mut durable, mut whole, mut none, mut early) = (Vec::new(), 0, 0, 0);
    for round in 0..kills {
        let (mut child, numbers) = start(directory.path(), round);
        let moment = mix(u64::from(std::process::id()) << 32 | round);
        let mut known = Vec::new();
        if round % 4 > 0 {
            known.push(numbers.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        // The first quarter of the kills is likely to come while it still opens.
        std::thread::park_timeout(Duration::from_micros(moment % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for number in numbers {
            if number == known.len() as u64 {
                known.push(number);
            }
        }
        early += u64::from(known.is_empty());

        let (mut store, _) = Store::open(directory.path()).unwrap();
        // The one under way: all of it or nothing, and its asker may have it.
        let next = known.len() as u64;
        let verdicts = ask(&mut store, &batch(round, next, ASKER));
        assert!(verdicts.iter().all(|it| matches!(it, Verdict::Answer(_))));
        let second = |it: &&Verdict| matches!(it, Verdict::Answer(entry) if entry.tries == 2);
        match verdicts.iter().filter(second).count() {
            0 => none += 1,
            all if all == verdicts.len() => whole += 1,
            part => panic!("round {round}: {part} of {} were there", verdicts.len()),
        }
        // What was answered: an honest retry of the last of it, and nothing for anybody else.
        if let Some(last) = known.last() {
            let verdicts = ask(&mut store, &batch(round, *last, ASKER));
            assert!(verdicts.iter().all(|it| matches!(it, Verdict::Answer(_))));
        }
        known.push(next);
        for number in known {
            let verdicts = ask(&mut store, &batch(round, number, STRANGER));
            let replay = |it: &Verdict| *it == Verdict::Replay;
            assert!(verdicts.iter().all(replay), "round {round}, batch {number}");
            durable.push((round, number));
        }
    }
    // And all of it is still there after all of the kills.
    let (mut store, _) = Store::open(directory.path()).unwrap();
    let mut count = 0;
    for (round, number) in &durable {
        let verdicts = ask(&mut store, &batch(*round, *number, STRANGER));
        assert!(verdicts.iter().all(|it| *it == Verdict::Replay), "{round}");
        count += verdicts.len();
    }
    println!(
        "{kills} kills, {early} before the first write; {count} ciphertexts answered, none again to another asker; of \
         the writes under way {whole} were there and {none} were not, none in part, and every honest retry was answered"
    );
}
