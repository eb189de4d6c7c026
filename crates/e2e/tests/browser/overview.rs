//! What stands at the top of the overview, and what the charts call what they draw.

use serde_json::Value;

use crate::Visit;

/// The tile with this label: its value, what stands below, and its level.
fn tile(label: &str) -> String {
    format!(
        "(() => {{ const it = [...document.querySelectorAll('.tile')].find((it) => it.firstChild.textContent === '{label}'); \
         return [...[...it.querySelectorAll('dd')].map((one) => one.textContent), it.children[1].dataset.level ?? ''].join('; '); }})()"
    )
}

/// Has every snapshot say this of itself, whatever the server said.
fn put_into_its_mouth(visit: &mut Visit, members: &str) {
    visit.page.eval(&format!(
        "(() => {{ window.said = (it) => ({members}); if (window.isSaid) return; window.isSaid = true; const parse = JSON.parse; \
         JSON.parse = (text) => {{ const it = parse(text); return it?.verdict ? {{ ...it, ...window.said(it) }} : it; }}; }})()"
    ));
}

#[test]
fn a_tile_says_how_old_the_word_is_that_money_and_stock_agree() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let mut says = |members: &str, told: &str| {
        put_into_its_mouth(&mut visit, members);
        visit.page.wait_for(&format!("{} === '{told}'", tile("Audited")));
    };
    let calm = "stuck: 0, in_doubt: 0";
    says(&format!("{{ audit: null, {calm} }}"), "not yet; no word from an auditor; ");
    let under_way = "audit: { at: 0, checked: 12345, findings: 0, complete: false }";
    says(&format!("{{ {under_way}, {calm} }}"), "not yet; under way: 12,345 looked at; ");
    let ago = |ms: u32, off: u32| format!("audit: {{ at: it.at - {ms}, checked: 9, findings: {off}, complete: true }}");
    says(&format!("{{ {}, {calm} }}", ago(12_000, 0)), "12 s ago; books agree; good");
    says(&format!("{{ {}, stuck: 1 }}", ago(12_000, 0)), "12 s ago; all that is settled agrees; good");
    says(&format!("{{ {}, {calm} }}", ago(3_700_000, 0)), "1 h 1 min ago; books agreed then; warning");
    says(&format!("{{ {}, {calm} }}", ago(12_000, 2)), "2 things off; 12 s ago; bad");
    says(&format!("{{ {}, {calm} }}", ago(12_000, 1)), "1 thing off; 12 s ago; bad");
    // No tile stands alone in its row, and what is in one is not cut.
    for (width, in_a_row) in [(1920, 5), (1280, 5), (800, 5), (700, 2), (390, 2)] {
        visit.page.resize(width, 900);
        let rows = "(() => { const all = [...document.querySelectorAll('.tile')]; const tops = all.map((it) => it.getBoundingClientRect().top); \
                    return all.every((it) => it.scrollWidth <= it.clientWidth) && [...new Set(tops)].map((top) => tops.filter((it) => it === top).length); })()";
        assert_eq!(visit.page.eval(rows), Value::from(vec![in_a_row; 10 / in_a_row]), "{width} px");
    }
    visit.page.is_sound();
}

#[test]
fn the_slowest_answer_is_told_as_the_bound_that_it_is() {
    let mut visit = Visit::to(e2e::Server::start(&[]), "");
    let legend = "document.querySelectorAll('figure.chart')[1].querySelector('.legend li:last-child').innerText";
    let hover = "document.querySelectorAll('figure.chart')[1].querySelector(':scope > .unseen').textContent";
    for (slowest, told) in [
        ("7500", "≤ 7.5 s"),
        ("10000", "≤ 10 s"),
        ("1000", "≤ 1.0 s"),
        ("750", "≤ 750 ms"),
        ("4.2", "≤ 4.2 ms"),
        ("30000", "about 30 s or more"),
    ] {
        put_into_its_mouth(&mut visit, &format!("{{ latency_ms: {{ ...it.latency_ms, slowest: {slowest} }} }}"));
        visit.page.wait_for(&format!("{legend} === 'slowest of its second {told}'"));
        visit.page.wait_for(&format!("{hover}.endsWith(', slowest of its second {told}')"));
    }
    // In the tile it is the slowest of the last ten seconds.
    visit.page.wait_for(&format!("{}.includes(', slowest about 30 s or more; ')", tile("p99")));
    visit.page.is_sound();
}

#[test]
fn the_names_in_the_chart_of_checkouts_say_what_they_mean() {
    let mut visit = Visit::with_chaos("");
    for tab in ["#/overview", "#/chaos"] {
        visit.go(tab);
        visit.page.wait_for("document.querySelector('figure.chart .legend li')");
        let titles = visit
            .page
            .eval("[...document.querySelector('figure.chart .legend').children].map((it) => it.firstChild.title)");
        let begins = [
            "Committed: ",
            "Refused: a business answer",
            "Turned away: before ",
            "Undone: begun, ",
            "In doubt: the answer ",
        ];
        let titles: Vec<&str> = titles.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert!(
            titles.len() == 5 && titles.iter().zip(begins).all(|(title, begin)| title.starts_with(begin)),
            "{titles:?}"
        );
        assert!(titles[4].contains("has no answer, and is not counted"), "{titles:?}");
        // Whoever listens is told the same, of the name and of the drawing.
        visit.page.call("Accessibility.enable", serde_json::json!({}));
        let described = |visit: &mut Visit, selector: &str| {
            let object = visit.page.call(
                "Runtime.evaluate",
                serde_json::json!({ "expression": format!("document.querySelector(\"{selector}\")") }),
            );
            let asked = serde_json::json!({ "objectId": object["result"]["objectId"], "fetchRelatives": false });
            let node = visit.page.call("Accessibility.getPartialAXTree", asked)["nodes"][0].clone();
            node["description"]["value"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(described(&mut visit, "figure.chart .legend li:last-child > span"), titles[4]);
        assert_eq!(described(&mut visit, "figure.chart .drawing"), titles.join(" "));
    }
    visit.page.is_sound();
}
