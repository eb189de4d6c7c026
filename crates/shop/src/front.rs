//! The outermost service: counts and measures every request by its route.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use orchestrator::Clock;
use tower_service::Service;

use crate::server::Shop;

/// The one route that is hot: [`crate::connection`] serves it before a request comes here.
pub(crate) const CHECKOUT_ROUTE: &str = "/orders/checkout/";

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

    pub(crate) fn shop(&self) -> &Shop {
        &self.shop
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
        let route = route(request.uri().path());
        let answer = self.router.call(request);
        Box::pin(async move {
            let response = answer.await?;
            shop.count(route, response.status(), started);
            Ok(response)
        })
    }
}

/// The name under which a path is measured: its route, never an id. A label must live as long as the program.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 19] = [
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
    ];
    ROUTES.into_iter().find(|route| path.starts_with(route)).unwrap_or("other")
}
