//! The outermost service: counts and measures every request by its route, and takes checkouts past the router.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use orchestrator::Clock;
use tower_service::Service;

use crate::orders_http::check_out;
use crate::server::Shop;

/// The one route that is hot. It skips the router, whose boxed and nested services cost more than the checkout's own handler.
const CHECKOUT: &str = "/orders/checkout/";

/// The shop as axum serves it.
#[derive(Clone)]
pub struct Front {
    shop: Shop,
    router: Router,
}

impl Front {
    pub(crate) fn new(shop: Shop, router: Router) -> Self {
        Self { shop, router }
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
        let shop = self.shop.clone();
        let started = shop.clock().micros();
        if let Some(order) = plain_checkout(&request) {
            let order = order.to_owned();
            let (parts, _) = request.into_parts();
            return Box::pin(async move {
                let answer = check_out(State(shop.clone()), Path(order), parts.headers).await;
                let response = answer.into_response();
                shop.count(CHECKOUT, &response, started);
                Ok(response)
            });
        }
        let route = route(request.uri().path());
        let answer = self.router.call(request);
        Box::pin(async move {
            let response = answer.await?;
            shop.count(route, &response, started);
            Ok(response)
        })
    }
}

/// The order of a checkout whose path needs no decoding.
fn plain_checkout(request: &Request) -> Option<&str> {
    let order = request.uri().path().strip_prefix(CHECKOUT)?;
    let plain = !order.is_empty() && !order.contains(['/', '%']);
    (plain && request.method() == Method::POST).then_some(order)
}

/// The name under which a path is measured: its route, never an id. A label must live as long as the program.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 19] = [
        CHECKOUT,
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
    ];
    ROUTES.into_iter().find(|route| path.starts_with(route)).unwrap_or("other")
}
