//! The minutes behind: how many are seen, what they come to, and what happened in them.

use e2e::Server;

use crate::Visit;

/// Puts ten minutes into the page's memory that no test waits for: a burst, and a trickle in the last four of them; a dozen things that happened within
/// seconds, and some that happened alone.
const TEN_MINUTES: &str = r#"(async () => {
  const { live } = await import('/dashboard/live.js');
  const now = live.snapshot.at;
  const nothing = { rolled_back: 0, in_doubt: 0, p50: null, p99: null, p999: null, abort_percent: 0, in_flight: 0, queued: 0 };
  const rates = (n) => ({ committed: n < 360 ? 17000 : 200, refused: n < 360 ? 0 : 1, turned_away: n > 570 ? 5 : 0 });
  const counted = { committed: 0, refused: 0, turned_away: 0, rolled_back: 0, in_doubt: 0 };
  live.points = Array.from({ length: 600 }, (_, n) => {
    for (const [key, rate] of Object.entries(rates(n))) counted[key] += rate;
    return { at: now - (599 - n) * 1000, ...rates(n), ...nothing, answers: { ...counted } };
  });
  // Nobody looked for a while: no rate tells of it, and what was counted does.
  live.points.splice(500, 10);
  const mark = (ago, what) => ({ at: now - ago * 1000, since: now - ago * 1000, what, topic: null });
  live.marks = [...Array.from({ length: 12 }, (_, n) => mark(100 - n * 0.2, `order-${n} is down`)), mark(40, 'the audit found 1 thing that is off'), ...live.marks];
})()"#;

/// Puts a stop into the page's memory: a burst four minutes ago, nothing until some seconds ago, and few orders since.
const STARTED_AGAIN: &str = r#"(async () => {
  const { live } = await import('/dashboard/live.js');
  const now = live.snapshot.at;
  const [last] = live.points.slice(-1);
  const point = (ago, committed) => ({ ...last, at: now - ago * 1000, answers: { ...last.answers, committed } });
  live.points = [point(241, 1000), point(240, 2000), point(4, 2566), point(3, 2567), point(2, 2569), point(1, 2569), point(0, 2569)];
})()"#;

fn with_ten_minutes() -> Visit {
    let mut visit = Visit::to(Server::start(&[]), "");
    visit.page.wait_for_text(".news", "shop started");
    visit.page.eval(TEN_MINUTES);
    visit.page.wait_for_text(".news", "the audit found");
    visit
}

/// How high the chart of checkouts reaches.
const HIGHEST: &str = "[...document.querySelector('figure.chart svg').querySelectorAll('.axis')][2].textContent";

fn total(visit: &mut Visit, of: &str) -> u64 {
    let told = visit.page.text(".totals");
    let found = told.split(" · ").find_map(|it| it.strip_suffix(&format!(" {of}"))).unwrap_or_else(|| panic!("{told}"));
    found.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn a_burst_that_is_over_dwarfs_what_goes_on_only_where_it_is_seen() {
    let mut visit = with_ten_minutes();
    visit.page.wait_for(&format!("{HIGHEST} === '500'"));
    let axis = "[...document.querySelector('figure.chart svg').querySelectorAll('.axis')].map((it) => it.textContent).join(' ')";
    let shown = visit.page.eval(axis);
    assert!(shown.as_str().unwrap().ends_with("now −1 min −2 min −3 min"), "{shown}");
    // A second that is new to the page pushes one of these out.
    visit.page.wait_for_text(".totals", "In these 3 minutes: about ");
    let (committed, refused, away) =
        (total(&mut visit, "committed"), total(&mut visit, "refused"), total(&mut visit, "turned away"));
    assert!((35_000..=36_200).contains(&committed) && (175..=181).contains(&refused), "{committed}, {refused}");
    assert!((140..=150).contains(&away), "{away}");
    assert!(!visit.page.text(".totals").contains("in doubt"), "what did not happen is not told");
    let page = &mut visit.page;
    page.click(".spans input[value='10'] + span");
    page.wait_for(&format!("{HIGHEST} === '20,000'"));
    page.wait_for_text(".totals", "In these 10 minutes: about 6,");
    // With the keys, and still so when the page is opened again.
    page.press("ArrowLeft");
    page.wait_for_text(".totals", "In these 3 minutes");
    page.press("ArrowLeft");
    page.wait_for_text(".totals", "In this minute: about 1");
    page.reload();
    page.wait_for("document.querySelector('.spans input[value=\"1\"]').checked");
    page.wait_for_text(".totals", "Since ");
    // A shop that was started again, minutes behind its stop: what it answered last, and was counted by nobody then, is not of this minute.
    page.eval(STARTED_AGAIN);
    page.wait_for_text(".totals", "about 3 committed");
    page.is_sound();
    // The chaos tab has the same charts.
    let mut visit = Visit::with_chaos("#/chaos");
    visit.page.eval(TEN_MINUTES);
    visit.page.wait_for_text(".totals", "In these 3 minutes");
    visit.page.click(".spans input[value='1'] + span");
    visit.page.wait_for_text(".totals", "In this minute");
    visit.page.is_sound();
}

#[test]
fn what_happened_at_about_the_same_time_is_one_mark_that_leads_to_all_of_it() {
    let mut visit = with_ten_minutes();
    let page = &mut visit.page;
    page.wait_for_text("figure.chart .many", "12");
    // How far back it goes is said whether there is something or not.
    let heading = page.eval("document.getElementById('news').closest('section').querySelector('h2').innerText");
    assert_eq!(heading, "What happened in the last ten minutes");
    let apart = "[...document.querySelectorAll('figure.chart')].every((it) => { const at = [...it.querySelectorAll('.marks li')].map((li) => li.getBoundingClientRect().left); \
                 return at.length === 3 && at.every((x, n) => n === 0 || x - at[n - 1] > 23.5); })";
    page.wait_for(apart);
    let title = page.eval("document.querySelector('.many').closest('button').title");
    let lines: Vec<&str> = title.as_str().unwrap().lines().collect();
    assert!(lines.len() == 12 && lines[11].ends_with("order-11 is down"), "{lines:?}");
    assert_eq!(page.eval("document.querySelectorAll('.news li').length"), 8);
    // With the keys they are walked through once, not once in each chart.
    let stops = page.eval("[...document.querySelectorAll('.marks button')].filter((it) => it.tabIndex >= 0).length");
    assert_eq!(stops, 3);
    // The focus alone shows them, and leaves the page where it is.
    page.eval("document.querySelector('.marks button').focus()");
    page.wait_for("document.querySelectorAll('.news li.picked').length === 12");
    assert_eq!(page.eval("scrollY"), 0);
    assert!(page.focused().starts_with("12 things: "), "{}", page.focused());
    page.press("Enter");
    page.wait_for("scrollY > 0 && (() => { const box = document.querySelector('.news .picked').getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight; })()");
    // Seconds later it is the same one that has the focus.
    let until = page.eval("document.querySelectorAll('.totals').length && Date.now() + 2500");
    page.wait_for(&format!("Date.now() > {until}"));
    assert!(page.focused().starts_with("12 things: "), "{}", page.focused());
    page.click("#news + .actions button");
    page.wait_for("document.querySelectorAll('.news li').length === 8");
    page.wait_for_text("#news + .actions button", "Show all 14");
    page.click("#news + .actions button");
    page.wait_for("document.querySelectorAll('.news li').length === 14");
    page.click(".news a[href='#/audit']");
    page.wait_for_text("#panel h2", "Audit");
    page.is_sound();
}
