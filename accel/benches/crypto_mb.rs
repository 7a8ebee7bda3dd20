//! Intel's `libcrypto_mb.so`, loaded at run time for comparison and for nothing else.
//!
//! The signatures are those of `crypto_mb/rsa.h` and `crypto_mb/ec_nistp256.h`, version 13.

#![expect(unsafe_code, reason = "loads a C library and calls it")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

const LANES: usize = 8;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const RTLD_NOW: c_int = 2;

/// `const int8u* const [8]`.
type Inputs = *const *const u8;
/// `int8u* const [8]`.
type Outputs = *const *mut u8;
/// `const int64u* const [8]`, limbs lowest first.
type Numbers = *const *const u64;
/// `const mbx_RSA_Method*`.
type Method = *const c_void;

type MethodOf = unsafe extern "C" fn(bits: c_int) -> Method;
type BufferSize = unsafe extern "C" fn(Method) -> c_int;
type PrivateCrt = unsafe extern "C" fn(
    Inputs,
    Outputs,
    Numbers,
    Numbers,
    Numbers,
    Numbers,
    Numbers,
    c_int,
    Method,
    *mut u8,
) -> u32;
type Public = unsafe extern "C" fn(Inputs, Outputs, Numbers, c_int, Method, *mut u8) -> u32;
type EcdsaSign = unsafe extern "C" fn(Outputs, Outputs, Inputs, Numbers, Numbers, *mut u8) -> u32;

/// The functions that are compared. The library stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(crate) struct CryptoMb {
    private_method: MethodOf,
    public_method: MethodOf,
    buffer_size: BufferSize,
    private_crt: PrivateCrt,
    public: Public,
    sign_p256: EcdsaSign,
    sign_p384: EcdsaSign,
}

impl CryptoMb {
    /// Loads the library; the error is the loader's own text.
    pub(crate) fn load(path: &str) -> Result<Self, String> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        // SAFETY: the path is a C string. Loading runs the library's constructors, which is what whoever named
        // the library in the environment asked for.
        let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
        if library.is_null() {
            return Err(loader_error());
        }
        let find = |name: &CStr| {
            // SAFETY: `library` is a handle that dlopen returned and nobody closes, the name a C string.
            let symbol = unsafe { dlsym(library, name.as_ptr()) };
            if symbol.is_null() {
                Err(loader_error())
            } else {
                Ok(symbol)
            }
        };
        let private_method = find(c"mbx_RSA_private_crt_Method")?;
        let public_method = find(c"mbx_RSA_pub65537_Method")?;
        let buffer_size = find(c"mbx_RSA_Method_BufSize")?;
        let private_crt = find(c"mbx_rsa_private_crt_mb8")?;
        let public = find(c"mbx_rsa_public_mb8")?;
        let sign_p256 = find(c"mbx_nistp256_ecdsa_sign_mb8")?;
        let sign_p384 = find(c"mbx_nistp384_ecdsa_sign_mb8")?;
        #[expect(
            clippy::multiple_unsafe_ops_per_block,
            reason = "seven times the same conversion"
        )]
        // SAFETY: none is null, and each type is the one the library's headers give to the name.
        unsafe {
            Ok(Self {
                private_method: transmute::<*mut c_void, MethodOf>(private_method),
                public_method: transmute::<*mut c_void, MethodOf>(public_method),
                buffer_size: transmute::<*mut c_void, BufferSize>(buffer_size),
                private_crt: transmute::<*mut c_void, PrivateCrt>(private_crt),
                public: transmute::<*mut c_void, Public>(public),
                sign_p256: transmute::<*mut c_void, EcdsaSign>(sign_p256),
                sign_p384: transmute::<*mut c_void, EcdsaSign>(sign_p384),
            })
        }
    }
}

fn loader_error() -> String {
    // SAFETY: takes no arguments; the text it returns lives until the next call into the loader.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "unknown error of the loader".to_owned();
    }
    // SAFETY: not null, and a C string by dlerror's contract.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A big-endian number as `count` limbs, lowest first.
fn limbs(bytes: &[u8], count: usize) -> Vec<u64> {
    let mut limbs: Vec<u64> = bytes
        .rchunks(8)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        })
        .collect();
    limbs.resize(count, 0);
    limbs
}

/// Eight RSA operations with one key, unblinded: this library offers no blinding.
pub(crate) struct RsaBatch {
    library: CryptoMb,
    bits: c_int,
    n: Vec<u64>,
    /// p, q, dp, dq, qinv.
    parts: [Vec<u64>; 5],
    private_method: Method,
    public_method: Method,
    buffer: Vec<u8>,
    input: Vec<u8>,
    outputs: Vec<Vec<u8>>,
    checks: Vec<Vec<u8>>,
}

impl RsaBatch {
    /// Numbers are big endian; `parts` are p, q, dp, dq and qinv.
    pub(crate) fn new(library: CryptoMb, n: &[u8], parts: [&[u8]; 5], input: &[u8]) -> Self {
        let k = n.len();
        let bits = c_int::try_from(k * 8).unwrap_or(0);
        // SAFETY: takes a number, returns a constant of the library or null.
        let private_method = unsafe { (library.private_method)(bits) };
        // SAFETY: as above.
        let public_method = unsafe { (library.public_method)(bits) };
        assert!(!private_method.is_null() && !public_method.is_null());
        let size = [private_method, public_method]
            // SAFETY: the method is a constant of the library, not null.
            .map(|method| unsafe { (library.buffer_size)(method) })
            .into_iter()
            .max();
        Self {
            library,
            bits,
            n: limbs(n, k / 8),
            parts: parts.map(|part| limbs(part, k / 16)),
            private_method,
            public_method,
            // The library aligns its scratch space by itself within what BufSize asks for.
            buffer: vec![
                0;
                size.and_then(|size| usize::try_from(size).ok())
                    .unwrap_or(0)
            ],
            input: input.to_vec(),
            outputs: vec![vec![0; k]; LANES],
            checks: vec![vec![0; k]; LANES],
        }
    }

    /// The eight private operations; true if the library says that all went well.
    pub(crate) fn run(&mut self) -> bool {
        let inputs = [self.input.as_ptr(); LANES];
        let outputs: Vec<_> = self.outputs.iter_mut().map(Vec::as_mut_ptr).collect();
        let [p, q, dp, dq, qinv] = self.parts.each_ref().map(|part| [part.as_ptr(); LANES]);
        // SAFETY: eight pointers each; input and outputs have k bytes, p to qinv k/16 limbs, which is what
        // this bit length reads and writes; the buffer is as large as the method asked for.
        let status = unsafe {
            (self.library.private_crt)(
                inputs.as_ptr(),
                outputs.as_ptr(),
                p.as_ptr(),
                q.as_ptr(),
                dp.as_ptr(),
                dq.as_ptr(),
                qinv.as_ptr(),
                self.bits,
                self.private_method,
                self.buffer.as_mut_ptr(),
            )
        };
        status == 0
    }

    /// Raises the results to 65537 and compares: the check that a careful caller adds.
    pub(crate) fn check(&mut self) -> bool {
        let inputs: Vec<_> = self.outputs.iter().map(Vec::as_ptr).collect();
        let outputs: Vec<_> = self.checks.iter_mut().map(Vec::as_mut_ptr).collect();
        let n = [self.n.as_ptr(); LANES];
        // SAFETY: as in `run`; n has k/8 limbs.
        let status = unsafe {
            (self.library.public)(
                inputs.as_ptr(),
                outputs.as_ptr(),
                n.as_ptr(),
                self.bits,
                self.public_method,
                self.buffer.as_mut_ptr(),
            )
        };
        status == 0 && self.checks.iter().all(|check| *check == self.input)
    }
}

/// Eight ECDSA signatures with one key and nonces that the caller chose beforehand: this library makes none.
pub(crate) struct EcdsaBatch {
    sign: EcdsaSign,
    key: Vec<u64>,
    nonces: Vec<Vec<u64>>,
    digest: Vec<u8>,
    r: Vec<Vec<u8>>,
    s: Vec<Vec<u8>>,
}

impl EcdsaBatch {
    /// `scalar`, `digest` and each nonce are big endian and as long as the curve's order: 32 or 48 bytes.
    pub(crate) fn new(
        library: CryptoMb,
        scalar: &[u8],
        nonces: &[Vec<u8>; LANES],
        digest: &[u8],
    ) -> Self {
        let length = scalar.len();
        assert!(matches!(length, 32 | 48) && digest.len() == length);
        Self {
            sign: if length == 32 {
                library.sign_p256
            } else {
                library.sign_p384
            },
            key: limbs(scalar, length / 8),
            nonces: nonces
                .iter()
                .map(|nonce| limbs(nonce, length / 8))
                .collect(),
            digest: digest.to_vec(),
            r: vec![vec![0; length]; LANES],
            s: vec![vec![0; length]; LANES],
        }
    }

    /// The eight signatures; true if the library says that all went well.
    pub(crate) fn run(&mut self) -> bool {
        let r: Vec<_> = self.r.iter_mut().map(Vec::as_mut_ptr).collect();
        let s: Vec<_> = self.s.iter_mut().map(Vec::as_mut_ptr).collect();
        let digests = [self.digest.as_ptr(); LANES];
        let nonces: Vec<_> = self.nonces.iter().map(Vec::as_ptr).collect();
        let keys = [self.key.as_ptr(); LANES];
        // SAFETY: eight pointers each, to as many bytes or limbs as the order of the curve has; the
        // headers allow a null buffer.
        let status = unsafe {
            (self.sign)(
                r.as_ptr(),
                s.as_ptr(),
                digests.as_ptr(),
                nonces.as_ptr(),
                keys.as_ptr(),
                null_mut(),
            )
        };
        status == 0
    }

    /// r and s of the first signature.
    pub(crate) fn first(&self) -> (&[u8], &[u8]) {
        (
            self.r.first().map_or(&[], |r| r),
            self.s.first().map_or(&[], |s| s),
        )
    }
}
