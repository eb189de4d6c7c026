//! The rest of a connection, served by hyper: it is given what was read ahead first.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tower_service::Service;

use crate::connection::{HEAD_PATIENCE, LAST_PATIENCE, Line};
use crate::front::Front;
use crate::guard::Peer;

pub(crate) async fn serve_with_hyper(
    front: Front,
    peer: Option<Peer>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut stopping: watch::Receiver<bool>,
) {
    let io = TokioIo::new(stream);
    let in_progress = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&in_progress);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let progress = InProgress::begin(&requests);
        let answer = front.clone().call(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(progress);
            answer
        }
    });
    let mut builder = http1::Builder::new();
    // Who has said that nothing more comes may still wait for an answer, and what was asked is done in any case.
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).half_close(true);
    let mut connection = pin!(builder.serve_connection(io, service));
    // How a connection ends concerns only its client.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(LAST_PATIENCE) => {
                if in_progress.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
        }
    }
}

/// Counts a request until it is answered or given up.
struct InProgress(Arc<AtomicUsize>);

impl InProgress {
    fn begin(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(requests))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A line with what was read from it.
pub(crate) struct Rewound {
    line: Arc<Line>,
    read: Vec<u8>,
    /// How much of `read` has been read again.
    given: usize,
}

impl Rewound {
    /// The line from where `read` began.
    pub(crate) fn new(line: Arc<Line>, read: Vec<u8>) -> Self {
        Self { line, read, given: 0 }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.read.get(self.given..).unwrap_or_default();
        if !rest.is_empty() {
            let bytes = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..bytes]);
            self.given += bytes;
            return Poll::Ready(Ok(()));
        }
        self.read = Vec::new();
        let stream = self.line.stream();
        loop {
            match stream.try_read(buffer.initialize_unfilled()) {
                Ok(bytes) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Rewound {
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&tokio::net::TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = self.line.stream();
        loop {
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The socket is closed when the line is dropped, at the end of the connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
