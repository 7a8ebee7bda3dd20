//! The debug log: one line for each call, off unless the environment asks for it.
//!
//! `KEYSERVER_PKCS11_LOG=stderr`, or the path of a file that lines are appended to. A line has the
//! process, the function, its return code and, for a failure, the reason. It never has an input, a
//! result or a pin.

use std::env;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::process;

use cryptoki_sys as ck;
use cryptoki_sys::CK_RV;

use crate::failure::Failure;

const VARIABLE: &str = "KEYSERVER_PKCS11_LOG";

/// Writes one line, if the log is on. That it cannot be written is nobody's to know.
pub(crate) fn call(function: &str, failure: Option<&Failure>) {
    let Some(target) = env::var_os(VARIABLE) else {
        return;
    };
    let line = line(function, failure);
    if target == OsStr::new("stderr") {
        drop(std::io::stderr().write_all(line.as_bytes()));
    } else if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(target) {
        drop(file.write_all(line.as_bytes()));
    }
}

/// Tells the person who starts the host that the configuration is wrong: the return code alone
/// would not say which line of which file.
pub(crate) fn configuration(failure: &Failure) {
    let line = format!("keyserver-pkcs11: {}\n", failure.why.trim_end());
    drop(std::io::stderr().write_all(line.as_bytes()));
}

fn line(function: &str, failure: Option<&Failure>) -> String {
    let process = process::id();
    match failure {
        None => format!("keyserver-pkcs11[{process}]: {function}: CKR_OK\n"),
        Some(Failure { code, why }) => format!(
            "keyserver-pkcs11[{process}]: {function}: {} ({code:#x}): {}\n",
            name(*code),
            why.replace('\n', " ")
        ),
    }
}

/// The names of the codes that the module gives.
fn name(code: CK_RV) -> &'static str {
    match code {
        ck::CKR_ARGUMENTS_BAD => "CKR_ARGUMENTS_BAD",
        ck::CKR_ATTRIBUTE_SENSITIVE => "CKR_ATTRIBUTE_SENSITIVE",
        ck::CKR_ATTRIBUTE_TYPE_INVALID => "CKR_ATTRIBUTE_TYPE_INVALID",
        ck::CKR_BUFFER_TOO_SMALL => "CKR_BUFFER_TOO_SMALL",
        ck::CKR_CRYPTOKI_ALREADY_INITIALIZED => "CKR_CRYPTOKI_ALREADY_INITIALIZED",
        ck::CKR_CRYPTOKI_NOT_INITIALIZED => "CKR_CRYPTOKI_NOT_INITIALIZED",
        ck::CKR_DATA_INVALID => "CKR_DATA_INVALID",
        ck::CKR_DATA_LEN_RANGE => "CKR_DATA_LEN_RANGE",
        ck::CKR_DEVICE_ERROR => "CKR_DEVICE_ERROR",
        ck::CKR_ENCRYPTED_DATA_INVALID => "CKR_ENCRYPTED_DATA_INVALID",
        ck::CKR_ENCRYPTED_DATA_LEN_RANGE => "CKR_ENCRYPTED_DATA_LEN_RANGE",
        ck::CKR_FUNCTION_FAILED => "CKR_FUNCTION_FAILED",
        ck::CKR_GENERAL_ERROR => "CKR_GENERAL_ERROR",
        ck::CKR_KEY_FUNCTION_NOT_PERMITTED => "CKR_KEY_FUNCTION_NOT_PERMITTED",
        ck::CKR_KEY_HANDLE_INVALID => "CKR_KEY_HANDLE_INVALID",
        ck::CKR_KEY_TYPE_INCONSISTENT => "CKR_KEY_TYPE_INCONSISTENT",
        ck::CKR_MECHANISM_INVALID => "CKR_MECHANISM_INVALID",
        ck::CKR_MECHANISM_PARAM_INVALID => "CKR_MECHANISM_PARAM_INVALID",
        ck::CKR_OBJECT_HANDLE_INVALID => "CKR_OBJECT_HANDLE_INVALID",
        ck::CKR_OPERATION_ACTIVE => "CKR_OPERATION_ACTIVE",
        ck::CKR_OPERATION_NOT_INITIALIZED => "CKR_OPERATION_NOT_INITIALIZED",
        ck::CKR_SESSION_COUNT => "CKR_SESSION_COUNT",
        ck::CKR_SESSION_HANDLE_INVALID => "CKR_SESSION_HANDLE_INVALID",
        ck::CKR_SESSION_PARALLEL_NOT_SUPPORTED => "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
        ck::CKR_SLOT_ID_INVALID => "CKR_SLOT_ID_INVALID",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_function_the_code_and_the_reason() {
        let failure = Failure::new(ck::CKR_DEVICE_ERROR, "two\nlines");
        let text = line("C_Sign", Some(&failure));
        assert!(
            text.ends_with("C_Sign: CKR_DEVICE_ERROR (0x30): two lines\n"),
            "{text}"
        );
        assert!(line("C_Sign", None).ends_with("C_Sign: CKR_OK\n"));
    }
}
