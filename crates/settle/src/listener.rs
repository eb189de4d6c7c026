//! The public listener: so many connections and no more, so that idle strangers never take the file descriptors that the stores need.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shop::{Front, serve_connection};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// File descriptors kept for the stores, the operators' socket and the runtime.
const RESERVED: u64 = 128;
/// The most connections, however many descriptors there are.
const MAX_CONNECTIONS: u64 = 20_000;
/// How long nothing is accepted after the system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads where to listen.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn place(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be an IP address and a port, such as 127.0.0.1:8000".to_owned())
}

/// Takes the place. `elsewhere`: how another one is chosen.
///
/// # Errors
/// If it cannot be had, with what to do about it.
pub(crate) async fn bind(place: SocketAddr, elsewhere: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(place).await.map_err(|why| {
        let who = match why.kind() {
            io::ErrorKind::AddrInUse => format!("`ss -ltnp sport = :{}` says who has it: stop that, or ", place.port()),
            _ => String::new(),
        };
        anyhow::anyhow!("cannot listen on {place}: {why}; {who}{elsewhere}")
    })
}

/// Raises the limit of open files as far as the system allows, and says how many connections fit below it.
pub(crate) fn connections_that_fit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // If it can't be raised, the present limit is what there is.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = open_files.saturating_sub(RESERVED).clamp(1, MAX_CONNECTIONS);
    usize::try_from(fit).unwrap_or(1)
}

/// Serves whoever connects, as long as there is room, until `stopping`; then waits until every connection has ended.
pub(crate) async fn serve(listener: TcpListener, connections: usize, front: Front, stopping: watch::Receiver<bool>) {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(connections as usize));
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // A client that left again is none of our business; without memory or descriptors it would be the same at once.
                    if !is_clients(&error) {
                        tracing::error!(%error, "cannot accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            _ = stream.set_nodelay(true);
            let served = serve_connection(front.clone(), stream, stopping.clone());
            tokio::spawn(async move {
                served.await;
                drop(place);
            });
        }
    };
    let mut until = stopping.clone();
    tokio::select! {
        () = accept => {}
        _ = until.wait_for(|stop| *stop) => {}
    }
    _ = room.acquire_many(connections).await;
}

fn is_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
