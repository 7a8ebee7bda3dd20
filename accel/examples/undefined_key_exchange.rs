//! Follows the bytes of a block through the machine code that answers a key exchange, with valgrind: no jump and no
//! address may depend on them (Langley's ctgrind, 2010).
//!
//! ```text
//! cargo build --release -p accel --example undefined_key_exchange
//! valgrind --error-exitcode=99 target/release/examples/undefined_key_exchange [naive]
//! ```
//!
//! The block is declared undefined, as memory that nobody has written yet. Valgrind carries that mark through every
//! instruction, and complains of a jump or an address that depends on it: in our unpadding and choice, and in AWS-LC's
//! HMAC and PRF, which get the secret as their key. With `naive` the check is the one that everybody writes first,
//! and must be complained of. It is x86-64's code that is looked at.
#![expect(
    unsafe_code,
    clippy::print_stdout,
    reason = "a request to valgrind is a sequence of instructions; a command that prints its findings"
)]

use std::error::Error;
use std::hint::black_box;

use accel::{Key, KeyExchange, Prf, Seed};

const K: usize = 256;

/// `VALGRIND_MAKE_MEM_UNDEFINED` of `valgrind/memcheck.h`: 'M', 'C' and the number of the request.
const MAKE_UNDEFINED: u64 = 0x4d43_0001;
/// `VALGRIND_MAKE_MEM_DEFINED`.
const MAKE_DEFINED: u64 = 0x4d43_0002;
/// `VALGRIND_GET_VBITS`: which bits are undefined.
const GET_MARKS: u64 = 0x4d43_0008;
/// `RUNNING_ON_VALGRIND` of `valgrind/valgrind.h`.
const RUNNING: u64 = 0x1001;

/// Asks valgrind for something about these bytes; marks are written to `out`, which has to be as long. Outside of
/// valgrind the answer is 0.
#[cfg(target_arch = "x86_64")]
fn request(number: u64, bytes: &[u8], out: &mut [u8]) -> u64 {
    let address = |pointer: *const u8| u64::try_from(pointer.addr()).unwrap_or(0);
    let length = u64::try_from(bytes.len()).unwrap_or(0);
    let start = address(bytes.as_ptr());
    let arguments = if number == GET_MARKS {
        [number, start, address(out.as_mut_ptr()), length, 0, 0]
    } else {
        [number, start, length, 0, 0, 0]
    };
    let mut answer = 0_u64;
    // SAFETY: four rotations of rdi by 128 bits in all leave it as it was, and exchanging rbx with itself does nothing:
    // a processor sees no effect but on the flags, which `asm!` counts as changed. Valgrind, which knows the sequence,
    // reads the six numbers that rax points to, which live until the end of this function, and writes rdx. Of memory
    // it writes `out` alone, no more of it than is there, because the one caller that asks for marks gives `bytes` and `out` one length.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
        );
    }
    answer
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64, _: &[u8], _: &mut [u8]) -> u64 {
    0
}

/// Whether every byte is marked as undefined.
fn is_undefined(bytes: &[u8; 32]) -> bool {
    let mut marks = [0; 32];
    request(GET_MARKS, bytes, &mut marks) == 1 && marks.iter().all(|mark| *mark != 0)
}

/// A block that conforms, or does not.
fn block(conforms: bool) -> Vec<u8> {
    let mut block = vec![0x5a; K];
    for (place, byte) in [(0, 0), (1, if conforms { 2 } else { 1 }), (K - 49, 0)] {
        if let Some(out) = block.get_mut(place) {
            *out = byte;
        }
    }
    block
}

/// The check that everybody writes first.
fn naive(block: &[u8]) -> bool {
    block.starts_with(&[0, 2]) && block.iter().skip(2).position(|byte| *byte == 0) == Some(K - 51)
}

fn main() -> Result<(), Box<dyn Error>> {
    if request(RUNNING, &[], &mut []) == 0 {
        return Err("nobody is looking: run this under valgrind, on x86-64".into());
    }
    if std::env::args().nth(1).as_deref() == Some("naive") {
        let secret = block(true);
        request(MAKE_UNDEFINED, &secret, &mut []);
        println!("a naive check says {}", naive(black_box(&secret)));
        return Ok(());
    }
    let key = Key::from_bytes(include_bytes!("../tests/keys/rsa2048.pkcs8.pem"))?;
    let client_version = [3, 3];
    let master = |prf, seed| KeyExchange::Master {
        client_version,
        prf,
        seed,
    };
    let exchanges = [
        KeyExchange::Premaster { client_version },
        KeyExchange::Compatible,
        master(Prf::Sha256, Seed::Randoms([7; 64])),
        master(Prf::Sha256, Seed::SessionHash256([7; 32])),
        master(Prf::Sha384, Seed::SessionHash384([7; 48])),
    ];
    let mut answers = 0;
    for exchange in exchanges {
        for conforms in [true, false] {
            let mut answer = block(conforms);
            request(MAKE_UNDEFINED, &answer, &mut []);
            exchange.answer(&key, &[0x5c; K], &mut answer)?;
            if !answer.last_chunk().is_some_and(is_undefined) {
                return Err("the mark was lost on the way, so nothing was shown".into());
            }
            // What is sent is no secret any more.
            request(MAKE_DEFINED, &answer, &mut []);
            if answer.len() != exchange.answer_len(K) {
                return Err("an answer of the wrong length".into());
            }
            answers += 1;
        }
    }
    println!("{answers} answers were made");
    Ok(())
}
