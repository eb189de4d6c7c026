//! The page in a real browser, over the real binary: each tab, each action, and what the page promises about itself.
//!
//! | file          | what it shows                                                                        |
//! |---------------|--------------------------------------------------------------------------------------|
//! | `tabs.rs`     | the figures, and what is found, told and done in each tab                            |
//! | `history.rs`  | the minutes behind: how many are seen, what they come to, and what happened in them  |
//! | `operators.rs`| who is let in, how the page says so, another site's page that has something done here |
//! | `overview.rs` | the tiles at the top, and the names in the charts                                    |
//! | `looks.rs`    | narrow and dark, contrast, first paint; pictures, if they are asked for              |
//! | `keyboard.rs` | everything without a mouse                                                           |
//! | `mishaps.rs`  | the server is killed and comes back                                                  |
//!
//! With `PAGE_PICTURES=20` the pictures in `docs/images` are taken anew, after that many seconds of shopping.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod history;
mod keyboard;
mod looks;
mod mishaps;
mod operators;
mod overview;
mod tabs;

use e2e::browser::Page;
use e2e::{Client, Server};

/// A shop, its client, and its page in a browser.
struct Visit {
    // Ended first: a page whose server is gone has reason to complain.
    page: Page,
    client: Client,
    server: Server,
}

impl Visit {
    /// Opens the page at a tab, such as `#/shop`.
    fn to(server: Server, tab: &str) -> Self {
        let mut page = Page::open();
        page.scheme("light");
        page.go(&format!("{}{tab}", address(&server)));
        page.wait_for("document.getElementById('connection').dataset.state === 'live'");
        Self { page, client: server.client(), server }
    }

    /// The same, of a shop in which faults may be injected, and which gives up on a branch soon.
    fn with_chaos(tab: &str) -> Self {
        Self::to(Server::start(&["--chaos", "--protocol", "2pc", "--attempts", "3"]), tab)
    }

    fn go(&mut self, tab: &str) {
        self.page.go(&format!("{}{tab}", address(&self.server)));
    }

    /// An order of a new user, of one new item, with enough of both or not.
    fn order(&mut self, credit: i64) -> String {
        let (item, user) = (self.client.new_item(10, 30), self.client.new_user(credit));
        self.client.new_order(&user, &[(&item, 1)])
    }

    /// An order that is paid while payment does not acknowledge it; its transaction.
    fn stuck(&mut self) -> String {
        let order = self.order(100);
        self.client.done("/payment/fault/set?point=before_commit&action=error");
        assert_eq!(self.client.check_out(&order).status, 200);
        let found = format!(
            "(async () => (await (await fetch('/admin/transactions?state=stuck&order={order}')).json())[0]?.id ?? null)()"
        );
        let until = std::time::Instant::now() + e2e::browser::PATIENCE;
        loop {
            let id = self.page.eval(&found);
            if let Some(id) = id.as_str() {
                return id.to_owned();
            }
            assert!(std::time::Instant::now() < until, "it does not get stuck");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn address(server: &Server) -> String {
    format!("http://{}/", server.address())
}
