//! The figures, and what is found, told and done in each tab.

use e2e::Server;

use crate::Visit;

#[test]
fn the_overview_says_first_whether_all_is_well_and_then_how_it_goes() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    for _ in 0..20 {
        let order = visit.order(100);
        visit.client.done(&format!("/orders/checkout/{order}"));
    }
    let page = &mut visit.page;
    page.wait_for_text("#verdict-text", "0 stuck");
    page.wait_for("/[1-9]/.test(document.querySelector('.tile dd').innerText)");
    let shown = page.text("#panel");
    for expected in ["Committed a second", "p99", "2PC", "shop\nshop", "UP", "orders", "closed", "shop started"] {
        assert!(
            shown.to_lowercase().contains(&expected.to_lowercase().replace("shop\nshop", "shop shop")),
            "{expected}: {shown}"
        );
    }
    assert_eq!(
        page.eval("document.querySelectorAll('figure.chart svg path.line, figure.chart svg path.area').length"),
        12
    );
    page.wait_for("document.querySelector('.area.tone-good').getAttribute('d').length > 20");
    // A few that wait move no percentile: the slowest is drawn, and told.
    page.wait_for("document.querySelector('.line.tone-slowest').getAttribute('d').length > 5");
    page.wait_for("/p99.9 .+ slowest ≤ [\\d.]+ m?s$/.test([...document.querySelectorAll('.tile')].find((it) => it.innerText.startsWith('p99')).innerText)");
    // The undone have a colour of their own, and what happened stands at the edge.
    assert!(page.text(".legend").to_lowercase().contains("undone"), "{}", page.text(".legend"));
    page.wait_for("document.querySelector('.mark')");
    assert!(
        page.eval(
            "Math.max(...[...document.querySelectorAll('.mark')].map((it) => it.getBoundingClientRect().height))"
        )
        .as_f64()
        .unwrap()
            < 10.0
    );
    let axis = page.eval("[...document.querySelector('figure.chart svg').querySelectorAll('.axis')].map((it) => it.textContent).join(' ')");
    assert!(axis.as_str().unwrap().ends_with("now −1 min"), "it begins with the first point: {axis}");
    // Each chart says in words what it shows.
    let told = page.eval("[...document.querySelectorAll('figure.chart > .unseen')].map((it) => it.textContent)");
    assert!(told.as_array().unwrap().iter().all(|it| it.as_str().unwrap().starts_with("Now: ")), "{told}");
    assert!(page.eval("document.title").as_str().unwrap().ends_with("Overview · Settle"));
    assert_eq!(page.eval("document.getElementById('tab-chaos').hidden"), true, "there is no chaos here");
    page.is_sound();
}

#[test]
fn transactions_are_found_and_one_is_told_as_a_timeline() {
    let mut visit = Visit::to(e2e::Server::start(&["--protocol", "2pc"]), "#/transactions");
    visit.page.wait_for_text("#panel [role=status]", "None.");
    let (paid, refused) = (visit.order(100), visit.order(1));
    visit.client.done(&format!("/orders/checkout/{paid}"));
    assert_eq!(visit.client.check_out(&refused).status, 409);
    let why = format!("user {} has not enough credit", visit.client.order(&refused).user);
    let page = &mut visit.page;
    page.wait_for("document.querySelectorAll('tbody tr').length === 2");
    page.write("#order", &refused);
    page.wait_for("document.querySelectorAll('tbody tr').length === 1");
    page.wait_for_text("tbody", "abort");
    page.choose("#state", "stuck");
    page.wait_for_text("#panel [role=status]", "None.");
    page.click("form.filters button");
    page.wait_for("document.querySelectorAll('tbody tr').length === 2");
    page.choose("#min_age_ms", "3600000");
    page.wait_for_text("#panel [role=status]", "None.");
    page.click("form.filters button");
    page.write("#order", &refused);
    page.wait_for("document.querySelectorAll('tbody tr').length === 1");
    page.click("tbody th a");
    page.wait_for("location.hash.startsWith('#/transactions/')");
    page.wait_for_text(".timeline", "finished");
    let told = page.text(".timeline");
    let fate = "abort: if it held anything, that is released";
    for expected in
        ["staged in the log", "of stock, payment", "payment refused", &why, "decided: abort", fate, "finished"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let deep = page.eval("location.href").as_str().unwrap().to_owned();
    page.eval("history.back()");
    page.wait_for("document.querySelector('form.filters')");
    assert_eq!(page.eval("document.getElementById('order').value"), refused.as_str(), "filters are kept");
    page.go("about:blank");
    page.go(&deep);
    page.wait_for_text(".timeline", "decided: abort");
    page.press("Escape");
    page.wait_for("location.hash === '#/transactions'");
    page.is_sound();
}

#[test]
fn a_transaction_is_looked_up_by_its_id_or_by_that_of_its_order() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/transactions");
    let (paid, twice) = (visit.order(100), visit.order(1));
    visit.client.done(&format!("/orders/checkout/{paid}"));
    for _ in 0..2 {
        assert_eq!(visit.client.check_out(&twice).status, 409);
    }
    let page = &mut visit.page;
    page.wait_for("document.querySelectorAll('tbody tr').length === 3");
    let of_paid = format!(
        "document.querySelector('tbody a[href=\"#/shop/order/{paid}\"]').closest('tr').querySelector('a').title"
    );
    let id = page.eval(&of_paid).as_str().unwrap().to_owned();
    for asked in [id.clone(), format!(" `{}`", id.to_uppercase()), paid] {
        page.write("#look-up", &asked);
        page.press("Enter");
        page.wait_for(&format!("location.hash === '#/transactions/{id}'"));
        page.wait_for_text(".timeline", "decided: commit");
        page.press("Escape");
        page.wait_for("document.getElementById('look-up')");
    }
    page.write("#look-up", &twice);
    page.press("Enter");
    page.wait_for("document.querySelectorAll('tbody tr').length === 2");
    assert_eq!(page.eval("document.getElementById('order').value"), twice.as_str());
    for (nonsense, said) in [("what?", "That is no id."), ("4711", "No transaction of an order 4711 is remembered")] {
        page.write("#look-up", nonsense);
        page.press("Enter");
        page.wait_for_text("#looked-up", said);
    }
    page.is_sound();
    let nobody = "01a1fb84-5c00-7a31-9d52-0c6f1e2b3a44";
    page.write("#look-up", nobody);
    page.press("Enter");
    page.wait_for_text("#panel .notice", &format!("there is no transaction `{nobody}`"));
    let troubles = page.troubles();
    assert!(troubles.iter().all(|it| it.contains(nobody)), "{troubles:?}");
}

#[test]
fn a_telephone_shows_what_was_decided_beside_each_transaction() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/transactions");
    let paid = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{paid}"));
    let page = &mut visit.page;
    page.resize(390, 800);
    page.wait_for("document.querySelectorAll('tbody tr').length === 1");
    // In a block, behind the head of its column.
    let told = "getComputedStyle(document.querySelector('tbody td:nth-child(3)'), '::before').content";
    assert_eq!(page.eval(told), "\"Decision\"");
    let decided = "document.querySelector('tbody td:nth-child(3)').getBoundingClientRect().right";
    let right = page.eval(decided).as_f64().unwrap();
    assert!(right < 390.0, "{right}");
    let title = page.eval("document.querySelector('tbody th a').title");
    assert_eq!(title.as_str().unwrap().len(), 36, "all of the id: {title}");
    page.is_sound();
}

#[test]
fn a_telephone_shows_how_many_are_stuck_and_since_when_an_instance_is_up() {
    let mut visit = Visit::with_chaos("");
    visit.stuck();
    let page = &mut visit.page;
    page.resize(390, 800);
    page.wait_for_text("#stuck-count", "1");
    let right = page.eval("document.getElementById('stuck-count').getBoundingClientRect().right").as_f64().unwrap();
    assert!(right < 390.0, "{right}");
    page.eval(
        "(() => { const parse = JSON.parse; JSON.parse = (text) => { const it = parse(text); it?.instances?.forEach((one) => { one.since = it.at - 68_000; }); return it; }; })()",
    );
    page.wait_for_text("tbody td:nth-child(4)", "1 min 8 s");
    let lines = "(() => { const range = document.createRange(); range.selectNodeContents(document.querySelector('tbody td:nth-child(4)')); return range.getClientRects().length; })()";
    assert_eq!(page.eval(lines), 1);
    page.is_sound();
}

#[test]
fn a_transaction_links_to_its_trace_where_that_was_kept() {
    const SHOWN_AT: &str = "http://127.0.0.1:16686/trace/{trace_id}?embed=1";
    const FACT: &str =
        "[...document.querySelectorAll('dl.facts > div')].find((it) => it.innerText.startsWith('Trace'))";
    let traced = |ratio| {
        Server::start(&["--otlp-endpoint", "http://127.0.0.1:9", "--trace-url", SHOWN_AT, "--trace-ratio", ratio])
    };
    let link = |visit: &mut Visit, id: &str| {
        visit.go(&format!("#/transactions/{id}"));
        visit.page.wait_for_text(".timeline", "finished");
        visit.page.eval(&format!("{FACT}?.querySelector('a').href ?? null"))
    };
    let transaction_of = |visit: &mut Visit, order: &str| {
        let found = visit.client.get(&format!("/admin/transactions?order={order}")).json();
        found[0]["id"].as_str().unwrap().to_owned()
    };
    let shown = |trace: &str| SHOWN_AT.replace("{trace_id}", trace);

    let mut visit = Visit::to(traced("1"), "");
    let (own, clients) = (visit.order(100), visit.order(100));
    visit.client.done(&format!("/orders/checkout/{own}"));
    let own = transaction_of(&mut visit, &own);
    assert_eq!(link(&mut visit, &own), shown(&own.replace('-', "")));
    assert_eq!(visit.page.eval(&format!("{FACT}.innerText")), "Trace\nopen");
    // One that goes on in its client's trace is found there.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let checkout = format!("/orders/checkout/{clients}");
    assert_eq!(visit.client.send("POST", &checkout, &[("traceparent", parent.as_str())], "").status, 200);
    let clients = transaction_of(&mut visit, &clients);
    assert_eq!(link(&mut visit, &clients), shown(trace));
    // An earlier process may have kept it, or not.
    let Visit { page, client, mut server } = visit;
    server.kill();
    let server = server.restart();
    drop((page, client));
    let mut visit = Visit::to(server, "");
    assert_eq!(link(&mut visit, &own), shown(&own.replace('-', "")));
    assert_eq!(visit.page.eval(&format!("{FACT}.innerText")), "Trace\nif it was kept: open");
    visit.page.is_sound();

    let mut visit = Visit::to(traced("0"), "");
    let paid = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{paid}"));
    let id = transaction_of(&mut visit, &paid);
    assert_eq!(link(&mut visit, &id), serde_json::Value::Null);
    visit.page.is_sound();
}

#[test]
fn what_is_stuck_is_retried_or_settled_by_hand_and_both_stand_in_the_trail() {
    let mut visit = Visit::with_chaos("#/stuck");
    visit.page.wait_for_text("#panel", "Nothing is stuck.");
    let first = visit.stuck();
    let page = &mut visit.page;
    page.wait_for_text(".stuck-one", "payment does not acknowledge commit");
    page.wait_for_text("#stuck-count", "1");
    page.wait_for_text(".stuck-one", "number ");
    // What it does to the customer and his money stands beside it.
    let card = page.text(".stuck-one");
    let shown = visit.client.get("/admin/transactions?state=stuck").json()[0].clone();
    let (order, user) = (shown["order"].as_str().unwrap().to_owned(), shown["user"].as_str().unwrap().to_owned());
    for expected in [
        &format!("Order {order} of user {user}, decided commit"),
        "The customer was told that the order is paid.",
        &format!("Held at payment, and not captured yet: 30 from user {user}."),
    ] {
        assert!(card.contains(expected), "{expected}: {card}");
    }
    let page = &mut visit.page;
    for target in [format!("#/shop/order/{order}"), format!("#/shop/user/{user}")] {
        assert_eq!(
            page.eval(&format!("!!document.querySelector('.stuck-one a[href=\"{target}\"]')")),
            true,
            "{target}"
        );
    }
    // Nothing is done for somebody without a name, or with a name of nothing: it is asked for first.
    page.click("[data-act=retry]");
    page.wait_for_text("dialog[open]", "The trail keeps who");
    page.press("Escape");
    page.wait_for("!document.querySelector('dialog')");
    page.click("[data-act=retry]");
    page.write("#retry-operator", "  ");
    page.press("Enter");
    assert_eq!(page.eval("!!document.querySelector('dialog[open]')"), true, "not without a name");
    page.wait_for_text("#panel", "Operators have done nothing yet.");
    page.write("#retry-operator", "bob");
    page.press("Enter");
    page.wait_for_text(".outcome", "Sent again");
    page.wait_for_text("table", "bob");
    assert_eq!(page.eval("document.getElementById('trail-operator').value"), "bob");
    page.click("[data-act=resolve]");
    page.wait_for("document.querySelector('dialog[open]')");
    page.press("Escape");
    page.wait_for("!document.querySelector('dialog')");
    page.click("[data-act=resolve]");
    page.click("dialog button.danger");
    assert_eq!(page.eval("!!document.querySelector('dialog[open]')"), true, "not without a name and a reason");
    page.write("#resolve-operator", "ann");
    page.write("#resolve-reason", "ticket 4711");
    page.click("dialog button.danger");
    page.wait_for_text("#panel", "Nothing is stuck.");
    page.wait_for_text("#last-act", "Settled by hand. It is in the trail");
    page.wait_for_text("table", "ticket 4711");
    let trail = page.text("tbody");
    assert!(trail.contains("ann") && trail.contains("resolve step 1") && trail.contains("resolved"), "{trail}");
    page.is_sound();
    // The next one is mended, and tried again from its own page; the operator is remembered.
    let second = visit.stuck();
    visit.client.done("/payment/fault/clear");
    visit.go(&format!("#/transactions/{second}"));
    let page = &mut visit.page;
    page.click("[data-act=retry]");
    page.wait_for_text(".timeline", "finished");
    page.wait_for_text(".timeline", "tried again by an operator · by ann");
    let told = page.text(".timeline");
    assert!(told.contains("became a dead letter · attempt 3"), "{told}");
    visit.go(&format!("#/transactions/{first}"));
    let page = &mut visit.page;
    page.wait_for_text(".timeline", "settled by hand · by ann");
    page.is_sound();
}

#[test]
fn what_is_still_tried_again_is_not_called_nothing() {
    let mut visit = Visit::to(Server::start(&["--chaos", "--protocol", "2pc"]), "#/transactions");
    let other = visit.order(1);
    assert_eq!(visit.client.check_out(&other).status, 409);
    visit.page.wait_for("document.querySelectorAll('tbody tr').length === 1");
    visit.page.write("#order", &other);
    visit.go("#/stuck");
    visit.page.wait_for_text("#panel", "Nothing is stuck.");
    assert_eq!(visit.page.eval("document.getElementById('under-way').hidden"), true);
    visit.client.done("/payment/fault/set?point=before_commit&action=error");
    let order = visit.order(100);
    assert_eq!(visit.client.check_out(&order).status, 200);
    let page = &mut visit.page;
    page.wait_for_text("#under-way", "1 transaction is still settling: the decision stands");
    page.click("#under-way a");
    page.wait_for("location.hash === '#/transactions' && document.querySelectorAll('tbody tr').length === 1");
    assert_eq!(page.eval("document.getElementById('state').value"), "settling");
    page.wait_for_text("tbody", &order);
    visit.client.done("/payment/fault/clear");
    visit.go("#/stuck");
    visit.page.wait_for("document.getElementById('under-way').hidden && document.querySelector('.actions, #last-act')");
    visit.page.is_sound();
}

#[test]
fn what_may_still_be_held_for_a_customer_who_was_refused_is_said() {
    let mut visit = Visit::with_chaos("#/stuck");
    visit.client.done("/stock/fault/set?point=before_abort&action=error");
    let order = visit.order(1);
    assert_eq!(visit.client.check_out(&order).status, 409);
    let page = &mut visit.page;
    page.wait_for_text(".stuck-one", "decided abort");
    page.wait_for_text(".stuck-one", "The customer was told that it failed.");
    page.wait_for_text(".stuck-one", "What stock may hold for it is not released yet: at most 1 of item ");
}

#[test]
fn the_shop_shows_orders_users_and_items_and_takes_a_test_order() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/shop");
    let page = &mut visit.page;
    page.write("#test-credit", "12");
    page.write("#test-price", "4");
    page.write("#test-units", "3");
    page.click("#test-order button");
    page.wait_for("location.hash.startsWith('#/shop/order/')");
    page.wait_for_text("#found", "paid");
    page.wait_for_text("#life", "decided: commit");
    // It is looked at until it is settled, and what was done for it stays to be read.
    page.wait_for_text("#life", "finished: nothing is left to do");
    let steps = page.text(".steps");
    assert_eq!(steps.lines().filter(|line| line.contains("after ") && line.ends_with(" ms")).count(), 6, "{steps}");
    assert!(steps.contains("checkout after "), "{steps}");
    let order = page.eval("decodeURIComponent(location.hash.split('/').pop())").as_str().unwrap().to_owned();
    assert!(visit.client.order(&order).paid);
    let user = visit.client.order(&order).user;
    assert_eq!(visit.client.credit(&user), 0);
    let page = &mut visit.page;
    page.click("#found dl a");
    page.wait_for("location.hash.startsWith('#/shop/user/')");
    page.wait_for_text("#found", "Credit");
    page.is_sound();
    page.write("#find-item", "no-such-item");
    page.click("#find-item + button");
    page.wait_for_text("#found", "no item");
    page.write("#test-credit", "0");
    page.click("#test-order button");
    page.wait_for_text("#panel", "less credit");
    let troubles = page.troubles();
    let expected = |it: &String| it.contains("/stock/find/no-such-item") || it.contains("/orders/checkout/");
    assert!(!troubles.is_empty() && troubles.iter().all(expected), "only what was asked for: {troubles:?}");
}

#[test]
fn faults_are_set_watched_and_cleared() {
    let mut visit = Visit::with_chaos("#/chaos");
    let page = &mut visit.page;
    page.wait_for_text("#panel", "No fault is set.");
    let place = "document.querySelector('form#fault').getBoundingClientRect().top + scrollY";
    let before = page.eval(place);
    page.click("form#fault button.danger");
    page.wait_for_text("#faults", "Faults are injected: stock before prepare: fails");
    assert_eq!(page.eval(place), before, "a warning moves nothing from under the pointer");
    page.wait_for_text("tbody", "answer with an error");
    page.choose("#fault-service", "payment");
    page.choose("#fault-point", "before_prepare");
    page.choose("#fault-action", "delay");
    page.write("#fault-delay_ms", "250");
    page.write("#fault-percent", "20");
    page.write("#fault-times", "7");
    page.click("form#fault button.danger");
    page.wait_for_text("tbody", "wait 250 ms, in 20 % of cases, 7 more times");
    let rules = visit.client.get("/payment/fault/rules").json()["rules"].clone();
    assert_eq!((&rules["before_prepare"]["percent"], &rules["before_prepare"]["times"]), (&20.into(), &7.into()));
    let page = &mut visit.page;
    page.click("[data-act=clear]");
    page.wait_for("document.querySelector('tbody').children.length === 1");
    page.click("#clear-all");
    page.wait_for_text("#panel", "No fault is set.");
    // The effect is on the same page: a checkout that is slow, and one that is not.
    page.click("#panel .actions button:nth-child(2)");
    page.wait_for_text("tbody", "wait 300 ms");
    let order = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{order}"));
    visit.page.wait_for("/[23]\\d\\d ms/.test(document.querySelectorAll('figure.chart > .unseen')[1].textContent)");
    visit.page.is_sound();
}

#[test]
fn the_story_of_a_fault_is_told_from_its_begin_to_its_end() {
    let mut visit = Visit::with_chaos("");
    visit.stuck();
    let page = &mut visit.page;
    page.wait_for_text("#faults", "Faults are injected: payment before commit: fails");
    page.wait_for_text(".news", "faults set: payment before commit: fails");
    page.wait_for_text(".news", "1 transaction became stuck");
    page.wait_for("document.querySelectorAll('table')[2].querySelector('tr:first-child .number .badge')");
    visit.client.done("/payment/fault/clear");
    let page = &mut visit.page;
    page.wait_for_text(".news", "faults cleared: payment before commit: fails");
    page.wait_for("document.getElementById('faults').hidden");
    page.wait_for_text(".news", "nothing is stuck any more; 1 transaction was");
    let links =
        page.eval("[...document.querySelectorAll('.news a')].map((it) => `${it.innerText.split(' ')[0]} ${it.hash}`)");
    for expected in ["faults #/chaos", "1 #/stuck", "nothing #/stuck"] {
        assert!(links.as_array().unwrap().contains(&expected.into()), "{expected}: {links}");
    }
    // One that only slows checkouts down is seen where it is set.
    visit.go("#/chaos");
    visit.page.click("#panel .actions button");
    visit.page.wait_for_text("tbody", "in 20 % of cases");
    for _ in 0..40 {
        let order = visit.order(100);
        visit.client.check_out(&order);
    }
    visit.page.wait_for("document.querySelectorAll('table')[1].querySelector('tr:first-child .number .badge')");
    visit.page.is_sound();
}

#[test]
fn customers_who_are_turned_away_are_told_at_the_top() {
    let mut visit = Visit::with_chaos("");
    visit.client.done("/stock/fault/set?point=before_prepare&action=error");
    let address = visit.server.address();
    let enough = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let customers: Vec<_> = (0..8)
        .map(|_| {
            let (order, enough) = (visit.order(100), std::sync::Arc::clone(&enough));
            std::thread::spawn(move || {
                let mut client = e2e::Client::new(address);
                while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                    client.check_out(&order);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            })
        })
        .collect();
    let page = &mut visit.page;
    page.wait_for("document.getElementById('verdict').dataset.level === 'bad'");
    page.wait_for_text("#verdict-text", "No checkout is served: ");
    page.wait_for(
        "[...document.querySelectorAll('.tile')].some((it) => /^Turned away a second\\n+(0\\.)?[1-9]/.test(it.innerText))",
    );
    // The protocol does not change by the abort rate here, and no line says that it did.
    page.wait_for_text(".tiles", "fixed by configuration");
    assert!(!page.text(".charts").contains("saga from here"));
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    customers.into_iter().for_each(|it| it.join().unwrap());
}

#[test]
fn the_audit_runs_when_it_is_asked_for() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/audit");
    let order = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{order}"));
    visit.client.wait_until_settled();
    let page = &mut visit.page;
    page.click("#audit-now");
    page.wait_for_text("#audit-result", "Money and stock agree at");
    page.is_sound();
    // What could not be compared is not said to agree, and why is said in a sentence.
    let mut visit = Visit::with_chaos("#/audit");
    let stuck = visit.stuck();
    let page = &mut visit.page;
    assert_eq!(page.text("#audit-result"), "", "nobody has asked yet");
    page.click("#audit-now");
    page.wait_for_text("#audit-result", "could not be compared with the orders, since 1 transaction is under way.");
    // Beside a headline that says they agree, each of the two audits says what it asserts.
    page.wait_for_text("#verdict-text", "all that is settled agrees");
    page.wait_for_text("#audit-result", "That does not contradict the continuous audit above");
    let told = page.text("#panel");
    for expected in ["nothing of that account is under way", "only while no transaction at all is under way"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    visit.client.done("/payment/fault/clear");
    let page = &mut visit.page;
    page.eval(&format!(
        "fetch('/admin/transactions/{stuck}/retry', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: '{{}}' }})"
    ));
    page.wait_for_text("#audit-result", "Money and stock agree");
    page.is_sound();
}

/// As in a browser that blocks cookies: whoever touches what it keeps is refused.
#[test]
fn a_browser_that_keeps_nothing_shows_everything_and_remembers_until_it_leaves() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/");
    let refuse = "for (const where of ['localStorage', 'sessionStorage']) \
                  Object.defineProperty(window, where, { get() { throw new DOMException('kept', 'SecurityError'); } });";
    visit.page.call("Page.addScriptToEvaluateOnNewDocument", serde_json::json!({ "source": refuse }));
    visit.page.reload();
    visit.page.wait_for("document.getElementById('connection').dataset.state === 'live'");
    visit.page.click(".spans label:last-child");
    visit.go("#/stuck");
    visit.page.write("#trail-operator", "ann");
    visit.page.press("Tab");
    visit.go("#/");
    visit.page.wait_for("document.querySelector('.spans label:last-child input').checked");
    visit.go("#/stuck");
    visit.page.wait_for("document.querySelector('#trail-operator').value === 'ann'");
    visit.page.is_sound();
}

#[test]
fn an_audit_that_has_not_gone_through_everything_says_so() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/audit");
    let page = &mut visit.page;
    page.eval(
        "(() => { const parse = JSON.parse; JSON.parse = (text) => { const it = parse(text); if (it?.verdict) it.audit = { at: 0, checked: 222228, findings: 0, complete: false }; return it; }; })()",
    );
    page.wait_for_text("#panel", "No pass has ended yet; nothing found so far: 222,228 accounts and orders looked at.");
}

/// Nothing is ever off in a shop of ours: what the page is told is put into its mouth, as the auditor has it when a database was changed behind its back.
const OFF: &str = r#"(() => {
  const finding = { account: { service: 'payment', discrepancy: { not_conserved: { account: '836', off_by: -60 } } } };
  const text = 'payment account 836 does not add up: off by -60';
  const of = (transaction, caused) => ({ transaction, order: '01a1fb48-a17d-73b6-bf86-03f3e5aef3a3', service: 'payment', step: 1, branch: 'missing', caused });
  const transactions = [of('01a1fb48-a24c-75aa-a1b6-1bc8cdc94972', true), of('01a1fb48-a206-79a6-914b-09fb450d1c14', false)];
  const word = { by: 'here', runs: 3, at: Date.now(), checked: 1234, postponed: 0, complete: true, trouble: null, off: 1, findings: [{ finding, text, since: Date.now() - 5000, transactions }] };
  const report = { off: 1, findings: [finding], texts: [text], paid_orders: 4, paid_cost: 240, items: 1, users: 1, open_transactions: 0, compared: true };
  const real = window.fetch;
  window.fetch = (path, how) => (path === '/admin/audit' ? Promise.resolve(new Response(JSON.stringify(how.method === 'POST' ? report : word))) : real(path, how));
})()"#;

#[test]
fn what_the_audit_found_is_told_with_its_transactions() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/overview");
    let page = &mut visit.page;
    page.eval(OFF);
    page.click("#tab-audit");
    page.wait_for_text("#audit-continuous h4", "payment account 836 does not add up: off by -60");
    page.wait_for_text("#audit-continuous", "Since ");
    let told = page.text("#audit-continuous");
    for expected in ["1, payment", "missing", "yes", "perhaps", "Full passes", "1,234", "Comparisons put off"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    page.click("#audit-now");
    page.wait_for_text("#audit-result .badge", "1 thing is off");
    page.wait_for_text("#audit-result h4", "payment account 836");
    page.wait_for_text("#audit-result", "What they cost");
    page.click("#audit-result th a");
    page.wait_for("location.hash === '#/transactions/01a1fb48-a24c-75aa-a1b6-1bc8cdc94972'");
}
