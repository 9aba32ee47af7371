//! The HTTP service's connections: each bounded in what it may send, in how long it may take, and in
//! how long it may leave what is sent to it untaken; all of them in number.
//!
//! A service that is full of idle connections still answers the next one: the one that has said nothing for
//! the longest goes. Knows nothing of what is served.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use shards::clock;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep},
};

/// A request's line and headers, at most: browsers send one or two KiB. Twice what hyper wants.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header lines of a request, at most: browsers send about twenty.
const HEADERS_MAX: usize = 64;

/// For a request's line and headers to arrive, and between two requests: longer than the usual 15 s
/// between two scrapes.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);

/// For an answer to be begun, the request's body included. Shards get 2 s to say how they are.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A client that takes no byte for so long while there are some for it is gone, or wants to be a burden.
const TAKE_PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel keeps for a client that takes nothing, so that it is soon noticed; a page of metrics is
/// not much larger.
const UNTAKEN_BYTES_MAX: usize = 64 << 10;

/// With no connection free, one that has been silent for so long makes room. Short, as others wait
/// in line; long enough to send a request that was connected for.
const SILENCE_MIN: Duration = Duration::from_millis(100);

/// How often it is looked whether one has been silent for long enough.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// When accepting fails, as it does when descriptors have run out: at once would fail again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a connection does.
#[derive(Debug)]
pub(crate) struct Talk(AtomicU64);

/// Of a connection that is being answered.
const ANSWERING: u64 = u64::MAX;

impl Talk {
    fn new() -> Self {
        let talk = Self(AtomicU64::new(0));
        talk.pause();
        talk
    }

    /// A request is being answered, to a client that may ask.
    pub(super) fn answer(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// Its next request is waited for.
    pub(super) fn pause(&self) {
        let now = u64::try_from(clock::now().as_millis()).unwrap_or(ANSWERING - 1);
        self.0.store(now, Ordering::Relaxed);
    }

    /// Since when it has been silent.
    fn silent_since(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            ANSWERING => None,
            since => Some(Duration::from_millis(since)),
        }
    }
}

/// The open connections.
struct Connections {
    router: Router,
    max: usize,
    tasks: JoinSet<()>,
    open: Vec<(AbortHandle, Arc<Talk>)>,
    /// Accepted, and waiting for one of them to end.
    next: Option<(TcpStream, SocketAddr)>,
}

/// Where a request comes from, for its handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub(super) IpAddr);

/// Serves for ever, so many connections at once.
pub(super) async fn serve(listener: TcpListener, router: Router, connections_max: usize) {
    let mut connections = Connections {
        router,
        max: connections_max,
        tasks: JoinSet::new(),
        open: Vec::new(),
        next: None,
    };
    let mut is_failing = false;
    loop {
        tokio::select! {
            Some(_) = connections.tasks.join_next(), if !connections.open.is_empty() => {
                connections.open.retain(|(task, _)| !task.is_finished());
            }
            accepted = listener.accept(), if connections.next.is_none() => match accepted {
                Ok(accepted) => {
                    is_failing = false;
                    connections.next = Some(accepted);
                }
                Err(error) => {
                    if !is_failing {
                        tracing::warn!("failed to accept an HTTP connection: {error}");
                    }
                    is_failing = true;
                    sleep(ACCEPT_BACKOFF).await;
                }
            },
            () = sleep(ROOM_LOOK), if connections.next.is_some() => {}
        }
        connections.take_next();
    }
}

impl Connections {
    /// Begins with the next one, if there is room or can be made.
    fn take_next(&mut self) {
        if self.open.len() < self.max {
            if let Some((stream, remote)) = self.next.take() {
                self.begin(stream, Remote(remote.ip()));
            }
            return;
        }
        let now = clock::now();
        let silent = self.open.iter().filter_map(|(task, talk)| Some((talk.silent_since()?, task)));
        let oldest = silent.min_by_key(|(since, _)| *since);
        if let Some((since, task)) = oldest
            && self.next.is_some()
            && now.saturating_sub(since) >= SILENCE_MIN
        {
            task.abort();
        }
    }

    fn begin(&mut self, stream: TcpStream, remote: Remote) {
        // Events are small and wanted at once. Without either it only works less well.
        stream.set_nodelay(true).ok();
        SockRef::from(&stream).set_send_buffer_size(UNTAKEN_BYTES_MAX).ok();
        let talk = Arc::new(Talk::new());
        let router = TowerToHyperService::new(self.router.clone());
        let of_requests = Arc::clone(&talk);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&of_requests));
            request.extensions_mut().insert(remote);
            router.call(request)
        });
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        let served = server.serve_connection(TokioIo::new(Patient::new(stream)), service);
        let task = self.tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!("an HTTP connection ended: {error}");
            }
        });
        self.open.push((task, talk));
    }
}

/// A socket whose other end must take what is written to it.
struct Patient {
    stream: TcpStream,
    /// Since a write had to wait.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None }
    }

    /// What a write came to, or that it has waited for too long.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(TAKE_PATIENCE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take the answer",
        )))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
