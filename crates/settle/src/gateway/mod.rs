//! The gateway: HAProxy in front of the services, its configuration made from one source.
//!
//! ```text
//!   client ──► bind ──► first segment of the path ─┬─ /orders and the like* ───────► order instances     all to one, or by the order's id
//!               │  ▲                               ├─ /stock ─────────────────────► stock instances     least connections
//!      a change │  │ a fresh connection            └─ /payment ───────────────────► payment instances   least connections
//!               └──┘
//!
//!   before each: a check of health, a bounded queue               * /health, /metrics; the API described: /openapi.json, /api
//! ```
//!
//! **A change goes through the gateway twice**, the second time on a connection of its own. If an instance goes away with a request that is not the
//! first of its client's connection, HAProxy closes that connection without a word: clients take this for a connection that had been idle
//! for too long, and many send the request again by themselves. For what may not be done twice that would be wrong; so it comes as the first on its connection,
//! and is answered. Reads and checkouts may be asked for again: they go straight.
//!
//! **What is about one order goes to one instance**: two that check out the same order meet there, where one waits for the other. At two instances each
//! could find the other's hold in its way, and both be refused. It is the home of an order, not its lock: an instance that is gone, or has nearly
//! everything that is under way, is passed over, and then the services' own rules hold alone.
//!
//! | requests about orders under way | what is about one order goes to                | what is about none goes to                               |
//! |---------------------------------|------------------------------------------------|----------------------------------------------------------|
//! | fewer than [`TOGETHER`]         | the first instance that can serve checkouts, as all do | that, too                                        |
//! | more                            | the instance that its id leads to, by consistent hashing with a bound | any, by a number drawn at random, under the same bound |
//!
//! Few go together because an instance writes what it does at the same time as one batch, which waits for the replicas once: divided between two
//! instances, the same few cost the databases twice the batches. One that takes requests and does not answer has [`TOGETHER`] of them, and from then on
//! each goes by its id. One that answers and cannot serve checkouts (cut off from the broker, say) refuses at once and so would have all for itself: the
//! backend of few asks `/health/deep`, and if no instance is well by that, each request goes by its id, as with more. Two that check out the same order just
//! when the number passes the bound may be parted. (What is about no order does not go by least connections, in a backend beside this one: that would not
//! see the load of this one.)
//!
//! What the gateway answers when no instance does keeps to the contract, since clients take a 4xx for "not done" and cannot take
//! anything else for it:
//!
//! | what happened                                             | was it done? | a change (POST)           | a read (GET)              |
//! |-----------------------------------------------------------|--------------|---------------------------|---------------------------|
//! | no instance is ready, or none could be connected to       | no           | 424 `service_unavailable` | 424 `service_unavailable` |
//! | the queue is full, or the wait in it too long             | no           | 429 `overloaded`          | 429 `overloaded`          |
//! | the instance went away in the middle, or took too long    | nobody knows | 504 `in_doubt`            | 424 `service_unavailable` |
//! | the same, with a checkout or a read on a connection that was used before | nobody knows | the connection is closed  | the same   |
//! | the client sent no whole request in time, or none at all  | no           | 408, 400, as HAProxy says it (no details) | the same  |
//!
//! A change is tried on another instance only while nothing of it was sent; a read may be tried again even then. One that is being passed over at the very
//! moment in which its first instance is found dead may be ended with what that one had: as in doubt, or its answer is cut off.
//!
//! | what the check of an instance's health finds   | new requests | those that it has                                    |
//! |------------------------------------------------|--------------|------------------------------------------------------|
//! | 200                                            | come         | stay                                                 |
//! | 503: it is stopping                            | go elsewhere | stay: it finishes them                               |
//! | nobody listens, or no answer: twice in a row   | go elsewhere | are ended as above: it is dead, frozen or cut off    |

use std::fmt::Write as _;
use std::time::Duration;

use protocol::limits::MAX_JOINED;

use crate::compose::PAGE_PORT;
use crate::config::Service;

#[cfg(test)]
mod tests;

/// Where the instances of a service are.
#[derive(Debug, Clone)]
pub(crate) enum Instances {
    /// At these addresses, each under its name.
    At(Vec<(String, String)>),
    /// As many as this, under one name that the containers' resolver knows, at this port.
    Named { host: &'static str, port: u16, most: u32 },
}

impl Instances {
    /// How many there may be.
    fn most(&self) -> u32 {
        match self {
            Self::At(addresses) => u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            Self::Named { most, .. } => *most,
        }
    }
}

/// How far the bound of one of n instances is below all that is under way, in hundredths of what each would have if all had the same: each may have
/// up to n − 0.2 times that. The gateway rounds up, so up to four requests are never parted by it.
const SPARED: u32 = 20;

/// Up to so many requests about orders go together: as many as the database of orders takes in one call. Up to there each one more makes a batch larger,
/// and what a batch costs is shared by more.
const TOGETHER: u32 = MAX_JOINED as u32;

/// A gateway.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// What it is for, for the head of the file.
    pub(crate) title: String,
    /// Where it listens.
    pub(crate) bind: String,
    /// Where it shows how it is, to operators.
    pub(crate) statistics: String,
    /// Where people find the page, which does not go through here.
    pub(crate) page: Option<String>,
    /// The instances of orders, stock and payment.
    pub(crate) services: [Instances; 3],
    /// Connections from clients.
    pub(crate) connections: u32,
    /// Requests that one instance is given at a time; more wait in the gateway.
    pub(crate) in_instance: u32,
    /// Requests that wait for one service before more are turned away.
    pub(crate) in_queue: u32,
    /// How long they wait.
    pub(crate) queue_patience: Duration,
    /// How long an instance may take to answer.
    pub(crate) patience: Duration,
    /// As long as so many requests about orders are under way, or fewer, all go to one instance. 0: never.
    pub(crate) together: u32,
}

impl Gateway {
    /// A gateway that listens at `bind` and shows how it is at `statistics`.
    pub(crate) fn new(title: String, bind: String, statistics: String, services: [Instances; 3]) -> Self {
        Self {
            title,
            bind,
            statistics,
            page: None,
            services,
            connections: 20_000,
            in_instance: 1_000,
            in_queue: 2_000,
            queue_patience: Duration::from_secs(2),
            patience: Duration::from_secs(30),
            together: TOGETHER,
        }
    }
}

/// A deployment of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// One instance and one database a service: for trying it out.
    Small,
    /// Two instances a service, each database with two replicas under Sentinel.
    Default,
    /// Four order instances, two of the others; a cluster of three brokers.
    Medium,
    /// Eight order instances, four of the others; a cluster of three brokers.
    Large,
}

impl Profile {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Small, Self::Default, Self::Medium, Self::Large];

    /// Its name, in file names too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Default => "default",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// How many instances of a service.
    pub(crate) fn instances(self, service: Service) -> u32 {
        match (self, service) {
            (Self::Small, _) => 1,
            (Self::Default, _) | (Self::Medium, Service::Stock | Service::Payment) => 2,
            (Self::Medium, Service::Orders) | (Self::Large, Service::Stock | Service::Payment) => 4,
            (Self::Large, Service::Orders) => 8,
        }
    }

    /// The gateway of a deployment in containers.
    pub(crate) fn gateway(self) -> Gateway {
        let named = |service: Service| Instances::Named {
            host: program(service),
            port: PORT_IN_CONTAINER,
            most: self.instances(service),
        };
        let title = format!("The gateway of deploy/compose/{}.yml.", self.name());
        let gateway = Gateway::new(title, "*:8000".to_owned(), "*:8404".to_owned(), Service::ALL.map(named));
        Gateway { page: Some(format!("http://127.0.0.1:{PAGE_PORT}/")), ..gateway }
    }
}

/// Where a service listens in a container of its own.
pub(crate) const PORT_IN_CONTAINER: u16 = 8001;

/// The word after `settle` that starts a service; also its name among containers.
pub(crate) fn program(service: Service) -> &'static str {
    match service {
        Service::Orders => "order",
        Service::Stock => "stock",
        Service::Payment => "payment",
    }
}

impl Gateway {
    /// Connections from the gateway to itself: changes under way at a time.
    fn within(&self) -> u32 {
        self.connections / 4
    }

    /// Whether there is a choice to send few requests about orders to one instance.
    fn has_together(&self) -> bool {
        let [orders, _, _] = &self.services;
        self.together > 0 && orders.most() > 1
    }

    /// HAProxy's configuration.
    pub(crate) fn configuration(&self) -> String {
        let mut text = String::new();
        let resolved = self.services.iter().any(|instances| matches!(instances, Instances::Named { .. }));
        // Writing to a String cannot fail.
        _ = write!(text, "{}", head(self));
        if resolved {
            text.push_str(RESOLVERS);
        }
        text.push_str(&frontend(self));
        for (service, instances) in Service::ALL.into_iter().zip(&self.services) {
            if service == Service::Orders && self.has_together() {
                text.push_str(&backend(self, TOGETHER_BACKEND, &one_after_another(), instances));
            }
            let rule = if service == Service::Orders { by_order(instances.most()) } else { BY_LOAD.to_owned() };
            let rule = rule + &whether_it_answers(service);
            text.push_str(&backend(self, service.section(), &rule, instances));
        }
        text
    }
}

fn head(gateway: &Gateway) -> String {
    format!(
        "# {title} Generated by `settle config haproxy`: change crates/settle/src/gateway, not this file.

global
    log stdout format raw local0 notice
    maxconn {connections}
    # Requests have no body worth the name; a smaller buffer lets more connections be.
    tune.bufsize 16384

defaults
    log global
    mode http
    option httplog
    option dontlognull
    # What went well is counted by the services.
    option dontlog-normal
    timeout connect 1s
    timeout client 60s
    # The head of a request must come within 10 s, the next request within 60 s (a service closes after 75 s).
    timeout http-request 10s
    timeout http-keep-alive 60s
    # A checkout queues for 2 s at most in its service and is decided, or in doubt, long before this; batch_init waits for a few seconds.
    timeout server {patience}ms
    timeout queue {queue_patience}ms
    timeout check 1s
    # Connections to instances are kept and shared. The first request of a client goes on a connection known to be good.
    http-reuse safe
    # Another instance is tried if this one cannot be connected to. A read is tried again even if the instance went away in the middle;
    # a change never is once it may have been begun (disable-l7-retry below).
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
",
        title = gateway.title,
        connections = gateway.connections + gateway.within(),
        patience = gateway.patience.as_millis(),
        queue_patience = gateway.queue_patience.as_millis(),
    )
}

/// Containers find each other by name; instances come and go.
const RESOLVERS: &str = "
resolvers containers
    parse-resolv-conf
    hold valid 5s
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
";

/// The backend of those requests about orders that go together.
const TOGETHER_BACKEND: &str = "orders-together";

/// What a frontend finds out about each request: whether it may be tried again.
fn findings(gateway: &Gateway) -> String {
    let mut text = "    http-request set-var(txn.reads) bool(true) if METH_GET
    http-request set-var(txn.reads) bool(false) unless METH_GET
    http-request disable-l7-retry unless METH_GET
"
    .to_owned();
    if gateway.has_together() {
        _ = writeln!(text, "    http-request set-var(txn.together) be_conn({TOGETHER_BACKEND})");
    }
    text
}

/// Which service a request is for.
fn routes(gateway: &Gateway) -> String {
    let mut text = "    use_backend stock if { path,field(2,/) -m str stock }
    use_backend payment if { path,field(2,/) -m str payment }
    acl orders path,field(2,/) -m str orders health metrics openapi.json api
"
    .to_owned();
    if gateway.has_together() {
        let most = gateway.together;
        _ = write!(
            text,
            "    # Few go to one instance: what it writes at the same time is one batch.
    acl few be_conn(orders),add(txn.together) lt {most}
    use_backend {TOGETHER_BACKEND} if orders few {{ nbsrv({TOGETHER_BACKEND}) gt 0 }}
"
        );
    }
    text.push_str("    use_backend orders if orders\n    default_backend nothing\n");
    text
}

fn frontend(gateway: &Gateway) -> String {
    format!(
        "
frontend shop
    bind {bind}
    maxconn {connections}
{findings}    # What may not be done twice comes back as the first request of a connection: the gateway says nothing about one that fails on a connection which was used
    # before, and clients send that again by themselves. A checkout may be asked for again.
    use_backend changes if !METH_GET !{{ path,field(3,/) -m str checkout }}
{routes}
frontend changes
    bind {changes} accept-proxy
    maxconn {within}
{findings}{routes}
backend changes
    option http-server-close
    # The instance's answer, or that of the frontend above, comes before this.
    timeout server {patience}ms
{errors}    server changes {changes} send-proxy-v2

frontend operators
    bind {statistics}
    maxconn 100
    http-request use-service prometheus-exporter if {{ path /metrics }}
    stats enable
    stats uri /

backend nothing
    http-request return status 404 content-type application/problem+json string '{no_such}'
",
        bind = gateway.bind,
        connections = gateway.connections,
        within = gateway.within(),
        statistics = gateway.statistics,
        // A socket that is no file, of this machine or container alone.
        changes = format_args!("abns@settle-gateway-{}", gateway.bind.replace(['*', ':'], "-")),
        findings = findings(gateway),
        routes = routes(gateway),
        errors = errors("changes"),
        patience = (2 * (gateway.patience + gateway.queue_patience)).as_millis(),
        no_such = problem(404, "no_such_route", &no_such_route(gateway.page.as_deref())),
    )
}

/// Somebody who opens the gateway in a browser looks for the page.
fn no_such_route(page: Option<&str>) -> String {
    let page = page.map(|page| format!("; the page is at {page} on the machine of the gateway")).unwrap_or_default();
    format!("paths begin with /orders, /stock, /payment or /health{page}")
}

/// Where it does not matter which instance is asked.
const BY_LOAD: &str = "    balance leastconn\n";

/// All to the first that can serve checkouts. It must be asked for that: one that cannot refuses quickly, and would draw everybody in.
fn one_after_another() -> String {
    format!(
        "    balance first
    # Whether it reaches its database, the broker and a stock and a payment instance. It says so within a second; if none does, none is ready here.
    timeout check {ANSWERED}ms
    option httpchk
    http-check send meth GET uri /health/deep
"
    )
}

/// How long an instance may take to say whether it can serve checkouts, in milliseconds: it waits for a second for the others.
const ANSWERED: u32 = 1_300;

/// The check of an instance's health.
fn whether_it_answers(service: Service) -> String {
    format!("    option httpchk\n    http-check send meth GET uri /{}/health\n", service.section())
}

/// What is about one order goes to one of so many instances.
fn by_order(instances: u32) -> String {
    let mut text = "    # The order's id, however it is written; a number at random for what is about no order.
    http-request set-var(txn.order) path,field(4,/),url_dec,lower if { path,field(3,/) -m str find addItem checkout }
    http-request set-var(txn.order) rand unless { var(txn.order) -m found }
    balance hash var(txn.order)
    hash-type consistent wt6 avalanche
"
    .to_owned();
    if instances > 1 {
        // HAProxy takes no larger one.
        let factor = instances.saturating_mul(100).min(65_535) - SPARED;
        _ = write!(
            text,
            "    # No instance has more than nearly all of what is under way: one that is slow or frozen does not draw everybody in. Nearly, so that\n    \
             # requests for one order stay together in an idle system, where two are all.\n    hash-balance-factor {factor}\n"
        );
    }
    text
}

/// What the gateway says if no answer comes from the servers of this backend.
fn errors(name: &str) -> String {
    // What a change and a read are told when an instance went away with them.
    let lost = format!(
        "{{\"type\":\"urn:settle:problem:{code}\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\"detail\":\"{detail}\"}}",
        code = either("service_unavailable", "in_doubt"),
        title = either("service unavailable", "in doubt"),
        status = either("424", "504"),
        detail = either(
            "no instance answered this read in time",
            "the instance that had this request went away or took too long: it may have been done. Look again; a checkout can be asked for again, a paid order is not charged twice",
        ),
    );
    let unsent = format!(
        "{{\"type\":\"urn:settle:problem:{code}\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\"detail\":\"{detail}\"}}",
        code = some_ready(name, "overloaded", "service_unavailable"),
        title = some_ready(name, "overloaded", "service unavailable"),
        status = some_ready(name, "429", "424"),
        detail = some_ready(
            name,
            "no instance could take this request in time; nothing was done: try again later",
            "no instance is ready; nothing was done: try again later",
        ),
    );
    format!(
        "    # What an instance says is passed on as it is; what the gateway says itself is put in the contract's words.
    http-response set-var(txn.answered) bool(true)
    http-error status 503 content-type application/problem+json lf-string '{unsent}'
    http-error status 500 content-type application/problem+json lf-string '{lost}'
    http-error status 502 content-type application/problem+json lf-string '{lost}'
    http-error status 504 content-type application/problem+json lf-string '{lost}'
    http-after-response set-status 429 if {{ status 503 }} !{{ var(txn.answered) -m found }} {{ nbsrv({name}) gt 0 }}
    http-after-response set-status 424 if {{ status 503 }} !{{ var(txn.answered) -m found }}
    http-after-response set-status 424 if {{ status 500 502 504 }} !{{ var(txn.answered) -m found }} {{ var(txn.reads) -m bool }}
    http-after-response set-status 504 if {{ status 500 502 }} !{{ var(txn.answered) -m found }}
    # Nothing was done, or nothing was to be done: to be tried again.
    http-after-response set-header retry-after 1 if {{ status 424 429 }} !{{ var(txn.answered) -m found }}
"
    )
}

fn backend(gateway: &Gateway, name: &str, rule: &str, instances: &Instances) -> String {
    let errors = errors(name);
    let full = problem(429, "overloaded", "too many requests wait; nothing was done: try again later");
    let (in_queue, in_instance) = (gateway.in_queue, gateway.in_instance);
    let mut text = format!(
        "
backend {name}
{rule}    # An instance that says it is not to be used is stopping: it gets nothing new, and finishes what it has (L7OKC). One that says nothing is dead.
    http-check expect status 200 error-status L7OKC
    http-request return status 429 content-type application/problem+json hdr retry-after 1 string '{full}' if {{ queue({name}) ge {in_queue} }}
{errors}    # Who is dead is passed over by each connection that fails, and a check comes at once; who is silent is dead after two checks, and what waits for it then is
    # ended at once.
    default-server check inter 500ms fastinter 50ms downinter 250ms fall 2 rise 1 on-marked-down shutdown-sessions maxconn {in_instance}
    default-server observe layer4 error-limit 1 on-error fastinter
"
    );
    match instances {
        Instances::At(addresses) => {
            for (instance, address) in addresses {
                _ = writeln!(text, "    server {instance} {address}");
            }
        }
        Instances::Named { host, port, most } => {
            _ = writeln!(
                text,
                "    server-template {host}- {most} {host}:{port} resolvers containers resolve-prefer ipv4 init-addr none"
            );
        }
    }
    text
}

/// The details of a problem, as `shop` gives them.
fn problem(status: u16, code: &str, detail: &str) -> String {
    let title = code.replace('_', " ");
    format!(
        "{{\"type\":\"urn:settle:problem:{code}\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\"detail\":\"{detail}\"}}"
    )
}

/// One text for a read, another for a change.
fn either(read: &str, change: &str) -> String {
    format!("%[var(txn.reads),iif(\"{read}\",\"{change}\")]")
}

/// One text if an instance is ready, another if none is.
fn some_ready(name: &str, ready: &str, none: &str) -> String {
    format!("%[nbsrv({name}),bool,iif(\"{ready}\",\"{none}\")]")
}
