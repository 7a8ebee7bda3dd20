//! DNS messages: one question out, the answers in. RFC 1035; SRV records RFC 2782; EDNS RFC 6891.
//!
//! ```text
//!   id[2] flags[2] questions[2] answers[2] authorities[2] additional[2]
//!   question:  name type[2] class[2]
//!   record:    name type[2] class[2] ttl[4] length[2] data
//!   SRV data:  priority[2] weight[2] port[2] target
//! ```
//!
//! Only what finding servers needs is read. Whatever else stands in a message is skipped, and a message
//! that is not well-formed is an error as a whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// A record of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
}

/// What a message answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Records, and for how many seconds they are good.
    Records(Vec<Record>, u32),
    /// The answer did not fit: ask again over TCP.
    Truncated,
}

/// Internet.
const CLASS: u16 = 1;
/// The record that says how long an answer over UDP may be (RFC 6891, section 6.1.2).
const OPT: u16 = 41;
/// What passes every network in one piece.
pub(super) const UDP_BYTES: u16 = 1232;

const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;

const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;
/// Pointers in one name. Each leads backwards, and honest names have one.
const POINTERS_MAX: usize = 16;

/// A question, to be answered recursively.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, &'static str> {
    let mut message = Vec::with_capacity(64);
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 1] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    let start = message.len();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|&length| length > 0 && usize::from(length) <= LABEL_MAX)
            .ok_or("the name has a label of no or more than 63 bytes")?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() - start > NAME_MAX {
        return Err("the name is longer than 255 bytes");
    }
    for number in [kind.number(), CLASS] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    // The root's name, the type, the size where a class would be, no flags, no data.
    message.push(0);
    for number in [OPT, UDP_BYTES, 0, 0, 0] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    Ok(message)
}

/// Reads the answer to [`question`]. `None` is not an answer to this question: one must go on
/// listening.
pub(super) fn read(
    message: &[u8],
    id: u16,
    name: &str,
    kind: Kind,
) -> Option<Result<Reply, &'static str>> {
    let mut reader = Reader { message, at: 0 };
    let head: [u16; 6] = [(); 6].map(|()| reader.number().unwrap_or(0));
    let [found, flags, questions, answers, ..] = head;
    let asked = |reader: &mut Reader<'_>| {
        let asked = (reader.name()?, reader.number()?, reader.number()?);
        let wanted = name.trim_end_matches('.');
        Some(asked.0.eq_ignore_ascii_case(wanted) && asked.1 == kind.number() && asked.2 == CLASS)
    };
    let is_answer = found == id && flags & RESPONSE != 0 && questions == 1;
    if !is_answer || asked(&mut reader) != Some(true) {
        return None;
    }
    if flags & TRUNCATED != 0 {
        return Some(Ok(Reply::Truncated));
    }
    Some(match flags & 0xf {
        0 => records(&mut reader, answers, kind).ok_or("the answer is malformed"),
        3 => Err("the name does not exist"),
        _ => Err("the name server cannot answer"),
    })
}

fn records(reader: &mut Reader<'_>, count: u16, kind: Kind) -> Option<Reply> {
    let (mut records, mut good_for) = (Vec::new(), u32::MAX);
    for _ in 0..count {
        reader.name()?;
        let (found, class) = (reader.number()?, reader.number()?);
        let seconds = u32::from(reader.number()?) << 16 | u32::from(reader.number()?);
        let length = usize::from(reader.number()?);
        let end = reader.at.checked_add(length)?;
        // Aliases on the way count too.
        good_for = good_for.min(seconds);
        if (found, class) == (kind.number(), CLASS) {
            records.push(record(reader, kind, length)?);
            if reader.at != end {
                return None;
            }
        }
        reader.at = end;
    }
    (reader.at <= reader.message.len()).then_some(Reply::Records(records, good_for))
}

fn record(reader: &mut Reader<'_>, kind: Kind, length: usize) -> Option<Record> {
    match kind {
        Kind::A => {
            let bytes: [u8; 4] = reader.bytes(length)?.try_into().ok()?;
            Some(Record::Address(Ipv4Addr::from(bytes).into()))
        }
        Kind::Aaaa => {
            let bytes: [u8; 16] = reader.bytes(length)?.try_into().ok()?;
            Some(Record::Address(Ipv6Addr::from(bytes).into()))
        }
        Kind::Srv => {
            let (priority, weight, port) = (reader.number()?, reader.number()?, reader.number()?);
            let target = reader.name()?;
            Some(Record::Service {
                priority,
                weight,
                port,
                target,
            })
        }
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes: [u8; 2] = self.bytes(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    /// A name, whose end may stand earlier in the message: each pointer must lead further back than
    /// the last, so reading ends.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut after, mut pointers) = (String::new(), None, 0);
        let mut before = self.at;
        loop {
            let length = *self.bytes(1)?.first()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = std::str::from_utf8(self.bytes(length.into())?).ok()?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(label);
                }
                192.. => {
                    let low = *self.bytes(1)?.first()?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    if target >= before || pointers > POINTERS_MAX {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    (before, self.at) = (target, target);
                }
                _ => return None,
            }
            if name.len() > NAME_MAX {
                return None;
            }
        }
        self.at = after.unwrap_or(self.at);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a name server: two services, the second with a pointer in its target, behind an
    /// alias.
    fn answer() -> Vec<u8> {
        let mut message = question(7, "_keys._tcp.example", Kind::Srv).unwrap();
        message.truncate(message.len() - 11);
        message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0]);
        let alias = u8::try_from(message.len()).unwrap();
        let mut add = |owner: &[u8], kind: u8, ttl: u8, data: &[u8]| {
            message.extend_from_slice(owner);
            message.extend_from_slice(&[0, kind, 0, 1, 0, 0, 0, ttl, 0]);
            message.push(u8::try_from(data.len()).unwrap());
            message.extend_from_slice(data);
        };
        add(&[0xc0, 12], 5, 30, b"\x05alias\x00");
        let owner = [0xc0, alias + 12];
        add(
            &owner,
            33,
            60,
            b"\x00\x01\x00\x05\x09\x67\x03one\x04host\x00",
        );
        let host = alias + 12 + 7 + 12 + 6 + 4;
        add(
            &owner,
            33,
            90,
            &[0, 2, 0, 5, 9, 0x67, 3, b't', b'w', b'o', 0xc0, host],
        );
        message
    }

    #[test]
    fn services_are_read_with_the_shortest_life() {
        let read = read(&answer(), 7, "_keys._tcp.EXAMPLE.", Kind::Srv);
        let service = |priority, target: &str| Record::Service {
            priority,
            weight: 5,
            port: 2407,
            target: target.into(),
        };
        let records = vec![service(1, "one.host"), service(2, "two.host")];
        assert_eq!(read, Some(Ok(Reply::Records(records, 30))));
    }

    #[test]
    fn answers_to_other_questions_are_not_taken() {
        let message = answer();
        assert_eq!(read(&message, 8, "_keys._tcp.example", Kind::Srv), None);
        assert_eq!(read(&message, 7, "_keys._tcp.example", Kind::A), None);
        assert_eq!(read(&message, 7, "other.example", Kind::Srv), None);
        let asked = question(7, "_keys._tcp.example", Kind::Srv).unwrap();
        assert_eq!(read(&asked, 7, "_keys._tcp.example", Kind::Srv), None);
    }

    #[test]
    fn refusals_and_truncation_are_told_apart() {
        let mut message = answer();
        message[3] = 0x83;
        let read_now = |message: &[u8]| read(message, 7, "_keys._tcp.example", Kind::Srv);
        assert!(matches!(read_now(&message), Some(Err(why)) if why.contains("not exist")));
        message[3] = 0x82;
        assert!(matches!(read_now(&message), Some(Err(why)) if why.contains("cannot answer")));
        message[2] = 0x83;
        assert_eq!(read_now(&message), Some(Ok(Reply::Truncated)));
    }

    #[test]
    fn no_message_that_is_cut_or_changed_does_harm() {
        let whole = answer();
        for length in 0..whole.len() {
            let cut = read(&whole[..length], 7, "_keys._tcp.example", Kind::Srv);
            assert!(!matches!(cut, Some(Ok(Reply::Records(..)))), "{length}");
        }
        for place in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[place] = value;
                // Whatever comes of it, it comes.
                let _ = read(&changed, 7, "_keys._tcp.example", Kind::Srv);
            }
        }
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_refused() {
        for name in ["", ".", "a..b", &"x".repeat(64), &"abc.".repeat(70)] {
            assert!(question(1, name, Kind::A).is_err(), "{name}");
        }
    }
}
