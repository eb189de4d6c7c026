//! An instance that the gateway's tests have answer, refuse, hang and die.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use servers::wait_until;

/// An instance that says who it is, or does what the last segment of the path says: `die`, or `hang` until it is released. Stopping, it says so when it
/// is asked for its health; cut off, when it is asked whether it can serve checkouts; frozen, it says nothing at all.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    ended: AtomicBool,
    released: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) cut_off: AtomicBool,
    pub(super) frozen: AtomicBool,
    /// Requests, without those for health; and those.
    asked: AtomicUsize,
    pub(super) checked: AtomicUsize,
}

impl Fake {
    pub(super) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), Arc::clone(&of_thread));
                // Whatever goes wrong on a connection is the client's to see.
                std::thread::spawn(move || _ = shared.serve(name, &stream));
            }
        });
        Self { address, shared }
    }

    /// Nobody listens any more.
    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It looks when somebody comes.
        _ = TcpStream::connect(self.address);
        assert!(wait_until(Duration::from_secs(5), || TcpStream::connect(self.address).is_err()));
    }

    pub(super) fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    pub(super) fn hold(&self) {
        self.shared.released.store(false, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, name: &str, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            if self.ended.load(Ordering::SeqCst) {
                return Ok(());
            }
            // Checks come without a host, and so as HTTP/1.0.
            let checked = first.trim_end().ends_with("HTTP/1.0");
            let counter = if checked { &self.checked } else { &self.asked };
            counter.fetch_add(1, Ordering::SeqCst);
            if self.frozen.load(Ordering::SeqCst) {
                wait_until(Duration::from_secs(20), || self.released.load(Ordering::SeqCst));
                return Ok(());
            }
            if path.ends_with("/die") {
                return Ok(());
            }
            if path.ends_with("/hang") {
                wait_until(Duration::from_secs(20), || self.released.load(Ordering::SeqCst));
            }
            let cannot_serve = path == "/health/deep" && self.cut_off.load(Ordering::SeqCst);
            let unwell = path.ends_with("/unwell") || checked && (self.stopping.load(Ordering::SeqCst) || cannot_serve);
            let status = if unwell { "503 Service Unavailable" } else { "200 OK" };
            let body = format!("{name} {path}");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            (&mut &*stream).write_all(answer.as_bytes())?;
        }
    }
}
