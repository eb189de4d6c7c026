//! Who is let in, and how the page says so; and another site's page that would have something done here.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use e2e::Server;
use e2e::browser::Page;

use crate::{Visit, address};

#[test]
fn without_operators_rights_the_page_shows_the_figures_and_says_how_to_get_in() {
    let mut visit = Visit::to(Server::start(&["--production"]), "");
    let page = &mut visit.page;
    page.wait_for_text("#gate", "SETTLE_ADMIN__PASSWORD");
    page.wait_for_text("#panel", "Committed a second");
    for tab in ["transactions", "stuck", "audit"] {
        page.click(&format!("#tab-{tab}"));
        page.wait_for_text("#panel .notice", "Operators only.");
    }
    // It does not ask for what it would not be given.
    page.is_sound();
}

#[test]
fn with_the_password_everything_is_there_and_a_wrong_one_is_told_so() {
    let word = |command: &mut Command| _ = command.env("SETTLE_ADMIN__PASSWORD", "sesame");
    let mut visit = Visit::to(Server::start_with(&["--production"], word), "#/transactions");
    let page = &mut visit.page;
    page.wait_for_text("#gate", "need the password");
    page.write("#password", "open");
    page.click("#gate button");
    page.wait_for_text("#gate", "that password is wrong");
    page.wait_for("document.activeElement.id === 'password'");
    page.write("#password", "sesame");
    page.press("Enter");
    page.wait_for("document.getElementById('gate').hidden");
    page.wait_for_text("#panel", "None.");
    // For as long as the tab is there.
    page.reload();
    page.wait_for_text("#panel", "None.");
    assert_eq!(page.eval("document.getElementById('gate').hidden"), true);
    let troubles = page.troubles();
    assert!(troubles.iter().all(|it| it.contains("401") && it.contains("/admin/")), "{troubles:?}");
}

/// Another site, which serves one page; it ends with the test.
fn another_site(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            _ = client.read(&mut request);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
            _ = write!(client, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    format!("http://localhost:{}/", address.port())
}

#[test]
fn another_sites_page_cannot_have_anything_done_here() {
    let server = Server::start(&["--chaos"]);
    let mut client = server.client();
    let user = client.new_user(5);
    let here = address(&server);
    let form = |id: &str, target: &str| format!("<form id={id} method=post action='{here}{target}'></form>");
    let forms = [
        form("fault", "payment/fault/set?point=before_prepare&action=error"),
        form("money", &format!("payment/add_funds/{user}/100")),
    ];
    let site = another_site(format!("<!doctype html><title>evil</title>{}", forms.concat()));
    let mut page = Page::open();
    for id in ["fault", "money"] {
        page.go(&site);
        page.eval(&format!("document.getElementById('{id}').submit()"));
        page.wait_for(&format!("location.origin + '/' === '{here}'"));
        page.wait_for_text("body", "cross_site");
    }
    page.go(&site);
    let read = page.eval(&format!(
        "Promise.all([fetch('{here}admin/trail'), fetch('{here}payment/add_funds/{user}/100', {{ method: 'POST', mode: 'no-cors' }})]).then(() => 'read', () => 'not read')"
    ));
    assert_eq!(read, "not read");
    assert_eq!(client.credit(&user), 5);
    assert_eq!(client.get("/payment/fault/rules").json()["rules"], serde_json::json!({}));
    // Its own page may.
    page.go(&here);
    let own =
        page.eval(&format!("fetch('/payment/add_funds/{user}/100', {{ method: 'POST' }}).then((it) => it.status)"));
    assert_eq!(own, 200);
    assert_eq!(client.credit(&user), 105);
}

#[test]
fn a_page_under_a_strange_name_is_told_what_helps_to_set_faults() {
    let server = Server::start(&["--chaos"]);
    let mut page = Page::open();
    // A name that leads here, and is not known to be this server's.
    let strange = address(&server).replace("127.0.0.1", "shop.localhost");
    page.go(&format!("{strange}#/chaos"));
    page.wait_for_text("#panel", "open the page under an IP address or localhost");
    page.click("form#fault button.danger");
    page.wait_for_text("#panel .outcome", "or give this server the name (SETTLE_HOSTS); a password does not help");
    assert!(!page.text("#panel").contains("No fault is set."), "it does not know");
    // That does help.
    page.go("about:blank");
    page.go(&format!("{}#/chaos", address(&server)));
    page.wait_for_text("#panel", "No fault is set.");
    page.click("form#fault button.danger");
    page.wait_for_text("tbody", "answer with an error");
}
