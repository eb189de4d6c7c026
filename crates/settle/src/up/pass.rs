//! Passes requests of the page on, so that it needs to speak to one origin only: those of customers to the gateway, those of operators to the socket
//! of an order instance.
//!
//! | who asks                                                           | is                                        |
//! |--------------------------------------------------------------------|-------------------------------------------|
//! | with a `Host` that is an IP address, `localhost` or in SETTLE_HOSTS | let through                              |
//! | with another `Host`: a name that somebody made to lead here        | refused, 403 `strange_host`               |
//! | with a change, from a page of another site                         | refused, 403 `cross_site`                 |
//! | an operator by way of a proxy                                      | refused, 403 `operators_only`             |
//! | with a body of more than 64 KiB                                    | refused, 413 `bad_argument`               |
//!
//! The rules are those of [`shop::guard`], where everybody else has them from.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shop::guard::{Door, Refused, is_foreign_change};
use shop::problem::Problem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch as channel};
use tokio::time::timeout;

use super::member::is_frozen;
use super::page::{Stage, Told};
use super::plan::Kind;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Requests that are passed on at a time; others wait.
const AT_A_TIME: usize = 64;
/// Bytes of a body that are passed on: far more than any request needs.
const MAX_BODY_BYTES: usize = 64 << 10;
/// What is about one connection, and goes no further.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Where requests are passed on to.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) gateway: Option<u16>,
    pub(super) components: channel::Receiver<Vec<Told>>,
    pub(super) data: PathBuf,
}

type Of = Arc<(Ways, Semaphore)>;

pub(super) fn routes(ways: Ways) -> Router {
    let customers = ["/orders/{*rest}", "/stock/{*rest}", "/payment/{*rest}"];
    let router = customers.into_iter().fold(Router::new(), |router, path| router.route(path, any(to_gateway)));
    let router = router.route("/openapi.json", any(to_gateway)).route("/api", any(to_gateway));
    router.route("/admin/{*rest}", any(to_operators)).with_state(Arc::new((ways, Semaphore::new(AT_A_TIME))))
}

async fn to_gateway(State(of): State<Of>, request: Request) -> Result<Response, Problem> {
    let (ways, places) = &*of;
    let Some(port) = ways.gateway else {
        return Err(Problem::unavailable("the infrastructure runs alone: there is no gateway"));
    };
    let request = whole(request).await?;
    // It is never closed.
    let _place = places.acquire().await;
    Ok(match timeout(CONNECT, TcpStream::connect(("127.0.0.1", port))).await {
        Ok(Ok(stream)) => pass(stream, request).await,
        Ok(Err(error)) => away(format!("the gateway cannot be reached: {error}")),
        Err(_) => away("the gateway does not answer"),
    })
}

async fn to_operators(State(of): State<Of>, request: Request) -> Result<Response, Problem> {
    let (ways, places) = &*of;
    let request = whole(request).await?;
    let _place = places.acquire().await;
    let sockets: Vec<PathBuf> = ways
        .components
        .borrow()
        .iter()
        .filter(|it| it.kind == Kind::Order && it.stage == Stage::Running && !it.pid.is_some_and(is_frozen))
        .map(|it| ways.data.join(&it.name).join(shop::admin::SOCKET))
        .collect();
    for socket in sockets {
        if let Ok(Ok(stream)) = timeout(CONNECT, UnixStream::connect(&socket)).await {
            return Ok(pass(stream, request).await);
        }
    }
    Err(Problem::unavailable("no order instance that runs lets operators in"))
}

/// Takes the whole request in, so that nothing of it is still to come when it is passed on.
async fn whole(request: Request) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    match timeout(PATIENCE, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Ok(Err(error)) if is_too_long(&error) => {
            let detail = format!("a body has {MAX_BODY_BYTES} bytes at most here");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_argument", detail))
        }
        Ok(Err(error)) => Err(Problem::bad_argument(format!("the request did not come whole: {error}"))),
        Err(_) => Err(Problem::bad_argument(format!("the request did not come whole in {} s", PATIENCE.as_secs()))),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

async fn pass(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, mut request: Request) -> Response {
    let (mut requests, connection) = match http1::handshake::<_, Body>(TokioIo::new(HeardOut(stream))).await {
        Ok(shaken) => shaken,
        Err(error) => return away(error),
    };
    // Its failure is also that of the request.
    tokio::spawn(async move { _ = connection.await });
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    match path.parse() {
        Ok(path) => *request.uri_mut() = path,
        Err(error) => return away(error),
    }
    *request.version_mut() = axum::http::Version::HTTP_11;
    for name in HOP_BY_HOP {
        request.headers_mut().remove(name);
    }
    match timeout(PATIENCE, requests.send_request(request)).await {
        Ok(Ok(mut answer)) => {
            for name in HOP_BY_HOP {
                answer.headers_mut().remove(name);
            }
            answer.map(Body::new).into_response()
        }
        Ok(Err(error)) => in_doubt(format!("the connection broke before there was an answer: {error}")),
        Err(_) => in_doubt(format!("there was no answer in {} s", PATIENCE.as_secs())),
    }
}

/// A connection whose other end is heard out though it reads no more. Whoever refuses a request without having read all of it answers and closes; that
/// answer is there to be read when what is left of the request cannot be written. If there is none, reading says that the connection broke.
struct HeardOut<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for HeardOut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeardOut<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes).map(|written| match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(bytes.len())
            }
            written => written,
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Nothing was passed on.
fn away(why: impl ToString) -> Response {
    Problem::unavailable(why.to_string()).into_response()
}

/// Whether it was carried out is not known.
fn in_doubt(why: String) -> Response {
    Problem::in_doubt(why).into_response()
}

/// Turns away whoever is not sitting at this machine, and pages of other sites. See the table above.
pub(super) async fn guarded(request: Request, next: Next) -> Response {
    match refusal(request.method(), request.uri().path(), request.headers()) {
        Some(refused) => Problem::from(refused).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(method: &Method, path: &str, headers: &HeaderMap) -> Option<Refused> {
    // It listens on the loopback address alone.
    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
    static DOOR: LazyLock<Door> = LazyLock::new(|| {
        let hosts = std::env::var("SETTLE_HOSTS").unwrap_or_default();
        Door::public((HERE, 0).into(), true, None).known_as(hosts.split(',').map(|host| host.trim().to_owned()))
    });
    if !DOOR.is_own_name(headers) {
        Some(Refused::StrangePage)
    } else if path.starts_with("/admin") {
        DOOR.admit(Some(HERE.into()), headers).err()
    } else {
        is_foreign_change(method, headers).then_some(Refused::CrossSite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: usize) -> Request {
        Request::post("/admin/x").header("host", "here").body(Body::from(vec![b' '; bytes])).unwrap()
    }

    /// What `there` is answered by somebody who has read the first bytes of its request, says `answer`, and is gone.
    async fn heard(bytes: usize, answer: &'static str) -> StatusCode {
        use std::io::{Read, Write};
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let refuses = std::thread::spawn(move || {
            there.read_exact(&mut [0; 16]).unwrap();
            there.write_all(answer.as_bytes()).unwrap();
        });
        let answer = pass(UnixStream::from_std(here).unwrap(), request(bytes)).await;
        refuses.join().unwrap();
        answer.status()
    }

    #[tokio::test]
    async fn whoever_refuses_a_request_without_having_read_it_is_heard() {
        // Also if most of it does not fit into the connection.
        for bytes in [0, 100, MAX_BODY_BYTES, 100 * MAX_BODY_BYTES] {
            for _ in 0..50 {
                let said =
                    heard(bytes, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                assert_eq!(said, StatusCode::NOT_FOUND, "{bytes} bytes");
                let said = heard(bytes, "").await;
                assert_eq!(said, StatusCode::GATEWAY_TIMEOUT, "{bytes} bytes: nobody knows what became of it");
            }
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_passed_on_to_nobody() {
        let refused = whole(request(MAX_BODY_BYTES + 1)).await.unwrap_err();
        assert_eq!(refused.into_response().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    fn refused(method: Method, path: &str, headers: &[(&'static str, &str)]) -> Option<Refused> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        refusal(&method, path, &map)
    }

    #[test]
    fn whoever_is_not_at_this_machine_or_at_another_site_is_refused() {
        let here = ("host", "127.0.0.1:9000");
        for (method, path, headers, expected) in [
            (Method::GET, "/", &[here][..], None),
            (Method::GET, "/", &[("host", "localhost:9000")], None),
            (Method::GET, "/", &[("host", "[::1]:9000")], None),
            (Method::GET, "/", &[("host", "evil.example:9000")], Some(Refused::StrangePage)),
            (Method::GET, "/", &[("host", "127.0.0.1.evil.example")], Some(Refused::StrangePage)),
            (Method::GET, "/", &[], Some(Refused::StrangePage)),
            (Method::POST, "/orders/checkout/1", &[here], None),
            (
                Method::POST,
                "/orders/checkout/1",
                &[here, ("origin", "http://127.0.0.1:9000"), ("sec-fetch-site", "same-origin")],
                None,
            ),
            (Method::POST, "/orders/checkout/1", &[here, ("sec-fetch-site", "none")], None),
            (Method::POST, "/orders/checkout/1", &[here, ("origin", "http://evil.example")], Some(Refused::CrossSite)),
            (Method::POST, "/orders/checkout/1", &[here, ("origin", "null")], Some(Refused::CrossSite)),
            // Another port of this machine is another origin.
            (
                Method::POST,
                "/orders/checkout/1",
                &[here, ("origin", "http://127.0.0.1:9001")],
                Some(Refused::CrossSite),
            ),
            (Method::POST, "/orders/checkout/1", &[here, ("sec-fetch-site", "same-site")], Some(Refused::CrossSite)),
            (Method::PUT, "/admin/log-level", &[here, ("sec-fetch-site", "cross-site")], Some(Refused::CrossSite)),
            // What another site's page may fetch, it cannot read.
            (Method::GET, "/dashboard/snapshot", &[here, ("sec-fetch-site", "cross-site")], None),
            (Method::GET, "/admin/transactions", &[here], None),
            (Method::GET, "/admin/transactions", &[here, ("x-forwarded-for", "10.0.0.7")], Some(Refused::NoPassword)),
            (Method::GET, "/admin/transactions", &[here, ("forwarded", "for=10.0.0.7")], Some(Refused::NoPassword)),
            (Method::GET, "/admin/transactions", &[here, ("via", "1.1 proxy")], Some(Refused::NoPassword)),
            (Method::GET, "/dashboard/snapshot", &[here, ("via", "1.1 proxy")], None),
        ] {
            assert_eq!(refused(method.clone(), path, headers), expected, "{method} {path} {headers:?}");
        }
    }
}
