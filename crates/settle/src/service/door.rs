//! The operators' door of an order instance: a Unix socket, or an address that may have a password.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use shop::problem::Problem;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::config::Door;

/// A door that nobody stands behind yet.
pub(super) enum Bound {
    Socket(UnixListener, PathBuf),
    Address(TcpListener, Option<Arc<str>>),
}

/// A door with somebody behind it. Dropped, it is closed.
pub(super) struct Open {
    serving: JoinHandle<()>,
    socket: Option<PathBuf>,
}

impl Bound {
    /// Takes the place.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) async fn bind(door: Door) -> anyhow::Result<Self> {
        match door {
            Door::Address(address, password) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.with_context(|| format!("operators: cannot listen on {address}"))?;
                Ok(Self::Address(listener, password.map(Into::into)))
            }
            Door::Socket(path) => {
                let path = std::path::absolute(&path).unwrap_or(path);
                Ok(Self::Socket(bind_socket(&path)?, path))
            }
        }
    }

    /// How operators reach it.
    pub(super) fn flag(&self) -> String {
        match self {
            Self::Socket(_, path) => format!("--socket {}", path.display()),
            Self::Address(listener, _) => match listener.local_addr() {
                Ok(address) => format!("--url http://{address}"),
                Err(error) => format!("--url, at an address that cannot be told: {error}"),
            },
        }
    }

    /// Lets operators in, as long as this is not dropped.
    pub(super) fn open(self, routes: Router) -> Open {
        match self {
            Self::Socket(listener, path) => {
                let serving = tokio::spawn(async move { _ = axum::serve(listener, routes).await });
                Open { serving, socket: Some(path) }
            }
            Self::Address(listener, password) => {
                let routes = match password {
                    Some(password) => routes.layer(from_fn_with_state(password, knows)),
                    None => routes,
                };
                let serving = tokio::spawn(async move { _ = axum::serve(listener, routes).await });
                Open { serving, socket: None }
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(path) = &self.socket {
            _ = std::fs::remove_file(path);
        }
    }
}

/// Binds a socket that only this user can open. One that nobody listens on any more was left behind by a process that was killed.
fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!(
            "operators: another process listens on {shown}: give each order instance a socket of its own in `admin.listen`"
        );
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
    {
        _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).with_context(|| format!("operators: cannot make the socket {shown}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Turns away whoever does not know the password.
async fn knows(State(password): State<Arc<str>>, request: Request, next: Next) -> Response {
    let said = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    if said.strip_prefix(b"Bearer ").is_some_and(|said| is_equal(said, password.as_bytes())) {
        return next.run(request).await;
    }
    let detail = "operators need the password: `Authorization: Bearer …`, for `settle tx` in SETTLE_ADMIN__PASSWORD";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response()
}

/// Takes as long whatever the two have in common.
fn is_equal(said: &[u8], password: &[u8]) -> bool {
    let differs = said.iter().zip(password).fold(0, |differs, (a, b)| differs | (a ^ b));
    said.len() == password.len() && differs == 0
}
