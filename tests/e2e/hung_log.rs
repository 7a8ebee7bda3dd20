//! A log whose reader stands still.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::{World, on_both_backends};

on_both_backends!(a_log_that_nobody_reads_keeps_nobody_waiting);

/// The pipe is full from the beginning: the server starts, serves and stops all the same.
async fn a_log_that_nobody_reads_keeps_nobody_waiting(backend: &str) {
    let fixture = Fixture::new();
    fixture.add_key("site", KeyKind::P256);
    let path = fixture.path("log");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut options = File::options();
    options.read(true).write(true);
    options.custom_flags(OFlag::O_NONBLOCK.bits());
    let mut pipe = options.open(&path).unwrap();
    let mut filled = 0;
    while let Ok(more) = pipe.write(&[b'.'; 4096]) {
        filled += more;
    }

    let script = format!("#!/bin/sh\nexec \"$@\" 2>{}\n", path.display());
    let script = fixture.write("unread", script);
    fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    let config = ServerConfig::default().io_backend(backend);
    let server = KeyServer::start_under(&[script], &fixture, &config);
    let world = World { fixture, server };
    world.client().await.ping(b"is heard").await.unwrap();
    assert!(world.server.stop().success());

    // And nothing but what was there before is in the pipe.
    let mut read = 0;
    let mut buffer = [0; 4096];
    while let Ok(more) = pipe.read(&mut buffer) {
        assert!(buffer[..more].iter().all(|byte| *byte == b'.'));
        read += more;
    }
    assert_eq!(read, filled);
}
