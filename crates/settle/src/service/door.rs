//! The operators' door of an order instance: a Unix socket, or an address that may have a password.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use shop::guard::operators_own;
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

    /// Lets operators in, as long as this is not dropped. `hosts` are names that are this server's.
    pub(super) fn open(self, routes: Router, hosts: &[String]) -> Open {
        match self {
            Self::Socket(listener, path) => {
                let routes = operators_own(shop::guard::Door::socket(), routes);
                let serving = tokio::spawn(async move { _ = axum::serve(listener, routes).await });
                Open { serving, socket: Some(path) }
            }
            Self::Address(listener, password) => {
                let routes = operators_own(shop::guard::Door::address(password).known_as(hosts.to_vec()), routes);
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

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::routing::get;

    use super::*;
    use crate::admin_client::AdminClient;

    fn routes() -> Router {
        Router::new().route("/seven", get(async || Json(7)))
    }

    async fn asked(url: String, password: Option<&'static str>) -> Result<u8, String> {
        let ask = move || AdminClient::connect(&url, password.map(str::to_owned))?.get("/seven");
        tokio::task::spawn_blocking(ask).await.unwrap().map_err(|error| error.to_string())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_address_with_a_password_lets_in_who_knows_it() {
        let bound =
            Bound::bind(Door::Address("127.0.0.1:0".parse().unwrap(), Some("sesame".to_owned()))).await.unwrap();
        let url = bound.flag().strip_prefix("--url ").unwrap().to_owned();
        let open = bound.open(routes(), &[]);
        for wrong in [None, Some(""), Some("sesam"), Some("sesame!"), Some("Sesame")] {
            let why = asked(url.clone(), wrong).await.unwrap_err();
            assert!(why.contains("SETTLE_ADMIN__PASSWORD"), "{wrong:?}: {why}");
        }
        assert_eq!(asked(url.clone(), Some("sesame")).await, Ok(7));
        drop(open);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_socket_is_its_users_alone_and_no_other_instances() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order-1.sock");
        let bind = || Bound::bind(Door::Socket(path.clone()));
        let open = bind().await.unwrap().open(routes(), &[]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let reach = || {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                AdminClient::reach(&path).unwrap().map(|mut it| it.get::<u8>("/seven").unwrap())
            })
        };
        assert_eq!(reach().await.unwrap(), Some(7));
        let twice = bind().await.err().unwrap().to_string();
        assert!(twice.contains("another process listens on"), "{twice}");
        drop(open);
        assert_eq!(reach().await.unwrap(), None);
        // One that a killed process left behind is nobody's; a file that is no socket is somebody's.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(bind().await.unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind().await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
