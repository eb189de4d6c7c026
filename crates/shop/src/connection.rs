//! One client's connection: plain checkouts straight from the socket, everything else by hyper and the router.
//!
//! | what comes                                         | who answers                                               |
//! |----------------------------------------------------|-----------------------------------------------------------|
//! | `POST /orders/checkout/{id}` with nothing special  | [the one thread](crate::single)                             |
//! | the same for an order that is paid, or claimed     | the connection's own task                                 |
//! | anything else                                      | hyper, from that request to the end of the connection     |
//!
//! The checkout is the hot request. Waking a task on another thread for each answer costs as much as the answer itself: where checkouts have a thread of
//! their own, answers are written many at a time; where they have not, at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::http::StatusCode;
use ledger::EntityId;
use orchestrator::{Clock, Executed, Outcome, outcome_word};
use parking_lot::Mutex;
use rustix::net::sockopt::set_tcp_user_timeout;
use telemetry::traces::{Answered, Request, tracer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::checkout::CHECKOUT;
use crate::checkout_http::{PAID, Plan, failure, pay, pay_for, plan, turned_away};
use crate::flights::{Boarding, Landed, Pilot};
use crate::front::{CHECKOUT_ROUTE, Front, pattern};
use crate::guard::Peer;
use crate::http1::{self, Head};
use crate::orders::{OrderState, refusals};
use crate::rewound::{Rewound, serve_with_hyper};
use crate::server::Shop;
use crate::single::is_single;

/// How long a client may take for the next request's head, idle time included.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// How long a client may take nothing of the answers that are due to it, in milliseconds.
const ANSWER_PATIENCE_MS: u32 = 75_000;
/// How long a client is waited for when the server is stopping: for the rest of a half-sent request, or to take more of its answers.
pub(crate) const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ: usize = 4096;

/// Serves a connection until its client leaves, is idle or takes no answers for too long, or `stopping` becomes true; a request that has begun is answered.
pub async fn serve_connection(front: Front, stream: TcpStream, stopping: watch::Receiver<bool>) {
    let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
    // The system then ends the connection, whoever is writing to it.
    _ = set_tcp_user_timeout(&stream, ANSWER_PATIENCE_MS);
    let Some(shop) = front.shop().cloned() else { return serve_with_hyper(front, peer, stream, stopping).await };
    let (mut reading, writing) = stream.into_split();
    let line = Arc::new(Line { writing, shop, turn: Mutex::new(Turn::Free), stopping: stopping.clone() });
    let mut read = Vec::with_capacity(READ);
    // A connection that breaks ends; there is nobody to tell.
    if let Ok(End::Other) = checkouts(&line, &mut reading, &mut read, stopping.clone()).await {
        serve_with_hyper(front, peer, Rewound::new(line, read), stopping).await;
    }
}

/// Why no more checkouts are read from a line.
enum End {
    /// It is closed, or is to be.
    Closed,
    /// What comes is no plain checkout.
    Other,
}

/// A connection, and whose turn it is to write to it.
pub(crate) struct Line {
    writing: OwnedWriteHalf,
    shop: Shop,
    turn: Mutex<Turn>,
    stopping: watch::Receiver<bool>,
}

enum Turn {
    /// Nobody waits for an answer.
    Free,
    /// A checkout is under way. `reader` is woken when something is left to it; if it is `eager`, when it is its turn too.
    Answering { reader: Option<Waker>, eager: bool },
    /// Something that the reader has to do.
    Left(Work),
}

/// What is left to the connection's own task.
enum Work {
    /// The socket took no more: write the rest.
    Write(Vec<u8>),
    /// The checkout ran into another, or into a change of its order: see it through.
    SeeThrough { order: EntityId, pilot: Option<Pilot>, started: u64, traced: Option<Arc<Request>> },
}

async fn checkouts(
    line: &Arc<Line>,
    reading: &mut OwnedReadHalf,
    read: &mut Vec<u8>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<End> {
    let mut stopped = pin!(async move { _ = stopping.wait_for(|stop| *stop).await });
    let (mut last, mut stop) = (Instant::now(), false);
    let mut patience = pin!(sleep_until(last + HEAD_PATIENCE));
    loop {
        match http1::head(read) {
            Head::Checkout { order, bytes } => {
                line.free().await?;
                read.drain(..bytes);
                line.hand_over(order);
                last = Instant::now();
            }
            Head::Incomplete => {
                let more = poll_fn(|cx| {
                    // A busy client would never let the server stop: what was read is served, and no more is read.
                    if !stop && let Poll::Ready(got) = poll_read(reading, cx, read) {
                        return Poll::Ready(got.map(|bytes| if bytes == 0 { Next::End } else { Next::Bytes }));
                    }
                    // Whoever is to end waits for its turn to do so; else nobody would be woken when the answer is out.
                    stop = stop || stopped.as_mut().poll(cx).is_ready();
                    let turn = line.poll_turn(cx, stop);
                    // The timer is moved only when it rings: that is cheaper than for every request.
                    while patience.as_mut().poll(cx).is_ready() {
                        let now = Instant::now();
                        let late = now >= last + HEAD_PATIENCE;
                        if late && turn.is_ready() {
                            stop = true;
                        }
                        patience.as_mut().reset(if late { now } else { last } + HEAD_PATIENCE);
                    }
                    match turn {
                        Poll::Ready(Some(work)) => Poll::Ready(Ok(Next::Work(work))),
                        Poll::Ready(None) if stop => Poll::Ready(Ok(Next::End)),
                        Poll::Ready(None) | Poll::Pending => Poll::Pending,
                    }
                });
                match more.await? {
                    Next::Bytes => {}
                    Next::Work(work) => line.carry_out(work).await?,
                    Next::End => {
                        line.free().await?;
                        return Ok(End::Closed);
                    }
                }
            }
            Head::Other => {
                line.free().await?;
                return Ok(End::Other);
            }
        }
    }
}

/// What a reader waited for.
enum Next {
    Bytes,
    Work(Work),
    End,
}

/// Reads what has come. A read that did not fill its room has taken all of it: the socket is not asked again until there is news, which saves a system
/// call for every request.
fn poll_read(reading: &mut OwnedReadHalf, cx: &mut Context<'_>, read: &mut Vec<u8>) -> Poll<io::Result<usize>> {
    read.reserve(READ);
    pin!(reading.read_buf(read)).poll(cx)
}

impl Line {
    /// The socket, to be written to. Whoever reads from it has the other half of it, or is the only one.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.writing.as_ref()
    }

    /// Ready with `None` when no answer is due, with work if some is left to the reader.
    fn poll_turn(&self, cx: &mut Context<'_>, wants_turn: bool) -> Poll<Option<Work>> {
        let mut turn = self.turn.lock();
        match &mut *turn {
            Turn::Free => Poll::Ready(None),
            Turn::Answering { reader, eager } => {
                if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    *reader = Some(cx.waker().clone());
                }
                *eager |= wants_turn;
                Poll::Pending
            }
            Turn::Left(_) => match std::mem::replace(&mut *turn, Turn::answering()) {
                Turn::Left(work) => Poll::Ready(Some(work)),
                Turn::Free | Turn::Answering { .. } => Poll::Ready(None),
            },
        }
    }

    /// Waits until every request so far is answered; does what is left to the reader.
    async fn free(&self) -> io::Result<()> {
        while let Some(work) = poll_fn(|cx| self.poll_turn(cx, true)).await {
            self.carry_out(work).await?;
        }
        Ok(())
    }

    /// The turn is the reader's own.
    async fn carry_out(&self, work: Work) -> io::Result<()> {
        match work {
            Work::Write(rest) => self.write_all(&rest).await?,
            Work::SeeThrough { order, pilot, started, traced } => {
                let (orders, text) = (self.shop.order_service(), order.to_string());
                let paying = async {
                    match pilot {
                        Some(pilot) => {
                            let landed = pay(orders, order, &text).await;
                            pilot.land(&landed);
                            landed
                        }
                        None => pay_for(orders, order, &text).await,
                    }
                };
                let landed = match &traced {
                    Some(request) => request.scope().of(paying).await,
                    None => paying.await,
                };
                let answer = self.answer(landed, started, traced.as_deref().map(|request| (request, order)));
                self.write_all(&answer).await?;
            }
        }
        *self.turn.lock() = Turn::Free;
        Ok(())
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.room().await?;
            match self.writing.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the socket takes more. A client that takes nothing holds no stop up.
    async fn room(&self) -> io::Result<()> {
        let mut stopping = self.stopping.clone();
        let given_up = async {
            _ = stopping.wait_for(|stop| *stop).await;
            sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            room = self.writing.writable() => room,
            () = given_up => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Has a checkout begun by the one thread.
    fn hand_over(self: &Arc<Self>, order: EntityId) {
        let started = self.shop.clock().micros();
        *self.turn.lock() = Turn::answering();
        let line = Arc::clone(self);
        self.shop.single().run_between(move || line.begin(order, started));
    }

    /// Begins a checkout. If it is not the simple one of an open order, it is left to the reader.
    fn begin(self: Arc<Self>, order: EntityId, started: u64) {
        let traced = tracer().map(|tracer| Request::begin(tracer, None, Some(order)));
        let boarding = self.shop.order_service().flights().board(order);
        let Boarding::Pilot(pilot) = boarding else {
            return self.pass(Turn::Left(Work::SeeThrough { order, pilot: None, started, traced }));
        };
        let scope = traced.as_ref().map(Request::scope);
        let mut flight = Flight { line: Arc::clone(&self), order, total_cost: 0, pilot: Some(pilot), started, traced };
        // What is read here need not be durable: the claim names its version, and is flushed behind it.
        let planned = self.shop.orders().read(|book| {
            let found = book.order(order).filter(|found| found.state == OrderState::Open && !found.lines.is_empty());
            found.map(|found| plan(order, found))
        });
        if let Ok(Some(Ok(Plan { steps, claim, total_cost }))) = planned {
            flight.total_cost = total_cost;
            let done = Box::new(move |executed| flight.land(executed));
            let execute = || self.shop.orchestrator().engine().execute(CHECKOUT, steps, claim, done);
            match scope {
                Some(scope) => scope.within(execute),
                None => execute(),
            }
        }
    }

    fn answer(&self, landed: Landed, started: u64, traced: Option<(&Request, EntityId)>) -> Vec<u8> {
        let (status, answer) = match landed {
            Ok(()) => (StatusCode::OK, http1::text(PAID)),
            Err(problem) => (problem.status(), http1::problem(problem)),
        };
        let seconds = self.shop.count(CHECKOUT_ROUTE, status, started);
        if let Some((request, order)) = traced {
            let path = format_args!("{CHECKOUT_ROUTE}{order}");
            let kept = request.answered(Answered {
                method: "POST",
                route: pattern(CHECKOUT_ROUTE),
                path: &path,
                status: status.as_u16(),
            });
            if let Some(trace) = kept {
                self.shop.exemplify(CHECKOUT_ROUTE, seconds, trace);
            }
        }
        answer
    }

    /// Has an answer written: soon, with others, if this thread does nothing but checkouts.
    fn reply(self: Arc<Self>, answer: Vec<u8>) {
        if is_single() {
            let shop = self.shop.clone();
            let enough = OUTBOX.with_borrow_mut(|outbox| {
                outbox.push((self, answer));
                outbox.len() >= WORTH_SENDING
            });
            if enough {
                send_replies(shop.runtime());
            }
        } else {
            self.write(answer);
        }
    }

    /// Writes an answer from whatever thread this is, without waiting.
    fn write(&self, answer: Vec<u8>) {
        match self.writing.try_write(&answer) {
            Ok(written) if written == answer.len() => self.pass(Turn::Free),
            Ok(written) => self.pass(Turn::Left(Work::Write(answer.get(written..).unwrap_or_default().to_vec()))),
            // Whatever it is, the reader meets it too.
            Err(_) => self.pass(Turn::Left(Work::Write(answer))),
        }
    }

    fn pass(&self, next: Turn) {
        let left = matches!(next, Turn::Left(_));
        let before = std::mem::replace(&mut *self.turn.lock(), next);
        if let Turn::Answering { reader: Some(reader), eager } = before
            && (eager || left)
        {
            reader.wake();
        }
    }
}

thread_local! {
    /// Answers of the one thread that are not written yet.
    static OUTBOX: RefCell<Vec<(Arc<Line>, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// So many answers are worth waking a thread for. More would have the other processors wait for work.
const WORTH_SENDING: usize = 8;

/// Has the runtime write the answers of the one thread.
pub(crate) fn send_replies(runtime: &tokio::runtime::Handle) {
    let replies = OUTBOX.with_borrow_mut(|outbox| std::mem::replace(outbox, Vec::with_capacity(WORTH_SENDING)));
    if !replies.is_empty() {
        runtime.spawn(async move { replies.into_iter().for_each(|(line, answer)| line.write(answer)) });
    }
}

impl Turn {
    fn answering() -> Self {
        Self::Answering { reader: None, eager: false }
    }
}

/// A checkout under way.
struct Flight {
    line: Arc<Line>,
    order: EntityId,
    total_cost: i64,
    /// Taken when it lands.
    pilot: Option<Pilot>,
    started: u64,
    traced: Option<Arc<Request>>,
}

impl Flight {
    fn land(mut self, executed: Executed) {
        if let Ok((transaction, outcome)) = &executed {
            tracing::debug!(order = %self.order, %transaction, outcome = outcome_word(outcome), "checked out");
        }
        let landed = match executed {
            Ok((_, Outcome::Committed)) => Ok(()),
            // Another checkout was faster, or the order changed: look again.
            Ok((_, Outcome::Conflict(refusal))) if refusal.code != refusals::ORDER_NOT_FOUND => return,
            Ok((transaction, outcome)) => Err(failure(&outcome, self.total_cost, &self.order.to_string(), transaction)),
            Err(away) => Err(turned_away(away)),
        };
        if let Some(pilot) = self.pilot.take() {
            pilot.land(&landed);
        }
        let traced = self.traced.as_deref().map(|request| (request, self.order));
        let answer = self.line.answer(landed, self.started, traced);
        Arc::clone(&self.line).reply(answer);
    }
}

impl Drop for Flight {
    /// One that has not landed is left to the line's reader.
    fn drop(&mut self) {
        if let Some(pilot) = self.pilot.take() {
            let (order, started, traced) = (self.order, self.started, self.traced.take());
            let work = Work::SeeThrough { order, pilot: Some(pilot), started, traced };
            self.line.pass(Turn::Left(work));
        }
    }
}
