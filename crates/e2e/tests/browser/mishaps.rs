//! The server is killed, and comes back; it is frozen, and thaws.

use std::time::{Duration, Instant};

use crate::Visit;

/// Waits for the moment just before the server's next word: what is counted from the last one is too long by almost a second.
const BEFORE_THE_NEXT_WORD: &str = "(async () => {
  const { live } = await import('/dashboard/live.js');
  const ago = () => Date.now() - live.lastWord;
  while (ago() < 700 || ago() > 900) await new Promise((done) => { setTimeout(done, 10); });
})()";

#[test]
fn the_page_says_that_the_server_is_gone_and_finds_it_again() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/overview");
    visit.page.is_sound();
    visit.page.eval(BEFORE_THE_NEXT_WORD);
    let killed = Instant::now();
    visit.server.kill();
    visit.page.wait_for_text("#connection", "no word from the server since ");
    let noticed = Instant::now();
    let told = visit.page.text("#connection");
    let time = told.split("since ").nth(1).unwrap_or_default();
    assert!(time.as_bytes().get(2) == Some(&b':') && time.as_bytes().get(5) == Some(&b':'), "{told}");
    assert_eq!(visit.page.eval("document.getElementById('verdict').dataset.level"), "unknown", "nobody knows");
    visit.page.wait_for_text("#verdict-text", "No word from the shop for ");
    visit.page.wait_for_text("#stale", "What is shown is how it was at ");
    assert_eq!(
        visit.page.eval("[...document.querySelectorAll('#panel .badge')].every((it) => it.innerText === 'not known')"),
        true
    );
    visit.page.wait_for_text(".news", "no word from the server from here on");
    let before =
        visit.page.eval("document.querySelectorAll('figure.chart')[0].querySelector('.area').getAttribute('d').length");
    let Visit { mut page, server, .. } = visit;
    std::thread::sleep(Duration::from_millis(1_500));
    let least = noticed.elapsed();
    let server = server.restart();
    page.wait_for("document.getElementById('connection').innerText === 'live'");
    let most = killed.elapsed();
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
    // By the page's own clock, from the break to the next connection, whenever the server spoke before and behind it.
    let after = lines[0].rsplit(' ').nth(1).unwrap();
    assert!(lines[0].ends_with(&format!("again, after {after} s")) && after.contains('.'), "{told}");
    let (after, least, most) = (after.parse::<f64>().unwrap(), least.as_secs_f64(), most.as_secs_f64());
    assert!((least - 0.06..=most + 0.06).contains(&after), "{after} is not in {least}..{most}");
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

#[test]
fn a_silence_is_told_as_about_as_long_as_it_was() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/overview");
    visit.page.eval(BEFORE_THE_NEXT_WORD);
    let since = Instant::now();
    visit.server.freeze();
    visit.page.wait_for_text(".news", "no word from the server from here on");
    std::thread::sleep(Duration::from_secs(6).saturating_sub(since.elapsed()));
    visit.server.thaw();
    let frozen = since.elapsed().as_secs_f64();
    visit.page.wait_for_text(".news", "the server answers again, after about ");
    let told = visit.page.text(".news");
    let line = told.lines().find(|line| line.contains("answers again")).unwrap();
    let about: f64 = line.rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert!((frozen - 1.0..frozen + 1.5).contains(&about), "{about} instead of {frozen}: {told}");
}
