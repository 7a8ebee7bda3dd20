//! Each attack finds the mistake it is about, and the attacks that have nothing to do with it find nothing.

use std::collections::BTreeSet;

use crate::naive::{Mistake, Naive};
use crate::{attack, of};

/// So few that a comparison of times can find nothing: that is for the tests at the end.
const FEW: [&str; 2] = ["--samples", "8"];

/// What takes two runs.
const LATER: &str = "replay-later";

fn check(mistake: Mistake, expected: &[&str]) {
    let server = Naive::start(Some(mistake));
    let (report, all_held) = attack(server.fixture(), server.address, &FEW);
    let found: BTreeSet<&str> = of(&report, "broken").into_iter().collect();
    assert_eq!(found, expected.iter().copied().collect(), "{mistake:?}");
    assert!(!all_held, "the command says that all held");
}

#[test]
fn a_server_without_a_mistake_holds() {
    let server = Naive::start(None);
    let (report, all_held) = attack(server.fixture(), server.address, &["--samples", "100"]);
    assert!(all_held);
    assert_eq!(of(&report, "skipped"), [LATER]);
    assert_eq!(of(&report, "held").len(), 21);
}

#[test]
fn one_key_and_one_attack_can_be_picked() {
    let server = Naive::start(None);
    let only = ["--only", "sign-request", "--sign-key"];
    for (key, why) in [
        ("site", "with 1 key were refused"),
        ("nobody", "no such key"),
    ] {
        let (report, all_held) = attack(
            server.fixture(),
            server.address,
            &[&only[..], &[key]].concat(),
        );
        assert!(all_held);
        assert_eq!(report.len(), 1);
        let (_, said) = &report["sign-request"];
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn textbook_rsa_forges_and_shows_its_blocks() {
    let found = ["forge-pkcs1", "forge-pss", "padding-separator"];
    check(Mistake::TextbookRsa, &found);
}

#[test]
fn a_random_substitute_is_seen_by_asking_twice() {
    check(Mistake::RandomSubstitute, &["padding-repetition"]);
}

#[test]
fn a_compared_version_is_seen() {
    check(Mistake::ComparedVersion, &["padding-version"]);
}

#[test]
fn a_searched_separator_is_seen() {
    check(Mistake::SearchedSeparator, &["padding-separator"]);
    check(Mistake::WhateverIsBehind, &["padding-separator"]);
}

#[test]
fn an_error_for_a_bad_padding_is_seen() {
    check(Mistake::PaddingError, &["padding-error"]);
}

#[test]
fn a_shorter_answer_for_a_bad_padding_is_seen() {
    check(Mistake::ShortAnswer, &["padding-length"]);
}

#[test]
fn a_deputy_without_grammar_signs_everything() {
    let found = [
        "cross-shape",
        "sign-credential",
        "sign-jws",
        "sign-other",
        "sign-request",
        "sign-revocation",
    ];
    check(Mistake::SignsAnything, &found);
}

#[test]
fn a_grammar_for_both_operations_is_seen() {
    check(Mistake::OneGrammar, &["cross-shape"]);
}

#[test]
fn a_grammar_of_spaces_alone_signs_delegated_credentials() {
    let found = ["cross-shape", "sign-credential", "sign-other"];
    check(Mistake::SpacesOnly, &found);
}

#[test]
fn digests_signed_under_the_wrong_right_are_seen() {
    check(Mistake::SignsDigests, &["purpose", "sign-digest"]);
}

#[test]
fn a_server_that_forgets_opens_recordings() {
    check(Mistake::NoLedger, &["replay-other", "replay-same"]);
    check(Mistake::LedgerOfEachClient, &["replay-other"]);
}

#[test]
fn what_is_forgotten_in_a_restart_is_seen_by_a_later_run() {
    for (mistake, verdict) in [(None, "held"), (Some(Mistake::LedgerInMemory), "broken")] {
        let server = Naive::start(mistake);
        let file = server.fixture().path("recording");
        let options = ["--only", LATER, "--recording", file.to_str().unwrap()];
        let (report, _) = attack(server.fixture(), server.address, &options);
        assert_eq!(of(&report, "skipped"), [LATER]);
        let (report, _) = attack(server.fixture(), server.address, &options);
        assert_eq!(of(&report, "held"), [LATER], "before the restart");
        server.restart();
        let (report, _) = attack(server.fixture(), server.address, &options);
        assert_eq!(of(&report, verdict), [LATER]);
    }
}

#[test]
fn keys_for_everybody_are_seen() {
    check(Mistake::NoRights, &["foreign-key"]);
}

#[test]
fn a_key_that_does_more_than_it_is_for_is_seen() {
    check(Mistake::AnyPurpose, &["purpose"]);
}

#[test]
fn an_error_of_its_own_for_unknown_keys_is_seen() {
    check(Mistake::TellsWhatExists, &["enumerate-answer"]);
}

/// An attacker has patience: on a busy machine the difference takes more samples to see.
fn is_found_in_time(mistake: Mistake, name: &str) {
    let server = Naive::start(Some(mistake));
    for samples in ["200", "400", "800", "1600", "3200"] {
        let options = ["--only", name, "--samples", samples];
        let (report, _) = attack(server.fixture(), server.address, &options);
        if of(&report, "broken") == [name] {
            return;
        }
    }
    panic!("{mistake:?} was not found");
}

#[test]
fn an_early_exit_from_a_bad_padding_is_seen_by_its_time() {
    is_found_in_time(Mistake::EarlyExit, "padding-time");
}

#[test]
fn a_late_lookup_of_rights_is_seen_by_its_time() {
    is_found_in_time(Mistake::LateLookup, "enumerate-time");
}
