use super::*;

const SHOP: Ski = [1; 20];
const BANK: Ski = [2; 20];

fn question(tag: u8, asker: u8) -> Question {
    Question {
        key: SHOP,
        tag: [tag; 16],
        binding: Binding([asker; 8]),
    }
}

fn ask(store: &mut Store, questions: &[Question], now_ms: u64) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    store
        .settle(questions, now_ms, &mut verdicts)
        .expect("a good disk");
    verdicts
}

fn settle(store: &mut Store, questions: &[Question], now_ms: u64) -> Vec<bool> {
    ask(store, questions, now_ms)
        .iter()
        .map(|verdict| matches!(verdict, Verdict::Answer(_)))
        .collect()
}

fn open(directory: &Path) -> Store {
    Store::open(directory).expect("opens").0
}

#[test]
fn what_was_answered_is_remembered_in_the_batch_and_across_a_reopening() {
    let directory = tempfile::tempdir().expect("directory");
    {
        let mut store = open(directory.path());
        // Twice in one batch by different askers: the second one is a replay.
        let questions = [question(1, 1), question(1, 2), question(2, 2)];
        assert_eq!(settle(&mut store, &questions, 5), [true, false, true]);
        assert_eq!(settle(&mut store, &[question(1, 2)], 6), [false]);
        // Two honest retries, and one too many.
        let retries = [question(1, 1); 3];
        assert_eq!(settle(&mut store, &retries, 7), [true, true, false]);
    }
    let mut store = open(directory.path());
    assert_eq!(settle(&mut store, &[question(2, 1)], 8), [false]);
    let retry = [question(2, 2)];
    assert_eq!(settle(&mut store, &retry, 8), [true], "across a restart");
    assert_eq!(
        settle(&mut store, &[question(1, 1)], 8),
        [false],
        "a fourth try"
    );
    assert_eq!(settle(&mut store, &[question(3, 1)], 8), [true]);
}

#[test]
fn a_second_process_and_a_lost_key_are_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path());
    let error = Store::open(directory.path()).expect_err("in use");
    assert!(error.to_string().contains("one process only"), "{error}");
    drop(store);
    fs::remove_file(directory.path().join("key")).expect("removed");
    let error = Store::open(directory.path()).expect_err("no key");
    assert!(error.to_string().contains("restore it"), "{error}");
}

/// Whatever is lost, something that is left tells of it; what was never used may be begun again after a crash.
#[test]
fn a_ledger_that_was_lost_is_not_begun_anew_unasked() {
    let directory = tempfile::tempdir().expect("directory");
    let [ledger, state] = ["ledger", "state"].map(|name| directory.path().join(name));
    fs::create_dir(&state).expect("made");
    let open = || Store::open_known(&ledger, Some(&state));
    // A crash while the first one was begun: nothing but its key is there.
    fs::create_dir(&ledger).expect("made");
    Tagger::open(&ledger.join("key"), true).expect("made");
    let mut store = open().expect("begins").0;
    assert_eq!(settle(&mut store, &[question(1, 1)], 5), [true]);
    // While it runs, an empty store in its place is not taken for it.
    store.files = None;
    let whole = directory.path().join("whole");
    copy(&ledger, &whole);
    fs::remove_dir_all(ledger.join("store")).expect("removed");
    fs::create_dir(ledger.join("store")).expect("made");
    store.reopen().expect_err("another");
    drop(store);

    let begin_from_whole = || {
        fs::remove_dir_all(&ledger).expect("removed");
        copy(&whole, &ledger);
    };
    let refused = || {
        for _ in 0..2 {
            let error = open().expect_err("lost").to_string();
            assert!(error.contains("to begin anew on purpose"), "{error}");
        }
    };
    refused();
    begin_from_whole();
    assert_eq!(
        settle(&mut open().expect("whole").0, &[question(1, 2)], 6),
        [false]
    );
    // Its files are gone.
    fs::remove_dir_all(ledger.join("store")).expect("removed");
    refused();
    // All of the directory is, and somebody has begun another one elsewhere.
    fs::remove_dir_all(&ledger).expect("removed");
    refused();
    drop(Store::open(&ledger).expect("another"));
    refused();
    // Without a state directory the ledger's own tells of it.
    begin_from_whole();
    fs::remove_dir_all(ledger.join("store")).expect("removed");
    Store::open(&ledger).expect_err("lost");
    fs::remove_file(state.join("ledger-id")).expect("removed");
    refused();
    // On purpose.
    fs::remove_dir_all(&ledger).expect("removed");
    drop(open().expect("begins"));
    drop(open().expect("goes on"));
}

#[test]
fn an_entry_that_cannot_be_read_counts_as_a_replay() {
    let directory = tempfile::tempdir().expect("directory");
    let mut store = open(directory.path());
    assert_eq!(settle(&mut store, &[question(8, 1)], 1), [true]);
    let files = store.files.as_ref().expect("open");
    let entry = name(0, [9; 16]);
    files.entries().insert(entry, b"short").expect("written");
    assert_eq!(ask(&mut store, &[question(9, 1)], 1), [Verdict::Replay]);
}

/// Copies a closed ledger.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("directory") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A crash may leave any part of the last write, and it may leave sectors of it out. Whatever it leaves: what was made
/// durable before is remembered, and of a batch all or nothing.
#[test]
fn a_crash_at_any_byte_of_a_write_forgets_nothing_from_before_it() {
    let directory = tempfile::tempdir().expect("directory");
    let whole = directory.path().join("whole");
    let journal = Path::new("store/0.jnl");
    let before: Vec<_> = (0..20).map(|tag| question(tag, 1)).collect();
    let last: Vec<_> = (100..140).map(|tag| question(tag, 1)).collect();
    let used = |path: &Path| {
        let bytes = fs::read(path.join(journal)).expect("journal");
        let length = bytes.iter().rposition(|byte| *byte != 0).expect("used") + 1;
        (bytes, length)
    };
    let mut store = open(&whole);
    for question in &before {
        assert_eq!(settle(&mut store, &[*question], 5), [true]);
    }
    let (_, begin) = used(&whole);
    settle(&mut store, &last, 5);
    drop(store);
    let (bytes, end) = used(&whole);
    assert!(end > begin + 40 * 35, "{begin}..{end}");

    let cut = (begin..end).step_by(61).map(|at| {
        let mut left = bytes.clone();
        left.truncate(end);
        left[at..].fill(0);
        left
    });
    // Sectors that were never written, in a file that has its length.
    let holes = (begin..end).step_by(512).map(|at| {
        let mut left = bytes.clone();
        left.truncate(end);
        let sector = at - at % 512;
        left[sector.max(begin)..(sector + 512).min(end)].fill(0);
        left
    });
    for (round, left) in cut.chain(holes).enumerate() {
        let crashed = directory.path().join("crashed");
        copy(&whole, &crashed);
        fs::write(crashed.join(journal), left).expect("written");
        let mut store = open(&crashed);
        for question in &before {
            let stranger = Question {
                binding: Binding([9; 8]),
                ..*question
            };
            assert_eq!(
                ask(&mut store, &[stranger], 6),
                [Verdict::Replay],
                "{round}"
            );
        }
        // The whole batch is gone, so each of its questions is new.
        let verdicts = settle(&mut store, &last, 6);
        assert!(verdicts.iter().all(|answered| *answered), "{round}");
        // And what is written after the crash is there after the next one.
        drop(store);
        let mut store = open(&crashed);
        assert_eq!(settle(&mut store, &[question(100, 7)], 7), [false]);
        drop(store);
        fs::remove_dir_all(&crashed).expect("removed");
    }
}

#[test]
fn a_dropped_key_opens_nothing_more_and_others_go_on() {
    let directory = tempfile::tempdir().expect("directory");
    let of_bank = |tag: u8| Question {
        key: BANK,
        ..question(tag, 1)
    };
    let mut store = open(directory.path());
    assert!(!store.drop_key(SHOP).expect("a good disk"), "not known yet");
    for base in [0_u64, 1] {
        let many: Vec<_> = (0..500_u64)
            .map(|number| {
                let mut question = if base == 0 {
                    question(0, 1)
                } else {
                    of_bank(0)
                };
                question.tag[..8].copy_from_slice(&number.to_be_bytes());
                question
            })
            .collect();
        assert!(
            settle(&mut store, &many, 5)
                .iter()
                .all(|answered| *answered)
        );
        // As if time had passed: a sorted file for each.
        let files = store.files.as_ref().expect("open");
        files.entries().rotate_memtable_and_wait().expect("written");
    }
    assert_eq!(store.size().entries, 1000);
    assert!(store.drop_key(SHOP).expect("a good disk"));
    assert_eq!(store.size().entries, 500, "the files of the key are gone");
    for _ in 0..2 {
        assert_eq!(ask(&mut store, &[question(200, 1)], 6), [Verdict::Dropped]);
        let stranger = Question {
            binding: Binding([9; 8]),
            ..of_bank(0)
        };
        assert_eq!(settle(&mut store, &[stranger], 6), [false], "remembered");
        drop(store);
        store = open(directory.path());
    }
    assert_eq!(settle(&mut store, &[of_bank(201)], 7), [true]);
}
