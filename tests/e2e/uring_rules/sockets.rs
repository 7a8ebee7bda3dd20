//! Rules 7 and 8: the listening socket.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, parts};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::{World, on_both_backends};

on_both_backends!(
    rule_7_there_is_one_listening_socket,
    rule_8_an_inherited_socket_outlives_the_server,
);

/// Inodes of the sockets that listen on this IPv4 address.
fn listening_inodes(address: SocketAddr) -> Vec<String> {
    let SocketAddr::V4(address) = address else {
        panic!("an IPv4 address is expected")
    };
    let ip = u32::from_le_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Columns: number, local address, remote address, state (0A: listening) ... 9: inode.
        .filter(|columns| columns[1] == local && columns[3] == "0A")
        .map(|columns| columns[9].to_owned())
        .collect()
}

async fn rule_7_there_is_one_listening_socket(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    assert_eq!(listening_inodes(world.server.address()).len(), 1);
    world.client().await.ping(b"x").await.unwrap();
    world.server.signal(nix::sys::signal::Signal::SIGHUP);
    world.client().await.ping(b"x").await.unwrap();
    assert_eq!(listening_inodes(world.server.address()).len(), 1);
}

/// The test plays systemd: it owns the socket and hands it to one server after another.
async fn rule_8_an_inherited_socket_outlives_the_server(backend: &str) {
    let bash = PathBuf::from("/bin/bash");
    if !bash.exists() {
        parts::missing("bash, to pass a descriptor by number");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let activate = format!(
        "exec 3<&{}; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"",
        listener.as_raw_fd()
    );
    let wrapper = [bash, "-c".into(), activate.into(), "activate".into()];
    let address = listener.local_addr().unwrap();
    let fixture = Fixture::new();
    fixture.add_key("shop", KeyKind::P256);
    let mut config = ServerConfig::default().io_backend(backend);
    config.address = address;

    let first = KeyServer::start_under(&wrapper, &fixture, &config);
    let mut world = World {
        fixture,
        server: first,
    };
    world.client().await.ping(b"one").await.unwrap();
    world.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(world.server.wait().success());

    // Nobody serves now, and yet the socket takes connections: this one waits in its queue.
    assert_eq!(listening_inodes(address).len(), 1);
    let waiting = tokio::spawn({
        let builder = world.builder();
        async move { builder.connect().await?.ping(b"two").await }
    });
    world.server = KeyServer::start_under(&wrapper, &world.fixture, &config);
    assert_eq!(waiting.await.unwrap().unwrap(), b"two");
}
