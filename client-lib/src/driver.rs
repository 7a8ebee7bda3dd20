//! The task that owns the connection: one read, one seal and one write a turn.
//!
//! ```text
//!   loop:  nothing left to write?  take what has come; then all frames that callers have encoded, and seal
//!                                  them once
//!          wait for: the socket took bytes | the socket has bytes | new frames | the clock
//! ```
//!
//! While a write is in flight, further frames gather, and so they leave together: that is the whole
//! coalescing policy. When the connection is lost, every call in flight on it fails, and the task
//! connects again with growing waits until the client is closed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use keyless_protocol::{Opcode, Request};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::backoff::Backoff;
use crate::calls::{Calls, Link, OWN_ID, Work};
use crate::conn::Connection;
use crate::error::Error;
use crate::link::{Established, Target, establish};

/// How long a closing connection may take to send its goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// A connection that lived this long was a good one: the next wait starts small again.
const GOOD_LIFE: Duration = Duration::from_secs(1);
/// A buffer that has grown beyond this for one large batch is given back.
const BUFFER_KEPT: usize = 1024 * 1024;

/// Serves `calls` over `first` and its successors until the client is closed. `watch` is told of every
/// change of the link, of the first connection too: that it is up once calls can use it, and that it
/// is lost before they hear of that.
pub(crate) async fn run(
    calls: Arc<Calls>,
    target: Target,
    first: Option<Established>,
    watch: impl Fn(&Link),
) {
    let mut backoff = Backoff::new();
    let mut next = first.map(Ok);
    let set_link = |link: Link| {
        if matches!(link, Link::Up { .. }) {
            calls.set_link(link.clone());
            watch(&link);
        } else {
            watch(&link);
            calls.set_link(link);
        }
    };
    loop {
        let attempt = match next.take() {
            Some(attempt) => attempt,
            None => tokio::select! {
                attempt = establish(&target) => attempt,
                () = calls.closed() => return,
            },
        };
        match attempt {
            Ok(established) => {
                let since = Instant::now();
                set_link(Link::Up {
                    capabilities: established.capabilities.clone(),
                });
                match Driver::new(established, target.silence).drive(&calls).await {
                    Ending::Closed => return,
                    Ending::Lost(error) => set_link(Link::Down { last: Some(error) }),
                }
                if since.elapsed() >= GOOD_LIFE {
                    backoff.reset();
                }
            }
            Err(error) => set_link(Link::Down { last: Some(error) }),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait().min(target.wait_longest)) => {}
            () = calls.closed() => return,
        }
    }
}

/// How a connection ended.
enum Ending {
    /// The client was closed.
    Closed,
    /// The network, the server or TLS ended it.
    Lost(Error),
}

/// What the task was woken for.
enum Event {
    Wrote(usize),
    Read(usize),
    Work(Work),
    Tick,
}

struct Driver {
    stream: TcpStream,
    connection: Connection,
    /// Sealed records; `written` bytes of them are gone.
    out: Vec<u8>,
    written: usize,
    wakers: Vec<Waker>,
    /// How long the server may say nothing while an answer is awaited: see
    /// [`crate::ClientBuilder::silence`].
    silence: Duration,
    tick: Interval,
    heard: Instant,
    asked: bool,
}

impl Driver {
    fn new(established: Established, silence: Duration) -> Self {
        let mut tick = tokio::time::interval((silence / 4).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream: established.stream,
            connection: established.connection,
            out: Vec::new(),
            written: 0,
            wakers: Vec::new(),
            silence,
            tick,
            heard: Instant::now(),
            asked: false,
        }
    }

    async fn drive(mut self, calls: &Calls) -> Ending {
        loop {
            if self.written == self.out.len()
                && let Err(error) = match self.take_what_has_come(calls).await {
                    Ok(()) => self.seal(calls),
                    lost => lost,
                }
            {
                return Ending::Lost(error);
            }
            match poll_fn(|cx| self.poll_event(calls, cx)).await {
                Ok(Event::Wrote(length)) => self.written += length,
                Ok(Event::Read(length)) => {
                    if let Err(error) = self.take(length, calls).await {
                        return Ending::Lost(error);
                    }
                }
                // Let every caller that is ready now encode its request too, so that one record
                // and one write carry them all.
                Ok(Event::Work(Work::Frames)) => tokio::task::yield_now().await,
                Ok(Event::Work(Work::Close)) => {
                    self.connection.close_notify();
                    self.goodbye().await;
                    return Ending::Closed;
                }
                Ok(Event::Tick) => {
                    if let Err(error) = self.listen_for_silence(calls) {
                        return Ending::Lost(error);
                    }
                }
                Err(error) => return Ending::Lost(error),
            }
        }
    }

    /// Reads until nothing more is there. It may be the end of the connection, and frames that were sealed before
    /// that is seen would be lost with it.
    async fn take_what_has_come(&mut self, calls: &Calls) -> Result<(), Error> {
        while let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(self.poll_read(cx))).await {
            let length = read.map_err(|error| Error::network("waiting for answers", error))?;
            self.take(length, calls).await?;
        }
        Ok(())
    }

    /// Takes all frames there are and seals them into the empty output buffer.
    fn seal(&mut self, calls: &Calls) -> Result<(), Error> {
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > BUFFER_KEPT {
            self.out.shrink_to(BUFFER_KEPT);
        }
        calls.take_frames(&mut self.connection);
        self.connection.transmit(&mut self.out).map(|_| ())
    }

    fn poll_event(&mut self, calls: &Calls, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        if let Some(left) = self.out.get(self.written..).filter(|left| !left.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, left) {
                Poll::Ready(Ok(length)) => return Poll::Ready(Ok(Event::Wrote(length))),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Error::network("sending requests", error)));
                }
                Poll::Pending => {}
            }
        } else if let Poll::Ready(work) = calls.poll_work(cx) {
            return Poll::Ready(Ok(Event::Work(work)));
        }
        if let Poll::Ready(read) = self.poll_read(cx) {
            let event = read.map(Event::Read);
            return Poll::Ready(
                event.map_err(|error| Error::network("waiting for answers", error)),
            );
        }
        ready!(self.tick.poll_tick(cx));
        Poll::Ready(Ok(Event::Tick))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(self.connection.read_space());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Takes what was read. Should it be the end, the server is told why as far as it listens.
    async fn take(&mut self, length: usize, calls: &Calls) -> Result<(), Error> {
        let taken = self.open(length, calls);
        if taken.is_err() {
            self.goodbye().await;
        }
        taken
    }

    /// Decrypts what was read and hands out the replies in it.
    fn open(&mut self, length: usize, calls: &Calls) -> Result<(), Error> {
        let during = "waiting for answers";
        if length == 0 {
            return Err(Error::lost(
                during,
                "the connection was cut without a TLS close",
            ));
        }
        self.heard = Instant::now();
        self.asked = false;
        let received = self.connection.received(length);
        calls.deliver(&mut self.connection, &mut self.wakers);
        received?;
        if let Some(error) = self.connection.failure() {
            return Err(error.clone());
        }
        if self.connection.peer_has_closed() {
            return Err(Error::lost(during, "the server closed the connection"));
        }
        Ok(())
    }

    /// Finds servers that are gone without a word: their host lost power, a firewall forgot the
    /// connection, the process hangs.
    fn listen_for_silence(&mut self, calls: &Calls) -> Result<(), Error> {
        if !calls.expects_an_answer() {
            self.heard = Instant::now();
            self.asked = false;
            return Ok(());
        }
        let silence = self.heard.elapsed();
        if silence >= self.silence * 2 && self.asked {
            return Err(Error::lost(
                "waiting for answers",
                "the server has fallen silent",
            ));
        }
        if silence >= self.silence && !self.asked {
            self.asked = true;
            self.connection
                .submit(&Request::new(OWN_ID, Opcode::Ping))?;
        }
        Ok(())
    }

    /// Sends what is left and the TLS close or alert, as far as the server takes it in time.
    async fn goodbye(&mut self) {
        let farewell = async {
            let left = self.out.get(self.written..).unwrap_or_default();
            self.stream.write_all(left).await?;
            self.out.clear();
            if self.connection.transmit(&mut self.out).is_ok() {
                self.stream.write_all(&self.out).await?;
            }
            self.stream.shutdown().await
        };
        // Nobody waits for the outcome: the connection ends either way.
        let _: Result<io::Result<()>, _> = tokio::time::timeout(GOODBYE_LIMIT, farewell).await;
    }
}
