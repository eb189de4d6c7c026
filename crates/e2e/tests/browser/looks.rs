//! What the page looks like: on a narrow screen, in the dark, in contrast, and how soon.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Visit;

const TABS: [&str; 6] = ["overview", "transactions", "stuck", "shop", "chaos", "audit"];

/// Every visible text whose contrast with what is behind it is below that of WCAG 2 AA, as `text: contrast`. The first thing behind a text that is not
/// see-through is its ground; what SVG draws stands on the ground of its drawing.
const FAINT: &str = r#"(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => { const [x, y, z] = [r, g, b].map((it) => { const c = it / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const over = (top, under) => ({ r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a), b: top.b * top.a + under.b * (1 - top.a), a: 1 });
  const ground = (node) => {
    const layers = [];
    for (let it = node; it; it = it.parentElement) { const color = parse(getComputedStyle(it).backgroundColor); if (color.a > 0) layers.push(color); if (color.a === 1) break; }
    return layers.reverse().reduce((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
  };
  const opacity = (node) => { let all = 1; for (let it = node; it; it = it.parentElement) all *= Number(getComputedStyle(it).opacity); return all; };
  const faint = new Set(); let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const judge = (node, text) => {
    const style = getComputedStyle(node); const box = node.getBoundingClientRect();
    if (!text.trim() || !node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) || box.width < 2 || node.closest('.unseen, title, option, script, noscript')) return;
    seen += 1;
    const under = ground(node);
    const ink = parse(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(over({ ...ink, a: ink.a * opacity(node) }, under)), light(under)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = Number.parseFloat(style.fontSize); const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.add(`${text.trim().slice(0, 40)}: ${ratio.toFixed(2)} (${style.color} on ${under.r},${under.g},${under.b})`);
  };
  while (walker.nextNode()) judge(walker.currentNode.parentElement, walker.currentNode.textContent);
  for (const field of document.querySelectorAll('input, select, textarea')) judge(field, field.value || field.placeholder || '');
  return { seen, faint: [...faint] };
})()"#;

/// Every part of a table that does not show all that it has.
const CUT: &str = "[...document.querySelectorAll('.scrolls, .scrolls tbody, .scrolls tbody *')]
  .filter((it) => it.checkVisibility() && (it.scrollWidth > it.clientWidth + 1 && it.clientWidth > 0 || it.getBoundingClientRect().right > innerWidth))
  .map((it) => it.innerText)";

fn contrast(visit: &mut Visit, what: &str) {
    let told = visit.page.eval(FAINT);
    assert!(told["seen"].as_u64().unwrap() > 10, "{what}: hardly any text was looked at: {told}");
    assert_eq!(told["faint"], Value::Array(vec![]), "{what}");
}

/// A shop in which everything is to be seen: a commit, a refusal, something stuck, an entry in the trail, a fault.
fn lively() -> Visit {
    let mut visit = Visit::with_chaos("#/stuck");
    make_lively(&mut visit);
    visit
}

fn make_lively(visit: &mut Visit) {
    for credit in [100, 100, 1, 100] {
        let order = visit.order(credit);
        visit.client.check_out(&order);
    }
    visit.stuck();
    visit.go("#/stuck");
    visit.page.write("#trail-operator", "ann");
    visit.page.click("[data-act=retry]");
    visit.page.wait_for_text(".outcome", "Sent again");
}

fn wait_for_content(visit: &mut Visit, tab: &str) {
    visit.page.wait_for(match tab {
        "overview" => "document.querySelector('tbody tr') && /\\d/.test(document.querySelector('.tile dd').innerText)",
        "transactions" | "chaos" => "document.querySelector('tbody tr')",
        "stuck" => "document.querySelector('.stuck-one') && document.querySelector('tbody tr')",
        "shop" => "document.querySelector('#life .timeline')",
        _ => "document.querySelector('#audit-continuous dl')",
    });
}

fn open(visit: &mut Visit, tab: &str, order: &str) {
    let target = if tab == "shop" { format!("#/shop/order/{order}") } else { format!("#/{tab}") };
    visit.go(&target);
    wait_for_content(visit, tab);
}

#[test]
fn every_text_stands_out_in_light_and_in_dark_and_nothing_is_wider_than_a_telephone() {
    let mut visit = lively();
    let order = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{order}"));
    for scheme in ["light", "dark"] {
        visit.page.scheme(scheme);
        for (width, height) in [(1280, 900), (360, 740)] {
            visit.page.resize(width, height);
            for tab in TABS {
                open(&mut visit, tab, &order);
                let what = format!("{tab}, {scheme}, {width} px");
                contrast(&mut visit, &what);
                let wide = visit.page.eval("document.documentElement.scrollWidth");
                assert!(wide.as_u64().unwrap() <= u64::from(width), "{what}: it is {wide} px wide");
                if width < 400 {
                    assert_eq!(visit.page.eval(CUT), Value::Array(vec![]), "{what}: cut, or to be scrolled to");
                }
            }
            // One transaction and its dialog fit.
            visit.go("#/stuck");
            visit.page.click(".stuck-one h3 a");
            visit.page.wait_for("document.querySelector('.timeline')");
            contrast(&mut visit, &format!("a transaction, {scheme}, {width} px"));
            visit.page.click("[data-act=resolve]");
            visit.page.wait_for("document.querySelector('dialog[open]')");
            contrast(&mut visit, &format!("the dialog, {scheme}, {width} px"));
            let fits = "document.querySelector('dialog').getBoundingClientRect().right <= innerWidth";
            assert_eq!(visit.page.eval(fits), true, "{scheme}, {width} px");
            visit.page.press("Escape");
        }
    }
    visit.page.is_sound();
}

#[test]
fn the_described_api_fits_a_telephone_has_an_icon_and_shows_code_as_code() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let api = format!("{}api", crate::address(&visit.server));
    visit.page.go(&api);
    visit.page.wait_for("document.querySelectorAll('details').length > 10");
    visit.page.eval("document.querySelectorAll('details').forEach((it) => { it.open = true; })");
    for scheme in ["light", "dark"] {
        visit.page.scheme(scheme);
        for width in [1280, 390] {
            visit.page.resize(width, 800);
            contrast(&mut visit, &format!("the API, {scheme}, {width} px"));
            let wide = visit.page.eval("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{scheme}, {width} px: it is {wide} px wide");
        }
    }
    let page = &mut visit.page;
    // A schema is shown as it is; what is said about it is text.
    page.eval("document.querySelectorAll('pre').forEach((it) => it.remove())");
    let text = page.text("body");
    assert!(!text.contains('`'), "{text}");
    let codes = page.eval("[...document.querySelectorAll('td code')].map((it) => it.textContent)");
    assert!(codes.as_array().unwrap().contains(&"insufficient_stock".into()), "{codes}");
    let icon = "(async () => { const it = new Image(); it.src = document.querySelector('link[rel=icon]').href; await it.decode(); return it.width > 0; })()";
    assert_eq!(page.eval(icon), true);
    page.is_sound();
}

#[test]
fn something_is_to_be_read_within_a_second() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let visited = crate::address(&visit.server);
    // The best of some: other tests keep the processors busy.
    let soonest = (0..5).map(|_| {
        visit.page.go("about:blank");
        visit.page.go(&visited);
        let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        visit.page.wait_for(paint);
        visit.page.eval(paint).as_f64().unwrap()
    });
    let soonest = soonest.fold(f64::INFINITY, f64::min);
    println!("first contentful paint after {soonest:.0} ms");
    assert!(soonest < 1_000.0, "{soonest} ms");
}

/// A shop that has had something to tell: shoppers all the time, one in ten of whom has no money; then payment fails now and then, and, just before that is
/// mended, not at all any more, so that customers are turned away; then the process is killed and started again.
fn after_a_fault_and_a_crash(phase: Duration) -> Visit {
    let Visit { mut page, mut client, mut server } = Visit::with_chaos("#/overview");
    client.done("/stock/batch_init/1000/100000/5");
    client.done("/payment/batch_init/1000/100000");
    shop_for(phase, server.address());
    client.done("/payment/fault/set?point=before_prepare&action=error&percent=20");
    shop_for(phase / 2, server.address());
    client.done("/payment/fault/set?point=before_prepare&action=error");
    shop_for(phase / 4, server.address());
    client.done("/payment/fault/clear");
    shop_for(phase / 2, server.address());
    server.kill();
    page.wait_for_text(".news", "no word from the server");
    // How long nobody is there is a part of the picture.
    std::thread::sleep(phase / 5);
    let server = server.restart();
    page.wait_for("document.getElementById('connection').innerText === 'live'");
    shop_for(phase, server.address());
    // Read again, as whoever opens it now has it.
    page.reload();
    page.wait_for_text(".news", "faults set");
    let client = server.client();
    Visit { page, client, server }
}

/// Has shoppers in the shop for a while.
fn shop_for(time: Duration, address: SocketAddr) {
    let until = Instant::now() + time;
    let shoppers = (0..3).map(|_| {
        std::thread::spawn(move || {
            let mut client = e2e::Client::new(address);
            let mut n = 0;
            while Instant::now() < until {
                n += 1;
                let user = if n % 10 == 0 { client.new_user(0) } else { (n % 1_000).to_string() };
                let order = client.new_order(&user, &[(&(n % 1_000).to_string(), 1)]);
                client.check_out(&order);
            }
        })
    });
    let shoppers: Vec<_> = shoppers.collect();
    shoppers.into_iter().for_each(|it| it.join().unwrap());
}

#[test]
fn pictures_are_taken_if_they_are_asked_for() {
    if std::env::var_os("PAGE_PICTURES").is_none() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images");
    let others = std::env::temp_dir().join("settle-pictures");
    [&folder, &others].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    let seconds: u32 = std::env::var("PAGE_PICTURES").unwrap().parse().unwrap_or(20);
    let mut visit = after_a_fault_and_a_crash(Duration::from_secs(1) * seconds);
    wait_for_content(&mut visit, "overview");
    // A README needs no more of it than down to the instances.
    let shorten = "new Promise((drawn) => { document.querySelectorAll('.pair, footer').forEach((it) => { it.hidden = true; }); \
                   requestAnimationFrame(() => requestAnimationFrame(() => drawn(true))); })";
    visit.page.eval(shorten);
    fs::write(folder.join("overview.png"), visit.page.picture()).unwrap();
    visit.page.reload();
    let order = visit.order(100);
    visit.client.done(&format!("/orders/checkout/{order}"));
    make_lively(&mut visit);
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        visit.page.scheme(scheme);
        visit.page.resize(width, if width == 360 { 740 } else { 860 });
        for tab in TABS {
            open(&mut visit, tab, &order);
            let name = format!("{tab}-{scheme}-{width}.png");
            let picture = visit.page.picture();
            if (tab, scheme, width) == ("stuck", "dark", 1280) {
                fs::write(folder.join("stuck.png"), &picture).unwrap();
            }
            fs::write(others.join(name), picture).unwrap();
        }
        visit.go("#/stuck");
        visit.page.click(".stuck-one h3 a");
        visit.page.wait_for("document.querySelector('.timeline')");
        fs::write(others.join(format!("transaction-{scheme}-{width}.png")), visit.page.picture()).unwrap();
    }
}

#[test]
fn a_telephone_shows_every_tab_and_every_choice_of_a_fault_whole() {
    let mut visit = Visit::with_chaos("#/chaos");
    visit.stuck();
    visit.go("#/chaos");
    let page = &mut visit.page;
    page.wait_for_text("#stuck-count", "1");
    for width in [390, 360] {
        page.resize(width, 800);
        let tabs = "(() => { const all = [...document.querySelectorAll('#tabs a')]; const bar = document.getElementById('tabs'); \
                    return all.length === 6 && bar.scrollWidth <= bar.clientWidth && all.every((it) => { const box = it.getBoundingClientRect(); \
                    return box.width > 0 && box.left >= 0 && box.right <= innerWidth && it.scrollWidth <= it.clientWidth; }); })()";
        assert_eq!(page.eval(tabs), true, "{width} px");
        // What a choice is wide, drawn by itself.
        let choices = "[...document.querySelectorAll('#fault select')].flatMap((it) => { const style = getComputedStyle(it); \
                       const pen = document.createElement('canvas').getContext('2d'); pen.font = style.font; \
                       const room = it.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 20; \
                       return [...it.options].map((one) => one.text).filter((text) => pen.measureText(text).width > room); })";
        assert_eq!(page.eval(choices), Value::Array(vec![]), "{width} px: cut");
        let pictures = std::env::var_os("PAGE_PICTURES").is_some();
        for scheme in ["light", "dark"].into_iter().filter(|_| pictures) {
            page.scheme(scheme);
            let folder = std::env::temp_dir().join("settle-pictures");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("chaos-{scheme}-{width}.png")), page.picture()).unwrap();
        }
    }
    page.is_sound();
}
