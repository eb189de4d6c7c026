//! Who may use what is the operators', and what a browser may not do for another site: one function, [`Door::admit`].
//!
//! | door                                    | who may                                                                            |
//! |-----------------------------------------|------------------------------------------------------------------------------------|
//! | [`Door::socket`]                        | whoever can open it: the system has looked at that already                         |
//! | [`Door::address`] with a password       | who says it: `Authorization: Bearer …`                                             |
//! | [`Door::address`] without one           | whoever reaches it, under a name that is its own                                   |
//! | [`Door::public`] with a password        | who says it                                                                        |
//! | [`Door::public`] without one, at home   | who asks from the same machine, straight, under a name that is its own             |
//! | [`Door::public`] without one, elsewhere | nobody                                                                             |
//!
//! *At home* is a listener on a loopback address that serves one person's machine: `settle serve` without `--production`, or `settle up`. *Straight* is
//! without a header by which a proxy tells of itself: behind one, everybody comes from this machine. *A name that is its own* is an IP address,
//! `localhost`, or one that the configuration names: else a page of another site could have its own name point here (DNS rebinding), and
//! its requests would look as if they came from this page. A password is no secret to that page, so none of this is asked of who knows it.
//!
//! Whatever the door, and whatever the password: nobody may for another site. A browser says for whom it asks, in `Origin` and `Sec-Fetch-Site`, and no page can
//! have it say otherwise. Clients that are no browsers send neither.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// By this a browser says for whom it asks.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The environment variable with the operators' password.
pub const PASSWORD_VARIABLE: &str = "SETTLE_ADMIN__PASSWORD";

/// A listener, as far as it concerns who may use what is the operators'.
#[derive(Clone)]
pub struct Door {
    kind: Kind,
    password: Option<Arc<str>>,
    hosts: Arc<[String]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Address,
    Public { at_home: bool },
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "hidden");
        f.debug_struct("Door")
            .field("kind", &self.kind)
            .field("password", &password)
            .field("hosts", &self.hosts)
            .finish()
    }
}

/// Where a request came from: an extension of the request, put there by the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A browser asks for a page of another site.
    CrossSite,
    /// The name in `Host` is not known to be this server's.
    StrangeHost,
    /// The same, of a page, for what no password opens.
    StrangePage,
    /// The password is missing or wrong.
    Password,
    /// There is no password, and this listener needs one.
    NoPassword,
}

/// Whether somebody may act as an operator, for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allowed {
    /// As they are.
    Yes,
    /// If they say the password.
    Password,
    /// Not by this way.
    No,
}

impl Door {
    /// The operators' Unix socket.
    pub fn socket() -> Self {
        Self { kind: Kind::Socket, password: None, hosts: Arc::default() }
    }

    /// The operators' own address, with its password if it has one.
    pub fn address(password: Option<Arc<str>>) -> Self {
        Self { kind: Kind::Address, password, hosts: Arc::default() }
    }

    /// A listener that is the public's, too. `at_home`: it may let in whoever sits at this machine, if it listens on a loopback address.
    pub fn public(listens: SocketAddr, at_home: bool, password: Option<Arc<str>>) -> Self {
        Self { kind: Kind::Public { at_home: at_home && listens.ip().is_loopback() }, password, hosts: Arc::default() }
    }

    /// Adds names that are this server's.
    #[must_use]
    pub fn known_as(mut self, hosts: impl IntoIterator<Item = String>) -> Self {
        self.hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        self
    }

    /// Whether a request may do what is the operators'; `peer` is who is at the other end of its connection, where that is known.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), Refused> {
        if is_cross_site(headers) {
            return Err(Refused::CrossSite);
        }
        if self.kind == Kind::Socket {
            return Ok(());
        }
        if let Some(password) = &self.password {
            return if says(headers, password) { Ok(()) } else { Err(Refused::Password) };
        }
        let straight = || peer.is_some_and(|peer| peer.to_canonical().is_loopback()) && !came_by_proxy(headers);
        let near = match self.kind {
            Kind::Socket | Kind::Address => true,
            Kind::Public { at_home } => at_home && straight(),
        };
        match near {
            false => Err(Refused::NoPassword),
            true if self.is_own_name(headers) => Ok(()),
            true => Err(Refused::StrangeHost),
        }
    }

    /// Whether somebody may act as an operator, and if not, what they can do about it.
    pub fn standing(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> (Allowed, Option<&'static str>) {
        match self.admit(peer, headers) {
            Ok(()) => (Allowed::Yes, None),
            Err(Refused::Password) => (Allowed::Password, Some(Refused::Password.detail())),
            Err(refused) => (Allowed::No, Some(refused.detail())),
        }
    }

    /// Whether the `Host` that was asked is this server's own name, or at least nobody else's.
    pub fn is_own_name(&self, headers: &HeaderMap) -> bool {
        let Some(host) = single(headers, &header::HOST).flatten() else { return false };
        let name = name_of(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || address.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    /// Whether a browser asks under a name that may be another site's, made to point here. A client that is no browser may use any name that leads here.
    pub fn is_strange_page(&self, headers: &HeaderMap) -> bool {
        let from_browser = headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE);
        from_browser && !self.is_own_name(headers)
    }
}

impl Refused {
    /// What to do about it.
    pub fn detail(self) -> &'static str {
        match self {
            Self::CrossSite => "this comes from a page of another site, which may not have it done here",
            Self::StrangeHost => {
                "operators must ask under an IP address, localhost or a name that the configuration gives this server: use the address, give it the name \
                 (SETTLE_HOSTS), or set a password (SETTLE_ADMIN__PASSWORD)"
            }
            Self::StrangePage => {
                "this is not done for a page under this name, which another site could have made to point here: open the page under an IP address or \
                 localhost, or give this server the name (SETTLE_HOSTS); a password does not help"
            }
            Self::Password => {
                "operators need the password: `Authorization: Bearer …`; for `settle tx` in SETTLE_ADMIN__PASSWORD"
            }
            Self::NoPassword => {
                "operators are not let in here without a password: set SETTLE_ADMIN__PASSWORD where this server starts, or use the operators' own socket or \
                 address (`settle tx`)"
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (status, code) = match refused {
            Refused::CrossSite => (StatusCode::FORBIDDEN, "cross_site"),
            Refused::StrangeHost | Refused::StrangePage => (StatusCode::FORBIDDEN, "strange_host"),
            Refused::Password => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Refused::NoPassword => (StatusCode::FORBIDDEN, "operators_only"),
        };
        Self::new(status, code, refused.detail())
    }
}

/// Puts routes behind a door.
pub fn behind(door: Door, routes: Router) -> Router {
    routes.layer(from_fn_with_state(door, guarded))
}

/// The operators' routes as their own socket or address has them: under `/admin`, as everywhere, and without that, too.
pub fn operators_own(door: Door, routes: Router) -> Router {
    behind(door, Router::new().nest("/admin", routes.clone()).merge(routes))
}

async fn guarded(State(door): State<Door>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    match door.admit(peer, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => Problem::from(refused).into_response(),
    }
}

/// Whether a request that changes something is made by a browser for a page of another site.
pub fn is_foreign_change(method: &Method, headers: &HeaderMap) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && is_cross_site(headers)
}

/// Whether a browser asks for a page of another site: `Sec-Fetch-Site` says so, or `Origin` is not the `Host` that was asked. Whatever is said
/// twice, or is no text, is nobody's own.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let own_site = |value: &str| matches!(value, "same-origin" | "none");
    let host = single(headers, &header::HOST);
    let own_origin = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.zip(host.flatten()).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    };
    let foreign_site = single(headers, &FETCH_SITE).is_some_and(|site| !site.is_some_and(own_site));
    let foreign_origin = single(headers, &header::ORIGIN).is_some_and(|origin| !origin.is_some_and(own_origin));
    foreign_site || foreign_origin
}

/// A header's value: `None` if it is not there, `Some(None)` if it is there twice or is no text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_none() { first.to_str().ok() } else { None })
}

/// The name in a `Host`, without its port.
fn name_of(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => host.get(..=end).unwrap_or(host),
        None => host.split(':').next().unwrap_or(host),
    }
}

fn came_by_proxy(headers: &HeaderMap) -> bool {
    let tells = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
    };
    headers.keys().any(tells)
}

/// Whether the request says the password.
fn says(headers: &HeaderMap, password: &str) -> bool {
    let said = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    said.strip_prefix(b"Bearer ").is_some_and(|said| is_equal(said, password.as_bytes()))
}

/// Takes as long whatever the two have in common.
fn is_equal(said: &[u8], password: &[u8]) -> bool {
    let differs = said.iter().zip(password).fold(0, |differs, (a, b)| differs | (a ^ b));
    said.len() == password.len() && differs == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_page_under_a_name_that_is_made_to_point_here_is_strange_and_a_tool_is_not() {
        let door = door("home").known_as(["shop.example".to_owned()]);
        for (strange, said) in [
            (true, "host: evil.example:8000|origin: http://evil.example:8000|sec-fetch-site: same-origin"),
            (true, "host: evil.example:8000|sec-fetch-site: same-origin"),
            (true, "origin: http://evil.example:8000"),
            (false, "host: 127.0.0.1:8000|origin: http://127.0.0.1:8000"),
            (false, "host: localhost:8000|sec-fetch-site: same-origin"),
            (false, "host: shop.example|origin: https://shop.example"),
            (false, "host: stock-service:5000"),
        ] {
            assert_eq!(door.is_strange_page(&headers(said)), strange, "{said}");
        }
    }

    const HERE: &str = "127.0.0.1:8000";

    fn door(kind: &str) -> Door {
        let (kind, password) = kind.split_once('+').map_or((kind, None), |(kind, word)| (kind, Some(Arc::from(word))));
        let here: SocketAddr = HERE.parse().unwrap();
        match kind {
            "socket" => Door::socket(),
            "address" => Door::address(password),
            "home" => Door::public(here, true, password),
            "production" => Door::public(here, false, password),
            "open" => Door::public("0.0.0.0:8000".parse().unwrap(), true, password),
            other => panic!("there is no door `{other}`"),
        }
    }

    /// `name: value` pairs, parted by `|`.
    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for pair in text.split('|').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn who_may() {
        const PAGE: &str = "host: 127.0.0.1:8000|origin: http://127.0.0.1:8000|sec-fetch-site: same-origin";
        const CURL: &str = "host: 127.0.0.1:8000";
        const SAYS: &str = "host: 127.0.0.1:8000|authorization: Bearer sesame";
        const FAR: &str = "192.0.2.7";
        const NEAR: &str = "127.0.0.1";
        let rows: &[(&str, &str, &str, Result<(), Refused>)] = &[
            // The socket: whoever can open it.
            ("socket", "-", "host: settle", Ok(())),
            ("socket", "-", "", Ok(())),
            // An operators' address.
            ("address", FAR, CURL, Ok(())),
            ("address", FAR, PAGE, Ok(())),
            ("address", FAR, "host: order-1:9001", Err(Refused::StrangeHost)),
            ("address", FAR, "", Err(Refused::StrangeHost)),
            ("address+sesame", FAR, CURL, Err(Refused::Password)),
            ("address+sesame", FAR, SAYS, Ok(())),
            ("address+sesame", FAR, "host: order-1:9001|authorization: Bearer sesame", Ok(())),
            // The public's, at home.
            ("home", NEAR, PAGE, Ok(())),
            ("home", NEAR, CURL, Ok(())),
            ("home", "::1", "host: [::1]:8000", Ok(())),
            ("home", "::ffff:127.0.0.1", CURL, Ok(())),
            ("home", NEAR, "host: localhost:8000", Ok(())),
            ("home", NEAR, "host: LocalHost", Ok(())),
            ("home", FAR, CURL, Err(Refused::NoPassword)),
            ("home", "-", CURL, Err(Refused::NoPassword)),
            ("home", NEAR, "host: 127.0.0.1:8000|x-forwarded-for: 127.0.0.1", Err(Refused::NoPassword)),
            ("home", NEAR, "host: 127.0.0.1:8000|x-forwarded-proto: https", Err(Refused::NoPassword)),
            ("home", NEAR, "host: 127.0.0.1:8000|forwarded: for=127.0.0.1", Err(Refused::NoPassword)),
            ("home", NEAR, "host: 127.0.0.1:8000|via: 1.1 proxy", Err(Refused::NoPassword)),
            ("home", NEAR, "host: 127.0.0.1:8000|x-real-ip: 127.0.0.1", Err(Refused::NoPassword)),
            ("home+sesame", NEAR, PAGE, Err(Refused::Password)),
            ("home+sesame", FAR, SAYS, Ok(())),
            ("home+sesame", FAR, "host: shop.example|x-forwarded-for: 192.0.2.7|authorization: Bearer sesame", Ok(())),
            // The public's, elsewhere.
            ("production", NEAR, PAGE, Err(Refused::NoPassword)),
            ("production+sesame", FAR, SAYS, Ok(())),
            ("production+sesame", NEAR, CURL, Err(Refused::Password)),
            ("open", NEAR, PAGE, Err(Refused::NoPassword)),
            ("open+sesame", FAR, SAYS, Ok(())),
            // What is nearly the password.
            ("open+sesame", FAR, "host: a|authorization: Bearer sesam", Err(Refused::Password)),
            ("open+sesame", FAR, "host: a|authorization: Bearer sesame!", Err(Refused::Password)),
            ("open+sesame", FAR, "host: a|authorization: Bearer Sesame", Err(Refused::Password)),
            ("open+sesame", FAR, "host: a|authorization: Bearer ", Err(Refused::Password)),
            ("open+sesame", FAR, "host: a|authorization: Basic sesame", Err(Refused::Password)),
            // Another site's name that points here.
            ("home", NEAR, "host: evil.example:8000", Err(Refused::StrangeHost)),
            (
                "home",
                NEAR,
                "host: evil.example|origin: http://evil.example|sec-fetch-site: same-origin",
                Err(Refused::StrangeHost),
            ),
            ("home", NEAR, "host: 127.0.0.1.evil.example", Err(Refused::StrangeHost)),
            ("home", NEAR, "host: localhost.evil.example", Err(Refused::StrangeHost)),
            ("home", NEAR, "", Err(Refused::StrangeHost)),
        ];
        for (kind, peer, said, expected) in rows {
            assert_eq!(door(kind).admit(peer.parse().ok(), &headers(said)), *expected, "{kind}, {peer}, {said}");
        }
        let named = door("home").known_as(["Shop.Local".to_owned()]);
        assert_eq!(named.admit(NEAR.parse().ok(), &headers("host: shop.local:8000")), Ok(()));
        assert_eq!(named.admit(NEAR.parse().ok(), &headers("host: shop.evil:8000")), Err(Refused::StrangeHost));
    }

    #[test]
    fn nobody_may_for_another_site_whatever_the_door() {
        let said = "host: 127.0.0.1:8000|authorization: Bearer sesame|";
        for foreign in [
            "origin: http://evil.example",
            "origin: http://127.0.0.1:8001",
            "origin: https://127.0.0.1",
            "origin: null",
            "origin: 127.0.0.1:8000",
            "sec-fetch-site: cross-site",
            "sec-fetch-site: same-site",
            "sec-fetch-site: nonsense",
            "origin: http://127.0.0.1:8000|sec-fetch-site: cross-site",
            "origin: http://evil.example|sec-fetch-site: same-origin",
            "origin: http://127.0.0.1:8000|origin: http://evil.example",
            "host: evil.example|origin: http://evil.example",
        ] {
            let headers = headers(&format!("{said}{foreign}"));
            for kind in ["socket", "address", "address+sesame", "home", "home+sesame", "production+sesame", "open"] {
                let admitted = door(kind).admit("127.0.0.1".parse().ok(), &headers);
                assert_eq!(admitted, Err(Refused::CrossSite), "{kind}, {foreign}");
            }
            assert!(is_foreign_change(&Method::POST, &headers), "{foreign}");
            assert!(is_foreign_change(&Method::DELETE, &headers), "{foreign}");
            assert!(!is_foreign_change(&Method::GET, &headers), "{foreign}");
        }
        for own in ["", "sec-fetch-site: none", "origin: http://127.0.0.1:8000|sec-fetch-site: same-origin"] {
            assert!(!is_foreign_change(&Method::POST, &headers(&format!("{said}{own}"))), "{own}");
        }
    }

    #[test]
    fn the_page_is_told_how_to_get_in() {
        let near = "127.0.0.1".parse().ok();
        let asked = headers("host: 127.0.0.1:8000");
        assert_eq!(door("home").standing(near, &asked), (Allowed::Yes, None));
        let (allowed, why) = door("home+sesame").standing(near, &asked);
        assert_eq!(allowed, Allowed::Password);
        assert!(why.unwrap().contains("password"));
        let (allowed, why) = door("production").standing(near, &asked);
        assert_eq!(allowed, Allowed::No);
        assert!(why.unwrap().contains(PASSWORD_VARIABLE));
    }
}
