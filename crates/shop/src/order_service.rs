//! The order service: orders, and the orchestrator whose log lives with them. `orders_http` and `checkout_http` have its routes.
//!
//! It needs a database of orders, an orchestrator over it, somebody who knows prices, and the other instances, and does not care where any
//! of them is.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ledger::EntityId;
use orchestrator::{LogAnswer, LogQuery, Orchestrator};
use protocol::TransactionId;
use protocol::log::Standing;
use serde_json::json;

use crate::auditor::{Auditor, http};
use crate::checkout::CHECKOUT;
use crate::flights::Flights;
use crate::metrics::{DefinitionFigures, OrchestratorFigures};
use crate::openapi::Api;
use crate::order_store::{OrderStore, OrdersQuery};
use crate::ports::{Peers, Prices, Told};
use crate::request::called;
use crate::vitals::Examination;
use crate::{admin, orders_http, vitals};

/// So many stuck transactions are counted, at most: many enough to know that a person must look.
const MAX_STUCK_COUNTED: usize = 1_000;

/// What an order service is made of.
pub struct OrderParts {
    /// Its database.
    pub store: Arc<dyn OrderStore>,
    /// The orchestrator, whose log is that database.
    pub orchestrator: Orchestrator,
    /// Who knows what items cost.
    pub prices: Arc<dyn Prices>,
    /// The other instances.
    pub peers: Arc<dyn Peers>,
    /// Whether seeding is refused.
    pub production: bool,
}

/// The order service. Cheap to clone.
#[derive(Clone)]
pub struct OrderService {
    inner: Arc<Inner>,
}

struct Inner {
    parts: OrderParts,
    flights: Flights,
}

impl OrderService {
    /// Puts a service together.
    pub fn new(parts: OrderParts) -> Self {
        Self { inner: Arc::new(Inner { parts, flights: Flights::default() }) }
    }

    /// Its database.
    pub fn store(&self) -> &dyn OrderStore {
        &*self.inner.parts.store
    }

    /// The orchestrator.
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.inner.parts.orchestrator
    }

    /// Whether seeding is refused.
    pub fn is_production(&self) -> bool {
        self.inner.parts.production
    }

    /// Its part of the public contract, without its name before the paths.
    pub fn routes(&self) -> Api {
        orders_http::routes().with_state(self.clone())
    }

    /// The operators' routes, for [`admin::SOCKET`]: those to transactions, those of the audit, and `more`.
    pub fn admin_routes(&self, auditor: &Arc<Auditor>, more: Api) -> Router {
        let audit = http::routes(Arc::clone(auditor), self.clone());
        let all = admin::routes().with_state(self.clone()).merge(audit).merge(more);
        vitals::finish(all.guarded().described_as("Settle, for operators", &["/admin", "/"]))
    }

    /// How far a transaction is that this instance drives.
    pub(crate) async fn told_here(&self, id: TransactionId) -> Told {
        let engine = self.orchestrator().engine();
        if called(|done| engine.confirm_untold(id, done)).await.unwrap_or(false) {
            return Told::Unanswered;
        }
        if engine.is_answered(id) == Some(true) { Told::Answered } else { Told::Nothing }
    }

    /// Whether the database answers, durably.
    pub async fn answers(&self, within: Duration) -> bool {
        let answer = called(|done| self.store().query(OrdersQuery::Order(EntityId::number(0)), done));
        matches!(tokio::time::timeout(within, answer).await, Ok(Ok(Ok(_))))
    }

    /// What `/health/deep` says, given who has answered: whether a checkout could be served.
    pub fn examination(&self, answered: &[(&'static str, bool)]) -> Examination {
        let engine = self.orchestrator().engine();
        let mut services = serde_json::Map::new();
        for (name, well) in answered {
            services.insert((*name).to_owned(), json!(if *well { "ok" } else { "down" }));
        }
        let mut well = answered.iter().all(|(_, well)| *well);
        for (service, _, _) in engine.breakers().into_iter().filter(|(_, open, _)| *open) {
            well = false;
            services.insert(service.to_string(), json!("breaker open"));
        }
        let (in_flight, queued) = engine.load();
        let mut findings = serde_json::Map::new();
        findings.insert("services".to_owned(), services.into());
        findings.insert("in_flight".to_owned(), json!(in_flight));
        findings.insert("queued".to_owned(), json!(queued));
        findings.insert("unsettled".to_owned(), json!(engine.live_count()));
        Examination { well, findings }
    }

    /// How the orchestrator fares at the moment. The log is given a while to say what is stuck; the leader alone asks it, on behalf of all.
    pub async fn measure(&self, patience: Duration) -> OrchestratorFigures {
        let query = LogQuery::Listing { standing: Some(Standing::Stuck), limit: MAX_STUCK_COUNTED };
        let stuck = if self.orchestrator().engine().is_leader() {
            let listed = called(|done| self.store().read(query, done));
            match tokio::time::timeout(patience, listed).await {
                Ok(Ok(Ok(LogAnswer::Listing(found)))) => Some(found.len()),
                _ => None,
            }
        } else {
            None
        };
        let engine = self.orchestrator().engine();
        let (in_flight, queued) = engine.load();
        let using = |definition| {
            let (protocol, aborted) = engine.current_protocol(&definition)?;
            let fixed = engine.is_protocol_fixed(&definition)?;
            Some(DefinitionFigures { definition, protocol, fixed, abort_percent: aborted })
        };
        OrchestratorFigures {
            in_flight,
            queued,
            unsettled: engine.live_count(),
            in_doubt: engine.undecided_recoveries(),
            stuck,
            leader: engine.is_leader(),
            epoch: engine.epoch(),
            breakers: engine.breakers().into_iter().map(|(service, open, _)| (service, open)).collect(),
            definitions: [CHECKOUT].into_iter().filter_map(using).collect(),
        }
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.inner.flights
    }

    pub(crate) fn prices(&self) -> &dyn Prices {
        &*self.inner.parts.prices
    }

    pub(crate) fn peers(&self) -> &dyn Peers {
        &*self.inner.parts.peers
    }
}
