//! The outermost service: counts and measures every request by its route, and refuses what a browser would change for another site.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger::EntityId;
use orchestrator::{Clock, SystemClock};
use telemetry::traces::{Answered, Tracer, tracer};
use telemetry::{TraceContext, TraceId};
use tower_service::Service;

use crate::guard::{self, Door, Refused, is_foreign_change};
use crate::metrics::Metrics;
use crate::openapi::Api;
use crate::problem::Problem;
use crate::server::Shop;
use crate::vitals::{self, Vitals};

/// The one route that is hot: [`crate::connection`] serves it before a request comes here, if the whole shop is in this process.
pub(crate) const CHECKOUT_ROUTE: &str = "/orders/checkout/";

/// A service, or the whole shop, as axum serves it.
#[derive(Clone)]
pub struct Front {
    router: Router,
    about: Arc<About>,
    /// Whose names are this server's own.
    door: Door,
}

struct About {
    metrics: Arc<Metrics>,
    clock: Arc<SystemClock>,
    /// What every path of the one service here may begin with; empty if there are several.
    prefix: &'static str,
    /// The shop whose plain checkouts are served straight from the socket.
    shop: Option<Shop>,
}

impl Front {
    /// The whole shop.
    pub(crate) fn of_shop(shop: Shop, router: Router, metrics: Arc<Metrics>, clock: Arc<SystemClock>) -> Self {
        Self { router, about: Arc::new(About { metrics, clock, prefix: "", shop: Some(shop) }), door: Door::socket() }
    }

    /// One service: `routes`, health and metrics, with and without its name, such as `/stock`, before them.
    pub fn of_service(
        prefix: &'static str,
        routes: Api,
        vitals: Arc<dyn Vitals>,
        metrics: Arc<Metrics>,
        clock: Arc<SystemClock>,
    ) -> Self {
        let all = routes.merge(vitals::routes(Arc::clone(&vitals))).merge(vitals::deep_route(vitals));
        // With its name first: behind a gateway, paths without it lead nowhere.
        let all = all.described_as(&format!("Settle: {}", &prefix[1..]), &[prefix, "/"]);
        let router = vitals::finish(Router::new().nest(prefix, all.clone()).merge(all));
        Self { router, about: Arc::new(About { metrics, clock, prefix, shop: None }), door: Door::socket() }
    }

    /// The same, with what is the operators' under `/admin`, for whom `door` admits.
    #[must_use]
    pub fn with_operators(mut self, operators: Router, door: Door) -> Self {
        self.router = self.router.nest("/admin", guard::behind(door.clone(), operators));
        self.door = door;
        self
    }

    /// Adds names that are this server's.
    #[must_use]
    pub fn known_as(self, hosts: impl IntoIterator<Item = String>) -> Self {
        Self { door: self.door.known_as(hosts), ..self }
    }

    /// Serves these routes too; none of them may be one that is served already.
    #[must_use]
    pub fn beside(mut self, routes: Router) -> Self {
        self.router = self.router.merge(routes);
        self
    }

    pub(crate) fn shop(&self) -> Option<&Shop> {
        self.about.shop.as_ref()
    }

    /// Whether a browser asks for what it may not have done here. Faults, and seeding, which replaces everything, are no page's but this server's own.
    fn refused(&self, route: &str, request: &Request) -> Option<Refused> {
        let headers = request.headers();
        if is_foreign_change(request.method(), headers) {
            return Some(Refused::CrossSite);
        }
        let is_for_developers = ["/fault/", "/batch_init/"].iter().any(|part| route.contains(part));
        (is_for_developers && self.door.is_strange_page(headers)).then_some(Refused::StrangePage)
    }
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let about = Arc::clone(&self.about);
        let started = about.clock.micros();
        let route = route(about.prefix, request.uri().path());
        if let Some(refused) = self.refused(route, &request) {
            about.metrics.request(
                route,
                StatusCode::FORBIDDEN,
                about.clock.micros().saturating_sub(started) as f64 / 1e6,
            );
            return Box::pin(async move { Ok(Problem::from(refused).into_response()) });
        }
        let traced =
            tracer().filter(|_| !UNTRACED.contains(&route)).map(|tracer| Traced::begin(tracer, route, &request));
        let metrics = Arc::clone(&about.metrics);
        let counted = move |response: &Response| {
            let seconds = about.clock.micros().saturating_sub(started) as f64 / 1e6;
            about.metrics.request(route, response.status(), seconds);
            seconds
        };
        let Some(traced) = traced else {
            let answer = self.router.call(request);
            return Box::pin(async move { answer.await.inspect(|response| _ = counted(response)) });
        };
        let scope = traced.request.scope();
        let answer = scope.within(|| self.router.call(request));
        Box::pin(async move {
            let mut response = scope.of(answer).await?;
            let seconds = counted(&response);
            if let Some(trace) = traced.answered(&mut response) {
                metrics.request_kept(route, seconds, trace);
            }
            Ok(response)
        })
    }
}

/// Routes that tell of the process, not of the shop.
const UNTRACED: [&str; 2] = ["/health", "other"];
/// What a client that sent a `traceparent` is told: where in its trace the request was.
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A request that is traced.
struct Traced {
    request: Arc<telemetry::traces::Request>,
    method: Method,
    path: String,
    route: &'static str,
    told: bool,
}

impl Traced {
    fn begin(tracer: &Arc<Tracer>, route: &'static str, request: &Request) -> Self {
        let field = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let parent = field("traceparent").and_then(|parent| TraceContext::read(parent, field("tracestate")));
        let path = request.uri().path();
        let order = ["/orders/checkout/", "/orders/find/", "/orders/addItem/"].contains(&route);
        let order = order
            .then(|| {
                path.split('/')
                    .skip_while(|part| !["checkout", "find", "addItem"].contains(part))
                    .nth(1)
                    .and_then(|part| part.parse::<EntityId>().ok())
            })
            .flatten();
        let told = parent.is_some();
        let begun = telemetry::traces::Request::begin(tracer, parent, order);
        Self { request: begun, method: request.method().clone(), path: path.to_owned(), route, told }
    }

    /// Its trace, if somebody will be sent it.
    fn answered(&self, response: &mut Response) -> Option<TraceId> {
        let status = response.status().as_u16();
        let (method, route) = (self.method.as_str(), pattern(self.route));
        let kept = self.request.answered(Answered { method, route, path: &self.path, status });
        if self.told
            && let Ok(place) = HeaderValue::from_str(&self.request.context().parent())
        {
            response.headers_mut().insert(TRACE_RESPONSE, place);
        }
        kept
    }
}

/// A route as the conventions have it: with names for what differs from request to request.
pub(crate) fn pattern(route: &'static str) -> &'static str {
    match route {
        CHECKOUT_ROUTE => "/orders/checkout/{order_id}",
        "/orders/create/" => "/orders/create/{user_id}",
        "/orders/find/" => "/orders/find/{order_id}",
        "/orders/addItem/" => "/orders/addItem/{order_id}/{item_id}/{quantity}",
        "/orders/batch_init/" => "/orders/batch_init/{n}/{n_items}/{n_users}/{item_price}",
        "/stock/item/create/" => "/stock/item/create/{price}",
        "/stock/find/" => "/stock/find/{item_id}",
        "/stock/add/" => "/stock/add/{item_id}/{amount}",
        "/stock/subtract/" => "/stock/subtract/{item_id}/{amount}",
        "/stock/batch_init/" => "/stock/batch_init/{n}/{starting_stock}/{item_price}",
        "/payment/find_user/" => "/payment/find_user/{user_id}",
        "/payment/add_funds/" => "/payment/add_funds/{user_id}/{amount}",
        "/payment/pay/" => "/payment/pay/{user_id}/{amount}",
        "/payment/batch_init/" => "/payment/batch_init/{n}/{starting_money}",
        other => other,
    }
}

/// The name under which a path is measured: its route, never an id. A label must live as long as the program.
fn route(prefix: &str, path: &str) -> &'static str {
    const ROUTES: [&str; 20] = [
        CHECKOUT_ROUTE,
        "/orders/create/",
        "/orders/find/",
        "/orders/addItem/",
        "/orders/batch_init/",
        "/orders/dlq/",
        "/stock/item/create/",
        "/stock/find/",
        "/stock/add/",
        "/stock/subtract/",
        "/stock/batch_init/",
        "/stock/fault/",
        "/payment/create_user",
        "/payment/find_user/",
        "/payment/add_funds/",
        "/payment/pay/",
        "/payment/batch_init/",
        "/payment/fault/",
        "/health",
        "/admin/",
    ];
    let named = |route: &&str| path.starts_with(route);
    // The name of the only service here may be left out.
    let short =
        |route: &&str| !prefix.is_empty() && route.strip_prefix(prefix).is_some_and(|short| path.starts_with(short));
    ROUTES.into_iter().find(|route| named(route) || short(route)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::route;

    #[test]
    fn a_path_is_measured_under_its_route_whether_or_not_it_names_the_service() {
        assert_eq!(route("", "/orders/checkout/7"), "/orders/checkout/");
        assert_eq!(route("/orders", "/orders/checkout/7"), "/orders/checkout/");
        assert_eq!(route("/orders", "/checkout/7"), "/orders/checkout/");
        assert_eq!(route("/stock", "/find/7"), "/stock/find/");
        assert_eq!(route("", "/find/7"), "other");
        assert_eq!(route("/stock", "/health"), "/health");
    }
}
