//! Every bound of the server in one place, each with its reason.
//!
//! A bound that the operator may change has its default here and its name in the `[limits]` table
//! of the configuration; the others are fixed. Nothing in the server grows without one of these.

use std::time::Duration;

use accel::Class;
use keyless_protocol::{HEADER_LEN, MAX_BODY};

/// Established and half-open connections together. Each may own one read buffer, one frame being
/// gathered and one output buffer, so memory is bounded by this times about 0.5 MiB at the worst
/// and 20 KiB when idle; up to 90 KiB if the last thing before was a long pipeline.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Requests of one connection that may wait for an answer. At the cap the server stops reading
/// from that connection; it does not refuse. 256 keeps eight lanes full from a single peer for
/// longer than a round trip takes.
pub const IN_FLIGHT_PER_CONNECTION: usize = 256;

/// Bytes of replies that may wait for a slow reader before the server stops reading from it.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Bytes taken from a socket in one read. Fewer, larger reads are what makes a request cheap.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of the buffer that waits for the next read of a connection whose last read was no longer.
/// Idle connections are many, and their reads are short.
pub const SHORT_READ_BYTES: usize = 4 * 1024;

/// Large buffers that an I/O thread keeps for the next read or write: 8 MiB, enough for 64
/// connections that read and write at the same time.
pub const IDLE_BUFFERS: usize = 128;

/// Sweeps without a byte from a connection until its buffers are given back to the system.
pub const QUIET_SWEEPS: u8 = 10;

/// Jobs of one I/O thread that exist at the same time. The completion ring has exactly this many
/// places, so delivering a finished job can never fail. A client has no more of them than half of
/// those left: one alone has a third, which is 5 connections at their cap, and on one core some 7 ms of
/// P-256, where the I/O thread is what requests wait for.
pub const JOBS_PER_SHARD: usize = 4096;

/// Of those, that may open a ciphertext at one time. They wait for the ledger before they are answered: so many stay
/// where they are while its disk hangs, and the others are there for what needs no ledger.
pub const OPENING: usize = JOBS_PER_SHARD / 2;

/// The same, of one client: less than half of the jobs that it is given when it is alone, so that with all of these
/// waiting it is still given others. On machines with very many cores it bounds what one client may open at one time.
pub const OPENING_PER_CLIENT: usize = OPENING / 4;

/// The part of what a connection may have in flight that is kept for what opens no ciphertext: a quarter.
pub const ROOM_WITHOUT_LEDGER: usize = 4;

/// A crypto thread gives way to an I/O thread on its CPU that has not come for its results for so long: no more than two
/// batches of RSA-2048, and time enough to sign with P-256 for a dozen connections, whose replies cost little more together
/// than those of one. (At 300 us P-256 lost 8 % of its rate, and nothing else gained.)
pub const LET_IN_AFTER: Duration = Duration::from_micros(800);

/// Where they have a CPU together, a crypto thread that has more to do tells an I/O thread of its results when one of them
/// has been kept for so long.
pub const GATHERING: Duration = Duration::from_micros(400);

/// Where requests wait for long it may be kept for a part of that: a sixth. Without lanes a connection has one of
/// 16 signatures with P-256 in 300 us, and several in the millisecond that this gives.
pub const GATHERING_PART: u32 = 6;

/// But never longer than this, a quarter of [`BRIEF_TARGET`].
pub const GATHERING_MAX: Duration = Duration::from_micros(1250);

/// Accounts of the clients that have jobs. Clients beyond that many share them.
pub const JOB_ACCOUNTS: usize = 1024;

/// Work that may wait in a class for a crypto thread, in time that all of them need for it. Past it
/// a request is refused with "busy" rather than left to wait. On one thread with lanes it is more than
/// all P-256 jobs that an I/O thread can have, so those are never refused for their number; and it
/// is no longer than [`AGEING`], so that what is admitted is served before it is old.
pub const QUEUE_TIME: Duration = Duration::from_millis(8);

/// What a class promises: while there is no more to do than the threads can, 99 of 100 requests are
/// answered within this, from when they were read until their reply goes to the socket; and however
/// much is asked, 99 of 100 that are admitted within twice this. [`QUEUE_TIME`] and [`AGEING`] are
/// chosen so that it holds; `tests/simulation` shows it, with one exception: one thread that is asked
/// too much of every class at once gives RSA-4096 an eighth of its time, and it takes four times this.
#[must_use]
pub const fn target(class: Class) -> Duration {
    match class {
        Class::P256 | Class::P384 | Class::P521 | Class::Ed25519 | Class::MlDsa => BRIEF_TARGET,
        Class::Rsa2048 => Duration::from_millis(10),
        Class::Rsa3072 | Class::Rsa4096 => Duration::from_millis(20),
        // One operation with 8192 bits takes 9 ms.
        Class::RsaOther => Duration::from_millis(100),
    }
}

/// What classes promise whose requests wait for the I/O thread rather than in the queue.
pub const BRIEF_TARGET: Duration = Duration::from_millis(5);

/// How often an I/O thread looks whether its connections have too much under way for that.
pub const WINDOW_INTERVAL: Duration = Duration::from_millis(10);

/// They have when an answer took longer than this, three fifths of [`BRIEF_TARGET`].
pub const WINDOW_TIME: Duration = Duration::from_millis(3);

/// As many requests as a connection may always have under way for that, so that its replies leave together. With 8 to 64 for each
/// of 16 connections an I/O thread did about as much; with 256 for all of 64 it did 10 to 30 % less.
pub const WINDOW_LEAST: usize = 16;

/// Nearly what is promised at the worst, twice [`BRIEF_TARGET`]. When an answer took longer than this, a connection may have less
/// than [`WINDOW_LEAST`], if there are more than [`WINDOW_JOBS`] under way.
pub const WINDOW_PROMISE: Duration = Duration::from_millis(9);

/// Jobs under way on an I/O thread that are not too many, however long they take: what five connections may have, or fewer where
/// crypto threads are so slow that as many could not be done in [`WINDOW_PROMISE`].
pub const WINDOW_JOBS: usize = 5 * IN_FLIGHT_PER_CONNECTION;

/// As many jobs as a connection may have in flight may wait beyond that on a small machine, but no more
/// than this work: 256 times RSA-4096 on one thread with lanes.
pub const ALLOWANCE_TIME: Duration = Duration::from_millis(125);

/// A class that had to refuse is held to [`QUEUE_TIME`] alone, for so many times as long as its allowance
/// takes. What then waits longer in trying whether there is still too much, is less than one in a
/// hundred.
pub const STRICT_TIMES: u32 = 200;

/// Refusing for overload may take this part of an I/O thread's time: one 64th.
pub const REFUSING_SHARE: u32 = 64;

/// Work that a connection may do in one turn on its I/O thread, in steps of 0.6 us: a third of a millisecond.
/// Twice what a full pipeline of ordinary requests takes, so that those are always served in one.
pub const TURN_STEPS: u32 = 512;

/// Connections whose turns were longer than that get one further turn in this time, together: a third of
/// the thread's time at most. Timers have this resolution.
pub const TURN_PAUSE: Duration = Duration::from_millis(1);

/// With less work waiting than this for each crypto thread, connections that were refused for too much are read from
/// again: no more than two batches of RSA-2048 where lanes are quick, one where they are slow.
pub const LITTLE_WORK: Duration = Duration::from_millis(1);

/// The longest that a connection is not read from because it was refused for overload. Well below
/// the time that clients wait.
pub const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Jobs that one crypto thread takes at once: the lanes of the engine.
pub const BATCH_MAX: usize = 8;

/// Accepted sockets that an I/O thread has not taken over yet.
pub const HANDOVERS_WAITING: usize = 256;

/// When no I/O thread takes over more for so long, those that come are closed.
pub const HANDOVER_PATIENCE: Duration = Duration::from_secs(2);

/// A handshake that is not complete by then is closed.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// Handshakes under way at one time, over all I/O threads. At some 1 ms each, more could not be
/// complete within their deadline; past it the oldest is closed.
pub const HANDSHAKES: usize = 2048;

/// Handshakes under way at one time from one source, so that one alone cannot push out all others.
pub const HANDSHAKES_PER_SOURCE: usize = 1024;

/// Handshakes that one source may begin in a second in the long run: half of what an I/O thread can
/// do. A fleet of edges behind one address is a source.
pub const HANDSHAKE_RATE_PER_SOURCE: usize = 500;

/// A source that was quiet may begin as many handshakes at once as its rate gives in this time:
/// 1,000, so that a fleet can come back together.
pub const HANDSHAKE_BURST: Duration = Duration::from_secs(2);

// Those who begin at once are under way together.
const _: () = assert!(
    HANDSHAKE_RATE_PER_SOURCE as u64 * HANDSHAKE_BURST.as_secs() <= HANDSHAKES_PER_SOURCE as u64
);

/// Sources that are remembered at a time, unless more have connections. An entry takes about 50
/// bytes.
pub const SOURCES_REMEMBERED: usize = 16_384;

/// Connections of one source. Half of all, so that there is always room for others.
pub const CONNECTIONS_PER_SOURCE: usize = 5_000;

/// Handshakes may take half of an I/O thread's time; by so much they may be ahead of that. Timers
/// have a resolution of 1 ms, so less would leave them much less than half.
pub const HANDSHAKE_ADVANCE: Duration = Duration::from_millis(2);

/// A step of a handshake counts as no longer than this: it was another program that had the CPU.
pub const HANDSHAKE_STEP_MAX: Duration = Duration::from_millis(5);

/// Reads of a handshake that are taken as they come. An honest one has its hello, its certificate
/// and its end in fewer, though it may take two for a record: of its header, and of the rest.
pub const HANDSHAKE_READS: u32 = 8;

/// The pause before the next read after that; it doubles with each. In the time of a handshake
/// there are then about six more, however slowly a peer drips.
pub const DRIP_PAUSE: Duration = Duration::from_millis(20);

/// How long a connection that we have said goodbye to may take to say its own.
pub const LINGER: Duration = Duration::from_secs(5);

/// How long a peer may leave a write waiting before it is taken for gone.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// How often an I/O thread looks for connections past a deadline.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A write of the ledger or of the meters that takes longer is taken for hung. A disk that works needs a few
/// milliseconds, and one that is busy some hundred; and what waits for it in that time keeps its place among a
/// connection's requests.
pub const DISK_HUNG_AFTER: Duration = Duration::from_secs(1);

/// How often a crypto thread without work shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Connections that it looks at before it pauses: some 10 us of work. Of more than 4,096 connections, one 64th.
pub const SWEEP_STRETCH: usize = 64;

/// Connections that it closes before it pauses: some 200 us of work. Of strangers that come faster than this lets go, the
/// oldest are closed by the cap on handshakes.
pub const SWEEP_CLOSED: usize = 4;

/// That pause. Timers have this resolution.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// A job that has waited longer than this is refused instead of run: its client has given up.
/// A client may ask for less (tag 0x30).
pub const JOB_DEADLINE: Duration = Duration::from_secs(2);

/// Sessions of a slot of a token, each with a thread that waits for the device. The devices in use
/// run 8 to 32 operations at a time; the pool finds by itself when fewer are enough.
pub const SLOT_SESSIONS: usize = 16;

/// Requests that may wait for each session of a slot. Four turns of a device that keeps its time are
/// well within the deadline; a longer queue only makes answers late. (With fewer sessions as many as
/// are done in 50 ms may wait, but not more than with this number.)
pub const SLOT_WAITING_PER_SESSION: usize = 4;

/// The longest queue of a slot that may be configured: slots that hang must not take a large part of
/// the jobs of an I/O thread.
pub const SLOT_WAITING_MAX: usize = JOBS_PER_SHARD / 4;

/// What a client is told to wait after "busy" for a slot: about what a full queue takes that moves.
pub const SLOT_RETRY_AFTER: Duration = Duration::from_millis(50);

/// A call into a module that takes longer is taken for hung. Far above what the slowest device needs
/// for RSA-8192, and short enough to have a new thread before the clients have all gone.
pub const SLOT_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an idle slot is talked to. Devices reclaim sessions after 30 s and more.
pub const SLOT_KEEPALIVE: Duration = Duration::from_secs(20);

/// A class whose next job has waited this long goes before cheaper classes, half of the time.
pub const AGEING: Duration = Duration::from_millis(8);

/// How often the log is told of results that failed their check. The engine keeps
/// [`accel::MAX_ALARMS`] of them between two times and counts the rest.
pub const ALARM_INTERVAL: Duration = Duration::from_secs(1);

/// How long a delegated credential may be good for, where a grant says nothing else.
pub const CREDENTIAL_LIFETIME: Duration = Duration::from_hours(1);

/// Live credentials of one client for one key: two for each of 32 edges that share a certificate, since each asks for the
/// next before the last one ends.
pub const LIVE_CREDENTIALS: usize = 64;

/// Live credentials in all: two for each of 32,768 pairs of an edge and a key. The file that keeps them is written
/// anew for each that is issued, and is 10 MiB large by then.
pub const LIVE_CREDENTIALS_IN_ALL: usize = 65_536;

/// Pairs of a client and a key of which it has ticket keys, that are remembered for the time that those are of use. An entry
/// takes about 100 bytes; past it, blocking any client revokes the ticket keys of all keys.
pub const TICKET_HOLDERS: usize = 65_536;

/// How long one may be good for at most (RFC 9345, section 4.1.3).
pub const CREDENTIAL_LIFETIME_MAX: Duration = Duration::from_hours(7 * 24);

/// A class that is refused because its results were wrong is proved again every so many [`ALARM_INTERVAL`]s: a minute.
pub const PROOF_TURNS: u32 = 60;

/// With this many crypto threads, one stays free of long turns for brief jobs. With fewer, the
/// share of the machine that it would cost is too large.
pub const THREADS_FOR_RESERVE: usize = 3;

/// How long after a brief job a thread is still kept free for the next.
pub const RESERVE_MEMORY: Duration = Duration::from_secs(1);

/// Refusals that one I/O thread logs in a second; the rest are only counted.
pub const REFUSALS_LOGGED_PER_SECOND: u32 = 10;

/// Pause of the acceptor after it ran out of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection on which nothing came for so long is asked by the kernel whether its peer is still there. These three are
/// those of `systemd/keyserver.socket`.
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// And after each such time without an answer, again.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// When so many had none, the connection is closed.
pub const KEEPALIVE_PROBES: u32 = 3;

/// The listener's queue of connections that the kernel has completed, and that of those which it keeps because they have
/// said nothing yet. When the second is full, the kernel answers by cookies, and keeps none back.
pub const LISTEN_BACKLOG: u32 = 4096;

/// A connection that says nothing stays with the kernel for so long. There it takes some 300 bytes and no time of an I/O
/// thread; here it would take a TLS session, and its opening and closing some 100 us.
pub const SILENCE_IN_KERNEL: Duration = Duration::from_secs(15);

/// Default spread of closes while draining, so that clients do not all reconnect at once.
pub const DRAIN_SPREAD: Duration = Duration::from_secs(10);

/// Default time after which draining gives up on peers that do not close.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

// One read must be able to complete any frame that the protocol can express in a few turns, and a
// connection at its cap must fit the jobs of its shard several times over.
const _: () = assert!(READ_BYTES >= (HEADER_LEN + MAX_BODY) / 2);
const _: () = assert!(OUTPUT_BYTES_MAX >= HEADER_LEN + MAX_BODY);
const _: () = assert!(JOBS_PER_SHARD >= 4 * IN_FLIGHT_PER_CONNECTION);
const _: () = assert!(OPENING_PER_CLIENT >= IN_FLIGHT_PER_CONNECTION);
const _: () = assert!(SLOT_SESSIONS * SLOT_WAITING_PER_SESSION <= SLOT_WAITING_MAX);
// All sessions of a slot that hangs, their replacements and its queue leave a connection room for
// other keys.
const _: () = assert!(SLOT_SESSIONS * (SLOT_WAITING_PER_SESSION + 2) < IN_FLIGHT_PER_CONNECTION);
const _: () = assert!(BATCH_MAX == accel::MAX_FILL && BATCH_MAX <= IN_FLIGHT_PER_CONNECTION);
