//! The server is killed, and comes back; it is frozen, and thaws.

use std::time::{Duration, Instant};

use crate::Visit;

#[test]
fn the_page_says_that_the_server_is_gone_and_finds_it_again() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/overview");
    visit.page.is_sound();
    visit.server.kill();
    visit.page.wait_for_text("#connection", "no word from the server since ");
    let told = visit.page.text("#connection");
    let time = told.split("since ").nth(1).unwrap_or_default();
    assert!(time.as_bytes().get(2) == Some(&b':') && time.as_bytes().get(5) == Some(&b':'), "{told}");
    assert_eq!(visit.page.eval("document.getElementById('verdict').dataset.level"), "unknown", "nobody knows");
    visit.page.wait_for_text("#verdict-text", "No word from the shop for ");
    visit.page.wait_for_text("#stale", "What stands below is how it was at ");
    assert_eq!(
        visit.page.eval("[...document.querySelectorAll('#panel .badge')].every((it) => it.innerText === 'not known')"),
        true
    );
    visit.page.wait_for_text(".news", "no word from the server from here on");
    let before =
        visit.page.eval("document.querySelectorAll('figure.chart')[0].querySelector('.area').getAttribute('d').length");
    let Visit { mut page, server, .. } = visit;
    let server = server.restart();
    page.wait_for("document.getElementById('connection').innerText === 'live'");
    page.wait_for("document.getElementById('verdict').dataset.level !== 'unknown'");
    let told = page.text(".news");
    let lines: Vec<&str> = told.lines().collect();
    let expected = [
        "the server answers again, after ",
        "shop started",
        "settle serve was killed, or crashed",
        "no word from the server from here on",
        "shop started",
    ];
    assert!(lines.len() >= 5 && lines.iter().zip(expected).all(|(line, words)| line.contains(words)), "{told}");
    assert_eq!(page.eval("document.getElementById('stale').hidden"), true);
    let after =
        page.eval("document.querySelectorAll('figure.chart')[0].querySelector('.area').getAttribute('d').length");
    assert!(after.as_u64() >= before.as_u64(), "what the page knew is kept: {before}, {after}");
    // Whoever opens the page only now is told of both, too.
    page.reload();
    page.wait_for_text(".news", "settle serve was killed, or crashed");
    page.wait_for("/\\d\\d:\\d\\d:\\d\\d/.test(document.querySelector('tbody tr').innerText)");
    // That nobody answered is known; the page itself did nothing wrong.
    let troubles = page.troubles();
    assert!(troubles.iter().all(|it| it.starts_with("request:") || it.starts_with("log:")), "{troubles:?}");
    drop(page);
    drop(server);
}

#[test]
fn a_server_that_stands_still_is_seen_within_two_seconds() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/overview");
    visit.page.wait_for("document.getElementById('connection').innerText === 'live'");
    for _ in 0..3 {
        let since = Instant::now();
        visit.server.freeze();
        visit.page.wait_for("document.getElementById('verdict').dataset.level === 'unknown'");
        let seen = since.elapsed();
        visit.server.thaw();
        assert!(seen < Duration::from_secs(2), "{seen:?}");
        let since = Instant::now();
        visit.page.wait_for("document.getElementById('verdict').dataset.level !== 'unknown'");
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    assert!(!visit.page.text(".news").contains("no word from the server"), "a moment is not yet an event");
}
