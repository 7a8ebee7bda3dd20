//! The ledger with very many ciphertexts: what it takes on disk and in memory, and how long to open and to ask.
//!
//! ```sh
//! cargo bench -p keyserver --bench ledger                           # one million, a few seconds
//! cargo bench -p keyserver --bench ledger -- 100000000 /var/tmp     # a hundred million: ten minutes, 4 GB
//! ```
//!
//! Every entry goes the way of the server: [`Store::settle`] decides, writes and syncs, in batches of 512, which is
//! what the server gathers at most. What was filled is opened again by a process of its own, after the kernel was told to
//! forget the files, as after a restart of the machine. Then new ciphertexts and known ones are asked for. The
//! directory is removed at the end.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a command for people; a failure ends it"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keyserver::clock;
use keyserver::ledger::{Binding, Question, Store, Verdict};

/// Questions of one write, as many as the server gathers at most.
const BATCH: u64 = 512;

/// Questions of each kind that are timed, one a write.
const ASKED: u64 = 2_000;

fn main() {
    let arguments: Vec<_> = env::args()
        .skip(1)
        .filter(|it| !it.starts_with("--"))
        .collect();
    let text = |at: usize| arguments.get(at).map(String::as_str);
    if let (Some("open"), Some(count), Some(directory)) = (text(0), text(1), text(2)) {
        open(count.parse().expect("a number"), Path::new(directory));
        return;
    }
    let count = text(0).map_or(1_000_000, |count| count.parse().expect("a number"));
    let below = text(1).map_or_else(env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(below).expect("a directory");
    fill(count, directory.path());
    forget(directory.path());
    let this = env::current_exe().expect("this program");
    let status = Command::new(this)
        .args(["open", &count.to_string()])
        .arg(directory.path())
        .status();
    assert!(status.expect("started").success(), "the second process");
}

/// The question about ciphertext number `number`: a tag as random as a code of authentication.
fn question(number: u64) -> Question {
    let mut tag = [0; 16];
    for (half, chunk) in tag.chunks_exact_mut(8).enumerate() {
        // SplitMix64.
        let mut word = (2 * number + half as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(word ^ (word >> 31)).to_be_bytes());
    }
    Question {
        key: [7; 20],
        tag,
        binding: Binding([1; 8]),
    }
}

fn fill(count: u64, directory: &Path) {
    let (mut store, _) = Store::open(directory).expect("a new ledger");
    let (begun, before) = (clock::now(), cpu_seconds());
    let (mut questions, mut verdicts) = (Vec::new(), Vec::new());
    let mut next = 0;
    while next < count {
        questions.clear();
        questions.extend((next..count.min(next + BATCH)).map(question));
        verdicts.clear();
        while let Err(error) = store.settle(&questions, next, &mut verdicts) {
            assert!(store.is_open(), "{error}");
            // Faster than the disk: the server would refuse now.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(verdicts.iter().all(|it| matches!(it, Verdict::Answer(_))));
        next += BATCH;
        if next % (count / 10).next_multiple_of(BATCH) == 0 {
            println!("{next:>11} after {:.0} s", begun.elapsed().as_secs_f64());
        }
    }
    let size = store.size();
    drop(store);
    println!(
        "{count} filled in {:.0} s, {:.2} us of CPU each; {} entries in {} MB, {:.1} bytes each; {} MiB resident",
        begun.elapsed().as_secs_f64(),
        1e6 * (cpu_seconds() - before) / as_float(count),
        size.entries,
        size.bytes / 1_000_000,
        as_float(size.bytes) / as_float(count),
        resident_mib(),
    );
}

fn open(count: u64, directory: &Path) {
    let begun = clock::now();
    let (mut store, _) = Store::open(directory).expect("the ledger");
    let opened = begun.elapsed();
    println!(
        "opened in {:.2} s, {} MiB resident, {} MB on disk",
        opened.as_secs_f64(),
        resident_mib(),
        store.size().bytes / 1_000_000
    );
    // Numbers beyond the end are new; the others are spread over all that is known.
    let spread = count / ASKED;
    let kinds: [(&str, &dyn Fn(u64) -> u64); 2] = [
        ("new", &|at| count + at),
        ("known", &|at| (at * spread.max(1)) % count),
    ];
    for (kind, number) in kinds {
        let mut times: Vec<_> = (0..ASKED)
            .map(|at| {
                let mut verdicts = Vec::new();
                let asked = [Question {
                    binding: Binding([2; 8]),
                    ..question(number(at))
                }];
                let begun = clock::now();
                store
                    .settle(&asked, u64::MAX >> 20, &mut verdicts)
                    .expect("a good disk");
                let time = begun.elapsed();
                let answered = matches!(verdicts.first(), Some(Verdict::Answer(_)));
                assert_eq!(answered, kind == "new", "{at}");
                time
            })
            .collect();
        times.sort_unstable();
        let at = |share: usize| {
            times
                .get(times.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{kind:>5}: decided and on disk in p50 {} us, p99 {} us",
            at(50).as_micros(),
            at(99).as_micros()
        );
    }
    println!(
        "{} MiB resident after {} questions",
        resident_mib(),
        2 * ASKED
    );
    assert!(opened < Duration::from_secs(5), "a start takes under 5 s");
}

/// Has the kernel drop what it holds of the files.
fn forget(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            forget(&entry.path());
        } else {
            let file = fs::File::open(entry.path()).expect("a file");
            file.sync_all().expect("written");
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            nix::fcntl::posix_fadvise(&file, 0, 0, advice).expect("forgotten");
        }
    }
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    Duration::from(time.expect("a clock")).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn as_float(number: u64) -> f64 {
    number as f64
}
