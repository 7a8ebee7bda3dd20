//! Use of a key that belongs to another client.

use keyless_protocol::Request;

use super::deputy::count_of;
use super::enumerate::foreign;
use super::forge::name_of;
use super::line::Trouble;
use super::purpose::uses;
use super::target::Target;
use super::verdict::Verdict;

/// Every use of every key that the other client sees and this one does not, named in every way.
pub(super) fn run(target: &mut Target) -> Result<Verdict, Trouble> {
    let Some(other) = &target.other else {
        let why = "give a second client (--other-cert, --other-key) that may use other keys";
        return Ok(Verdict::skipped(why));
    };
    let keys = foreign(&target.us, other);
    if keys.is_empty() {
        return Ok(Verdict::skipped(
            "the second client may use no key that this one may not: give one that may",
        ));
    }
    let mut refused = 0;
    for key in &keys {
        for attempt in uses(key) {
            let request = attempt.request(key);
            let by_digest = key.rsa.as_ref().map(|rsa| Request {
                ski: None,
                digest: Some(rsa.certificate_digest()),
                ..request
            });
            for request in [Some(request), by_digest].into_iter().flatten() {
                if target.us.line.ask(&request)?.is_given() {
                    return Ok(Verdict::broken(format!(
                        "{}: {} of the other client did {}",
                        name_of(request.opcode),
                        key.label,
                        attempt.what
                    )));
                }
                refused += 1;
            }
        }
    }
    Ok(Verdict::held(format!(
        "{} of {} of the other client were refused",
        count_of(refused, "use"),
        count_of(keys.len(), "key")
    )))
}
