//! What must hold for the RSA kernels, for any operands: every path gives exactly the number the oracle gives.
//!
//! Unit tests feed it random and extreme operands, the fuzz target bytes of its own finding.

use core::marker::PhantomData;

use crate::blocks::DIGIT_MASK;
use crate::montgomery::{ModN, Moduli, Residue};
use crate::oracle::{below, number, product, reduce, same, sum};
use crate::token::Path;
use crate::vector::{Kernel, LANES, Row, Vector, run};

/// What to compute with an operand or two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// a^2 / R.
    Square,
    /// a b / R.
    Multiply,
    /// a / R.
    Decode,
    /// a or a - m, whichever is below m.
    Canonicalise,
}

struct Run<'a, const N: usize>(Task, &'a mut Moduli<ModN, N>, [Row; N], [Row; N]);

impl<const N: usize> Kernel for Run<'_, N> {
    type Output = [Row; N];

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> [Row; N] {
        let Self(task, moduli, a, b) = self;
        let mut a = Residue::assume(a);
        match task {
            Task::Square => moduli.square::<V>(token, &mut a),
            Task::Multiply => moduli.multiply::<V, _>(token, &mut a, &Residue::assume(b)),
            Task::Decode => a.rows = moduli.decode::<V>(token, &a).rows,
            Task::Canonicalise => moduli.canonicalise::<V, _>(token, &mut a),
        }
        a.rows
    }
}

fn moduli<const N: usize>(digits: [Row; N]) -> Moduli<ModN, N> {
    let mut k0 = Row::ZERO;
    for (k0, m) in k0.0.iter_mut().zip(digits[0].0) {
        let step = |x: u64| x.wrapping_mul(2_u64.wrapping_sub(m.wrapping_mul(x)));
        *k0 = (0..6).fold(m, |x, _| step(x)).wrapping_neg() & DIGIT_MASK;
    }
    // The kernels under test do not read R^2.
    let (rr, quotient) = ([Row::ZERO; N], [Row::ZERO; N]);
    Moduli {
        digits,
        k0,
        rr,
        quotient,
        domain: PhantomData,
    }
}

/// Runs one task on every path and compares each lane with the oracle.
///
/// Moduli are odd and below R / 4, operands below twice their modulus.
///
/// # Panics
///
/// Where a kernel is wrong.
pub(crate) fn check<const N: usize>(task: Task, m: [Row; N], a: [Row; N], b: [Row; N]) {
    let mut expected = None;
    for path in Path::all() {
        let got = run(path, Run(task, &mut moduli(m), a, b));
        // The oracle need only be asked once: paths must agree digit by digit.
        if let Some(expected) = &expected {
            assert_eq!(
                &got,
                expected,
                "{} disagrees with the portable twin",
                path.name()
            );
            continue;
        }
        for lane in 0..LANES {
            let (modulus, x, y) = (number(&m, lane), number(&a, lane), number(&b, lane));
            let result = number(&got, lane);
            let mut bound = product(&modulus, &[2]);
            let right = match task {
                Task::Square => reduce(&product(&x, &x), &modulus, 52 * N),
                Task::Multiply => reduce(&product(&x, &y), &modulus, 52 * N),
                Task::Decode => reduce(&x, &modulus, 52 * N),
                Task::Canonicalise => {
                    bound.clone_from(&modulus);
                    if !below(&x, &modulus) {
                        assert!(same(&sum(&result, &modulus), &x), "lane {lane} of {task:?}");
                    }
                    if below(&x, &modulus) {
                        x
                    } else {
                        result.clone()
                    }
                }
            };
            assert!(
                same(&result, &right),
                "lane {lane} of {task:?}: {result:x?} instead of {right:x?}"
            );
            assert!(
                below(&result, &bound),
                "lane {lane} of {task:?} is out of range"
            );
        }
        expected = Some(got);
    }
}

/// Takes bytes for a task, a length, moduli and operands, makes them keep the kernels' conditions, and checks.
///
/// # Panics
///
/// Where a kernel is wrong.
pub fn rsa_kernels(data: &[u8]) {
    let Some(([what, shape], data)) = data.split_first_chunk() else {
        return;
    };
    let task = match what % 4 {
        0 => Task::Square,
        1 => Task::Multiply,
        2 => Task::Decode,
        _ => Task::Canonicalise,
    };
    match shape % 4 {
        0 => operands::<20>(task, 1024, data),
        1 => operands::<30>(task, 1536, data),
        2 => operands::<40>(task, 2048, data),
        // The length beside which there is the least room: n of RSA-2048, and here one bit off a digit's end.
        _ => operands::<40>(task, 2076, data),
    }
}

/// Numbers of at most `bits` bits from the bytes, repeated until they suffice; moduli get their top and lowest bits.
fn operands<const N: usize>(task: Task, bits: usize, data: &[u8]) {
    let bytes = if data.is_empty() { &[0][..] } else { data };
    let mut bytes = bytes.iter().copied().cycle();
    let mut rows = || {
        let mut rows = [Row::ZERO; N];
        for (i, row) in rows.iter_mut().enumerate() {
            let room = bits.saturating_sub(52 * i).min(52);
            for digit in &mut row.0 {
                let value = bytes
                    .by_ref()
                    .take(7)
                    .fold(0_u64, |value, byte| value << 8 | u64::from(byte));
                *digit = value & ((1 << room) - 1);
            }
        }
        rows
    };
    let (mut m, a, b) = (rows(), rows(), rows());
    for lane in 0..LANES {
        m[0].0[lane] |= 1;
        m[(bits - 1) / 52].0[lane] |= 1 << ((bits - 1) % 52);
    }
    check(task, m, a, b);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything fuzzing has kept.
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fuzz/corpus/lanes_rsa"
        );
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            rsa_kernels(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 16, "{files} files");
    }
}
