//! A way to a server that can be cut, and on which answers can be held back: what is to happen between a question and its answer happens then, and not by
//! chance.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Before a server: passes everything on, unless it is told to hold answers back, or cut. Ends with the test.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The answer that has this text in it is held back, and all behind it.
    marked: Option<Vec<u8>>,
    /// Whether one is held back.
    holds: bool,
    /// How many pieces of what is held may pass.
    passes: usize,
    /// Nobody gets through.
    is_cut: bool,
    /// Both sides of each connection that was let through.
    connections: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a piece of what the server said may pass.
    fn let_through(&self, piece: &[u8]) {
        let mut state = self.lock();
        let marked =
            |state: &State| state.marked.as_ref().is_some_and(|text| piece.windows(text.len()).any(|it| it == text));
        if state.holds || marked(&state) {
            state.holds = true;
            self.changed.notify_all();
            while state.holds && state.passes == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.passes = state.passes.saturating_sub(1);
        }
    }
}

impl Gate {
    /// Opens a gate before this server, on a free port.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let shared = Arc::clone(&theirs);
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { continue };
                let (Ok(one), Ok(other)) = (client.try_clone(), server.try_clone()) else { continue };
                let mut state = shared.lock();
                if state.is_cut {
                    continue;
                }
                state.connections.extend([one, other]);
                drop(state);
                std::thread::spawn(move || pump(from_client, to_server, |_| {}));
                std::thread::spawn(move || pump(server, client, |piece| shared.let_through(piece)));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and lets nobody through until it is [open](Self::open) again.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.is_cut = true;
        for connection in state.connections.drain(..) {
            // It may have ended by itself.
            _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Holds back the next answer that has `text` in it, and all behind it, until it is [open](Self::open) again.
    pub fn hold(&self, text: &str) {
        let mut state = self.shared.lock();
        (state.marked, state.holds, state.passes) = (Some(text.as_bytes().to_vec()), false, 0);
    }

    /// Whether an answer is held back, waiting for one at most so long.
    pub fn holds(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, patience, |state| !state.holds);
        waited.unwrap_or_else(PoisonError::into_inner).0.holds
    }

    /// Lets the answer that is held back pass, and holds those behind it.
    pub fn pass_one(&self) {
        self.shared.lock().passes += 1;
        self.shared.changed.notify_all();
    }

    /// Lets everything pass.
    pub fn open(&self) {
        let mut state = self.shared.lock();
        (state.marked, state.holds, state.passes, state.is_cut) = (None, false, 0, false);
        drop(state);
        self.shared.changed.notify_all();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, before: impl Fn(&[u8])) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        before(&piece[..bytes]);
        if to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    // The other direction ends, too.
    _ = from.shutdown(std::net::Shutdown::Both);
    _ = to.shutdown(std::net::Shutdown::Both);
}
