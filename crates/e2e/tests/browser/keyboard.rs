//! Everything without a mouse.

use crate::Visit;

#[test]
fn the_page_is_walked_with_the_keys_alone() {
    let mut visit = Visit::with_chaos("");
    let page = &mut visit.page;
    page.press("Tab");
    assert_eq!(page.focused(), "Skip to the content");
    let seen = page.eval("document.activeElement.getBoundingClientRect().top >= 0");
    assert_eq!(seen, true, "what has the focus is to be seen");
    page.press("Tab");
    assert_eq!(page.focused(), "Overview");
    for name in ["Transactions", "Stuck and dead letters", "Shop", "Chaos", "Audit", "Overview"] {
        page.press("ArrowRight");
        assert_eq!(page.focused(), name);
        page.wait_for(&format!(
            "document.querySelector('[role=tab][aria-selected=true]').innerText.startsWith('{name}')"
        ));
        let ring = page.eval("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(ring, "solid", "{name}: where the focus is must be seen");
    }
    page.press("ArrowLeft");
    assert_eq!(page.focused(), "Audit");
    page.press("Home");
    assert_eq!(page.focused(), "Overview");
    page.press("End");
    assert_eq!(page.focused(), "Audit");
    page.wait_for("document.getElementById('audit-now')");
    page.press("Tab");
    assert_eq!(page.focused(), "Run the audit now");
    page.press("Enter");
    page.wait_for_text("#audit-result", "Money and stock agree");
    page.is_sound();
}

#[test]
fn the_skip_link_goes_to_the_content_and_leaves_the_tab() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "#/shop");
    let page = &mut visit.page;
    page.press("Tab");
    page.press("Enter");
    page.wait_for("document.activeElement.id === 'panel'");
    assert_eq!(page.text("#panel h2"), "Shop");
    page.press("Tab");
    assert_eq!(page.focused(), "Find an order");
    // Where the machine is busy, the page is told that it is at its content when the next key has been pressed already.
    page.eval("dispatchEvent(new HashChangeEvent('hashchange')), null");
    assert_eq!(page.focused(), "Find an order");
}

#[test]
fn whoever_listens_hears_what_changes_and_not_every_figure() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let page = &mut visit.page;
    page.eval(
        "(() => { const parse = JSON.parse; globalThis.judged = { level: 'unknown', text: 'Not audited yet · 0 stuck · p99 3 ms' }; \
         JSON.parse = (text) => { const it = parse(text); if (it?.verdict) it.verdict = globalThis.judged; return it; }; })()",
    );
    let mut says = |level: &str, text: &str, heard: &str| {
        page.eval(&format!("globalThis.judged = {{ level: '{level}', text: '{text}' }}, null"));
        page.wait_for_text("#verdict-text", text);
        assert_eq!(page.eval("document.getElementById('verdict-news').textContent"), heard);
    };
    // First what no shop says of itself in its first seconds, so that whatever this one said, all that follows is a change.
    says("bad", "Money is off by 1 · 0 stuck", "Somebody must look, now: Money is off by 1 · 0 stuck");
    let audited = "Nobody knows: The books are gone through anew: 31,500 rows so far · 0 stuck";
    says("unknown", "The books are gone through anew: 31,500 rows so far · 0 stuck", audited);
    says("unknown", "The books are gone through anew: 42,000 rows so far · 0 stuck · p99 1 ms", audited);
    says("warning", "order-1 is down · not audited yet", "Somebody should look: order-1 is down · not audited yet");
    says("warning", "order-2 is down · not audited yet", "Somebody should look: order-2 is down · not audited yet");
}

#[test]
fn a_chart_is_read_with_the_arrow_keys() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let page = &mut visit.page;
    page.wait_for("document.querySelector('figure.chart > .unseen').textContent.startsWith('Now: ')");
    page.eval("document.querySelector('figure.chart svg').focus()");
    page.press("ArrowLeft");
    page.wait_for("document.querySelector('figure.chart line.cursor')");
    let told = page.eval("document.querySelector('figure.chart > .unseen').textContent");
    assert!(told.as_str().unwrap().contains(": committed "), "{told}");
    page.press("Escape");
    page.wait_for("!document.querySelector('figure.chart line.cursor')");
    page.is_sound();
}
