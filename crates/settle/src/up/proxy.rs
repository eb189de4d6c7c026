//! A proxy before each database and the broker, so that one of them can be parted from everybody: its connections stay, and nothing passes.
//!
//! ```text
//!   clients, replicas, Sentinels ──► front port ──► pump ──► port behind ──► server
//!                                                    ▲
//!                            part-NAME is there: nothing passes, in either direction, until it is gone
//! ```
//!
//! On a thread of its own, since the one that watches the components asks them through it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::held::{is_in_force, part};

/// How often the folder is looked at for who is to be parted.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes that are passed on at once.
const PIECE: usize = 64 * 1024;

/// A server behind a proxy.
#[derive(Debug, Clone)]
pub(super) struct Proxied {
    pub(super) name: String,
    pub(super) front: u16,
    pub(super) behind: u16,
}

/// Begins to pass on what comes to each front port.
pub(super) fn start(proxied: Vec<Proxied>, data: &Path) -> anyhow::Result<()> {
    let mut listeners = vec![];
    for it in proxied {
        let listener = std::net::TcpListener::bind(("127.0.0.1", it.front))
            .with_context(|| format!("port {}, which is for {}, is not free", it.front, it.name))?;
        listener.set_nonblocking(true)?;
        listeners.push((listener, it.behind, part(data, &it.name)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (listener, behind, file) in listeners {
                tasks.spawn(serve(listener, behind, file));
            }
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    eprintln!("settle: a proxy ended: {error}");
                }
            }
        });
    };
    std::thread::Builder::new().name("proxies".to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(())
}

async fn serve(listener: std::net::TcpListener, behind: u16, file: PathBuf) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (tell, parted) = watch::channel(is_in_force(&file));
    let mut look = tokio::time::interval(GLANCE);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(connection(stream, behind, parted.clone()));
            }
            _ = look.tick() => {
                let now = is_in_force(&file);
                _ = tell.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
        }
    }
}

/// Passes on one connection until either side ends it.
async fn connection(front: TcpStream, behind: u16, mut parted: watch::Receiver<bool>) {
    if parted.wait_for(|parted| !*parted).await.is_err() {
        return;
    }
    // Nobody there: the client finds its connection closed.
    let Ok(back) = TcpStream::connect(("127.0.0.1", behind)).await else { return };
    _ = front.set_nodelay(true);
    _ = back.set_nodelay(true);
    let (from_front, to_front) = front.into_split();
    let (from_back, to_back) = back.into_split();
    tokio::select! {
        () = pump(from_front, to_back, parted.clone()) => {}
        () = pump(from_back, to_front, parted) => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut parted: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await;
        // What came while parted waits, as packets that are sent again until they arrive.
        if parted.wait_for(|parted| !*parted).await.is_err() {
            return;
        }
        match read {
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                if to.write_all(&piece[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn whoever_is_parted_keeps_his_connections_and_hears_nothing_until_it_is_over() {
        let data = tempfile::tempdir().unwrap();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let behind = server.local_addr().unwrap().port();
        // Says everything again.
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut piece = [0; 100];
                    while let Ok(bytes) = stream.read(&mut piece) {
                        if bytes == 0 || stream.write_all(&piece[..bytes]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let front = servers::free_port().unwrap();
        start(vec![Proxied { name: "it".to_owned(), front, behind }], data.path()).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", front)).unwrap();
        let mut heard = [0; 2];
        client.write_all(b"ab").unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ab");

        std::fs::write(part(data.path(), "it"), "").unwrap();
        // The proxy has seen it once nothing comes back.
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0;
        loop {
            client.write_all(b"cd").unwrap();
            sent += 1;
            if client.read_exact(&mut heard).is_err() {
                break;
            }
            sent -= 1;
            assert!(sent == 0, "an echo is missing");
        }
        let mut late = std::net::TcpStream::connect(("127.0.0.1", front)).unwrap();
        late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        late.write_all(b"ef").unwrap();
        assert!(late.read_exact(&mut heard).is_err());

        std::fs::remove_file(part(data.path(), "it")).unwrap();
        for (stream, expected) in [(&mut client, b"cd"), (&mut late, b"ef")] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, expected);
        }
    }
}
