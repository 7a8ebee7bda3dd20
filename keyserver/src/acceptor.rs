//! Takes connections from the listening socket and hands each to the least-loaded I/O thread.
//!
//! One socket, one acceptor, on the control thread: hashing connections over one socket per thread
//! leaves a third of the threads idle, and closing such a socket resets the connections in its
//! queue. The socket may be inherited from systemd, so it is never shut down, only dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::door::Door;
use crate::shard::{Command, ShardHandle};
use crate::shutdown::Draining;
use crate::state::ServerState;
use crate::{clock, limits, os};

/// The listening socket: the one that systemd passed, or a new one.
///
/// # Errors
///
/// The address is in use, not ours, or not allowed.
pub(crate) fn listen(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() > 1 {
        // The kernel would take connections on the others, and nobody would serve them.
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "systemd passed several sockets, and one is served: leave one ListenStream= in keyserver.socket",
        ));
    }
    let listener = match passed.take_tcp_listener(0)? {
        Some(inherited) => {
            tracing::info!("listening on the socket passed by systemd");
            inherited
        }
        None => bind(address, backlog)?,
    };
    // Both stay on an inherited socket after we are gone. Whoever takes it over next sets them too.
    listener.set_nonblocking(true)?;
    if let Err(error) = os::defer_accept(&listener, limits::SILENCE_IN_KERNEL) {
        tracing::debug!(%error, "connections are taken before they say anything");
    }
    // Accepted sockets inherit it. An edge that lost its power says no more, and its connection would keep its places.
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_TIME)
        .with_interval(limits::KEEPALIVE_INTERVAL)
        .with_retries(limits::KEEPALIVE_PROBES);
    SockRef::from(&listener).set_tcp_keepalive(&keepalive)?;
    Ok(listener)
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Accepts until the drain begins, then passes it on to the I/O threads and lets go of them.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    shards: Vec<ShardHandle>,
    state: Arc<ServerState>,
    draining: Draining,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let how = tokio::select! {
        never = accept(&listener, &shards, &state) => never,
        how = draining.begun() => how,
    };
    drop(listener);
    for shard in &shards {
        shard
            .send(Command::Drain {
                spread: how.spread,
                limit: how.limit,
            })
            .await;
    }
    Ok(())
}

async fn accept(listener: &TcpListener, shards: &[ShardHandle], state: &ServerState) -> ! {
    let door = Door::new(state.snapshot.load().config.limits);
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                if let Err(reason) = hand_over(socket, peer, shards, &door).await {
                    state.metrics.rejected(reason);
                    tracing::debug!(%peer, reason, "connection closed at the door");
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for a moment");
                tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Hands a connection to the I/O thread with the fewest, if it may come in. Otherwise it is closed,
/// and the reason is the label it is counted under.
async fn hand_over(
    socket: tokio::net::TcpStream,
    peer: SocketAddr,
    shards: &[ShardHandle],
    door: &Arc<Door>,
) -> Result<(), &'static str> {
    let ticket = door
        .enter(peer.ip(), clock::now())
        .map_err(|refused| refused.name())?;
    // Gone already, or the system has no room for it.
    let broken = |_| "connection-lost";
    socket.set_nodelay(true).map_err(broken)?;
    let socket = socket.into_std().map_err(broken)?;
    let quietest = quietest_with_room(shards).await;
    if quietest.is_some_and(|shard| shard.serve(socket, peer, ticket)) {
        Ok(())
    } else {
        Err("handovers")
    }
}

/// The I/O thread with the fewest connections of those that take more. A fleet that comes back together comes faster
/// than they do: those behind wait in the kernel, whose queue is longer. `None`: none of them takes any.
async fn quietest_with_room(shards: &[ShardHandle]) -> Option<&ShardHandle> {
    let patience = clock::now() + limits::HANDOVER_PATIENCE;
    loop {
        let with_room = shards.iter().filter(|shard| shard.has_room());
        let quietest = with_room.min_by_key(|shard| shard.load());
        if quietest.is_some() || clock::now() > patience {
            return quietest;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Errors that concern the connection that was about to be accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_gone_is_found() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        io::Write::write_all(&mut peer, &[22]).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            limits::KEEPALIVE_TIME
        );
    }
}
