//! An HTTP server that does nothing: what is left of a benchmark when the shop's own work is taken away.
//!
//! ```text
//! cargo run --release -p settle-load --example empty_handler -- 8099
//! settle load --url http://127.0.0.1:8099 --scenario post:/empty
//! ```
//!
//! The argument is the port (0, the default, lets the system choose one). The address goes to stdout as soon as
//! the server listens. Every path answers 200 with an empty body, to any method.

use std::net::Ipv4Addr;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = match std::env::args().nth(1) {
        None => 0,
        Some(text) => text.parse::<u16>().map_err(|_| {
            std::io::Error::other(format!("the argument is the port to listen on, 0 to 65535, not {text:?}"))
        })?,
    };
    let app = axum::Router::new().fallback(|| async {});
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
