//! The yardstick: threads that do nothing but sign, with a session each and no pool between.

use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_C_INITIALIZE_ARGS, CK_FUNCTION_LIST, CK_MECHANISM, CK_MECHANISM_TYPE,
    CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TRUE, CK_ULONG, CKA_CLASS,
    CKA_ID, CKA_LABEL, CKA_PARAMETER_SET, CKA_PRIVATE, CKA_SENSITIVE, CKA_SIGN, CKA_TOKEN,
    CKA_VERIFY, CKF_OS_LOCKING_OK, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKM_ML_DSA_KEY_PAIR_GEN,
    CKO_PRIVATE_KEY, CKR_OK, CKR_USER_ALREADY_LOGGED_IN, CKU_USER, Pkcs11,
};

/// Longest signature that is made here.
const MAX_SIGNATURE: usize = 1024;

/// Signs `input` over and over for `duration`, from `threads` threads, and returns how many signatures were
/// made. Takes the first slot in which a login with `pin` shows a private key called `label`.
///
/// # Panics
///
/// When a call fails: without a module that works there is nothing to compare with.
#[must_use]
pub fn bare_loop(
    module: &Path,
    pin: &str,
    label: &str,
    mechanism: CK_MECHANISM_TYPE,
    input: &[u8],
    threads: usize,
    duration: Duration,
) -> u64 {
    let bare = Bare::load(module);
    let (slot, key) = bare.find(pin, label);
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let session = bare.open(slot);
                while !stop.load(Ordering::Relaxed) {
                    bare.sign(session, mechanism, key, input);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
    });
    made.into_inner()
}

/// Calls a function that must succeed.
macro_rules! must {
    ($bare:ident.$name:ident($($argument:expr),*)) => {{
        let function = $bare.functions.$name.expect(stringify!($name));
        // SAFETY: the function is of a loaded module, and every pointer is to a live local or slice, passed
        // with its length where the function wants one.
        let code = unsafe { function($($argument),*) };
        assert_eq!(code, CKR_OK, "{}: {code:#x}", stringify!($name));
    }};
}

/// A module, and its functions.
pub(crate) struct Bare {
    functions: CK_FUNCTION_LIST,
    /// Keeps it loaded.
    _library: Pkcs11,
}

#[expect(clippy::expect_used, reason = "for benchmarks: a failure ends it")]
impl Bare {
    /// Loads a module and initializes it, if nobody has.
    pub(crate) fn load(module: &Path) -> Self {
        // SAFETY: loads what the test has named, a PKCS#11 module, whose initialisers are made to run here.
        let library = unsafe { Pkcs11::new(module) }.expect("the module loads");
        let entry = *library.C_GetFunctionList.as_ref().expect("an entry point");
        let mut list = std::ptr::null_mut();
        // SAFETY: may be called before C_Initialize, and writes one pointer.
        assert_eq!(unsafe { entry(&raw mut list) }, CKR_OK);
        // SAFETY: on success the pointer leads to the module's list, a constant as long as it is loaded.
        let functions = *unsafe { list.as_ref() }.expect("a list");
        let bare = Self {
            functions,
            _library: library,
        };
        bare.initialize();
        bare
    }

    /// Ends what [`Self::load`] began: no session is left, and no login.
    pub(crate) fn finalize(&self) {
        must!(self.C_Finalize(std::ptr::null_mut()));
    }

    /// Has a token make an ML-DSA key pair of this parameter set.
    pub(crate) fn generate_ml_dsa(
        &self,
        slot: CK_SLOT_ID,
        pin: &str,
        mut set: CK_ULONG,
        label: &str,
        id: &[u8],
    ) {
        let mut session = 0;
        let nothing: *mut c_void = std::ptr::null_mut();
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        must!(self.C_OpenSession(slot, flags, nothing, None, &raw mut session));
        let length = CK_ULONG::try_from(pin.len()).expect("a short PIN");
        must!(self.C_Login(session, CKU_USER, pin.as_ptr().cast_mut(), length));
        let mut yes = CK_TRUE;
        let attribute = |kind, value: *mut c_void, length: usize| CK_ATTRIBUTE {
            type_: kind,
            pValue: value,
            ulValueLen: CK_ULONG::try_from(length).expect("a short value"),
        };
        let yes: *mut c_void = (&raw mut yes).cast();
        let mut public = [
            attribute(CKA_TOKEN, yes, 1),
            attribute(CKA_VERIFY, yes, 1),
            attribute(CKA_PARAMETER_SET, (&raw mut set).cast(), size_of_val(&set)),
            attribute(CKA_LABEL, label.as_ptr().cast_mut().cast(), label.len()),
            attribute(CKA_ID, id.as_ptr().cast_mut().cast(), id.len()),
        ];
        let mut private = [
            attribute(CKA_TOKEN, yes, 1),
            attribute(CKA_PRIVATE, yes, 1),
            attribute(CKA_SENSITIVE, yes, 1),
            attribute(CKA_SIGN, yes, 1),
            attribute(CKA_LABEL, label.as_ptr().cast_mut().cast(), label.len()),
            attribute(CKA_ID, id.as_ptr().cast_mut().cast(), id.len()),
        ];
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_ML_DSA_KEY_PAIR_GEN,
            pParameter: nothing,
            ulParameterLen: 0,
        };
        let (mut public_key, mut private_key) = (0, 0);
        must!(self.C_GenerateKeyPair(
            session,
            &raw mut mechanism,
            public.as_mut_ptr(),
            5,
            private.as_mut_ptr(),
            6,
            &raw mut public_key,
            &raw mut private_key
        ));
        must!(self.C_CloseSession(session));
    }

    fn initialize(&self) {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            ..CK_C_INITIALIZE_ARGS::default()
        };
        let function = self.functions.C_Initialize.expect("C_Initialize");
        // SAFETY: the structure is live for the call. That somebody has initialized before is fine.
        let _ = unsafe { function((&raw mut arguments).cast()) };
    }

    fn open(&self, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
        let mut session = 0;
        let nothing: *mut c_void = std::ptr::null_mut();
        must!(self.C_OpenSession(slot, CKF_SERIAL_SESSION, nothing, None, &raw mut session));
        session
    }

    /// The first slot that shows the key. Its session is left open, and with it the login.
    fn find(&self, pin: &str, label: &str) -> (CK_SLOT_ID, CK_OBJECT_HANDLE) {
        let mut slots = [0; 16];
        let mut count = CK_ULONG::try_from(slots.len()).expect("a small number");
        must!(self.C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &raw mut count));
        let count = usize::try_from(count).expect("a small number");
        let found = slots.into_iter().take(count).find_map(|slot| {
            let session = self.open(slot);
            let login = self.functions.C_Login.expect("C_Login");
            let length = CK_ULONG::try_from(pin.len()).expect("a short PIN");
            // SAFETY: the module reads `length` bytes of the PIN, a live string. A token without one refuses.
            let code = unsafe { login(session, CKU_USER, pin.as_ptr().cast_mut(), length) };
            let is_in = code == CKR_OK || code == CKR_USER_ALREADY_LOGGED_IN;
            let key = is_in.then(|| self.key(session, label)).flatten()?;
            Some((slot, key))
        });
        found.expect("a token with the key")
    }

    fn key(&self, session: CK_SESSION_HANDLE, label: &str) -> Option<CK_OBJECT_HANDLE> {
        let mut class: CK_OBJECT_CLASS = CKO_PRIVATE_KEY;
        let size = CK_ULONG::try_from(size_of_val(&class)).ok()?;
        let mut template = [
            CK_ATTRIBUTE {
                type_: CKA_CLASS,
                pValue: (&raw mut class).cast(),
                ulValueLen: size,
            },
            CK_ATTRIBUTE {
                type_: CKA_LABEL,
                pValue: label.as_ptr().cast_mut().cast(),
                ulValueLen: CK_ULONG::try_from(label.len()).ok()?,
            },
        ];
        must!(self.C_FindObjectsInit(session, template.as_mut_ptr(), 2));
        let (mut key, mut count) = (0, 0);
        must!(self.C_FindObjects(session, &raw mut key, 1, &raw mut count));
        must!(self.C_FindObjectsFinal(session));
        (count == 1).then_some(key)
    }

    fn sign(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
        input: &[u8],
    ) {
        let mut mechanism = CK_MECHANISM {
            mechanism,
            pParameter: std::ptr::null_mut(),
            ulParameterLen: 0,
        };
        let mut signature = [0; MAX_SIGNATURE];
        let mut length = CK_ULONG::try_from(signature.len()).expect("a small number");
        let given = CK_ULONG::try_from(input.len()).expect("a short input");
        must!(self.C_SignInit(session, &raw mut mechanism, key));
        must!(self.C_Sign(
            session,
            input.as_ptr().cast_mut(),
            given,
            signature.as_mut_ptr(),
            &raw mut length
        ));
    }
}
