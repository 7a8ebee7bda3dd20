//! Proxies and tools as Debian has them, with their keys on a real key server, through the PKCS#11
//! module.
//!
//! | module | program |
//! |---|---|
//! | [`pkcs11_tool`] | OpenSC's pkcs11-tool: lists, and signatures of every mechanism |
//! | [`curl`] | curl with a client certificate |
//! | [`gnutls`] | gnutls-serv: every key exchange, `TLS_RSA` through a decryption included |
//! | [`openssh`] | ssh-keygen -D, and a login |
//! | [`stunnel`] | stunnel |
//! | [`apache`] | Apache with threads in several processes |
//! | [`java`] | Java's SunPKCS11, by way of keytool |
//! | [`c_programs`] | the examples of the C library, and programs that load the module over and over |
//! | [`nginx`] | nginx with several workers: handshakes while it is reloaded, a key server that goes and comes back |
//! | [`chromium`] | headless Chromium before nginx: a page while the key is there, disabled, and there again |
//! | [`valgrind`] | nginx with the module under valgrind |
//! | [`stock`] | nginx and gnutls-serv before a server that knows the stock protocol only |
//! | [`pages`] | the lines of `docs/edges`, which all of these use |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is wrong, and says so by panicking there"
)]

mod apache;
mod c_programs;
mod chromium;
mod curl;
mod edge;
mod gnutls;
mod java;
mod nginx;
mod openssh;
mod pages;
mod pkcs11_tool;
mod stock;
mod stunnel;
mod valgrind;
