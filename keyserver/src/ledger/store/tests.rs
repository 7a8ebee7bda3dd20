use super::*;

fn question(tag: u8, asker: u8) -> Question {
    Question {
        tag: [tag; 16],
        binding: Binding([asker; 8]),
    }
}

fn settle(store: &mut Store, questions: &[Question], now_ms: u64) -> Vec<bool> {
    let mut verdicts = Vec::new();
    store
        .settle(questions, now_ms, &mut verdicts)
        .expect("a good disk");
    verdicts
        .iter()
        .map(|verdict| matches!(verdict, Verdict::Answer(_)))
        .collect()
}

#[test]
fn what_was_answered_is_remembered_in_the_batch_and_across_a_reopening() {
    let directory = tempfile::tempdir().expect("directory");
    {
        let (mut store, _) = Store::open(directory.path()).expect("opens");
        // Twice in one batch by different askers: the second one is a replay.
        let questions = [question(1, 1), question(1, 2), question(2, 2)];
        assert_eq!(settle(&mut store, &questions, 5), [true, false, true]);
        assert_eq!(settle(&mut store, &[question(1, 2)], 6), [false]);
        // Two honest retries, and one too many.
        let retries = [question(1, 1); 3];
        assert_eq!(settle(&mut store, &retries, 7), [true, true, false]);
    }
    let (mut store, _) = Store::open(directory.path()).expect("opens again");
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
    let (store, _) = Store::open(directory.path()).expect("opens");
    let error = Store::open(directory.path()).expect_err("in use");
    assert!(error.to_string().contains("one process only"), "{error}");
    drop(store);
    fs::remove_file(directory.path().join("key")).expect("removed");
    let error = Store::open(directory.path()).expect_err("no key");
    assert!(error.to_string().contains("restore it"), "{error}");
}

#[test]
fn an_entry_that_cannot_be_read_counts_as_a_replay() {
    let directory = tempfile::tempdir().expect("directory");
    let (mut store, _) = Store::open(directory.path()).expect("opens");
    store.tags.insert([9; 16], b"short").expect("written");
    assert_eq!(settle(&mut store, &[question(9, 1)], 1), [false]);
}
