//! A headless Chromium, driven by its DevTools protocol over a pipe: what a person at the page sees, clicks and types.
//!
//! ```text
//!   Page::eval, click, press ──► {"id": 7, "method": …}\0 ──► fd 3 ┐
//!                                                                  Chromium
//!   answers by id, events     ◄── {"id": 7, "result": …}\0 ◄── fd 4 ┘
//! ```
//!
//! The pipe needs no port and no library for sockets. Every page remembers what was written to the console as an error, and which requests failed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser, or the page, may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How soon a condition is looked at again.
const GLANCE: Duration = Duration::from_millis(25);
/// A window that most people have.
const WIDE: (u32, u32) = (1280, 900);

/// A browser with one page. Dropped, it is ended.
#[derive(Debug)]
pub struct Page {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    next: u64,
    answers: HashMap<u64, Value>,
    /// What went wrong in the page: errors on the console, exceptions, requests that failed.
    troubles: Vec<String>,
    requests: HashMap<String, String>,
    _profile: TempDir,
}

impl Page {
    /// Starts a browser.
    ///
    /// # Panics
    /// If there is no Chromium.
    pub fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads from descriptor 3 and writes to 4: here the shell makes them of what this process can give it.
        let script = r#"exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --disable-extensions --hide-scrollbars --remote-debugging-pipe \
            --user-data-dir="$0" about:blank 3<&0 4>&1 1>/dev/null"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("there is a shell");
        let (to, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, from) = channel();
        std::thread::spawn(move || read_on(BufReader::new(output), &send));
        let mut page = Self {
            child,
            to,
            from,
            session: String::new(),
            next: 1,
            answers: HashMap::new(),
            troubles: Vec::new(),
            requests: HashMap::new(),
            _profile: profile,
        };
        let made = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().expect("a session has a name").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.resize(WIDE.0, WIDE.1);
        page
    }

    /// Sends a command of the protocol, and waits for its answer.
    ///
    /// # Panics
    /// If the browser says that it cannot, or nothing at all.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same; what the browser says if it cannot.
    fn try_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        let id = self.send(method, parameters);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(mut answer) = self.answers.remove(&id) {
                return if answer.get("error").is_none() {
                    Ok(answer["result"].take())
                } else {
                    Err(answer["error"].take())
                };
            }
            self.listen(until.saturating_duration_since(Instant::now()), method);
        }
    }

    fn send(&mut self, method: &str, parameters: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser lives: is the package `chromium` installed?");
        id
    }

    /// Takes in what the browser says next.
    fn listen(&mut self, at_most: Duration, why: &str) {
        match self.from.recv_timeout(at_most) {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Timeout) => panic!("{why}: the browser did not answer"),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{why}: the browser is gone; is the package `chromium` installed?")
            }
        }
    }

    fn take(&mut self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            self.answers.insert(id, message);
            return;
        }
        let about = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" if about["type"] == "error" || about["type"] == "assert" => {
                self.troubles.push(format!("console: {}", about["args"]));
            }
            "Runtime.exceptionThrown" => {
                let details = &about["exceptionDetails"];
                let what = details["exception"]["description"].as_str().or(details["text"].as_str());
                self.troubles.push(format!("exception: {}", what.unwrap_or_default()));
            }
            "Log.entryAdded" if about["entry"]["level"] == "error" => {
                self.troubles.push(format!("log: {} {}", about["entry"]["text"], about["entry"]["url"]));
            }
            "Network.requestWillBeSent" => {
                let request = &about["request"];
                let line = format!("{} {}", request["method"].as_str().unwrap(), request["url"].as_str().unwrap());
                self.requests.insert(about["requestId"].to_string(), line);
            }
            "Network.responseReceived" if about["response"]["status"].as_u64().is_some_and(|status| status >= 400) => {
                let line = self.requests.get(&about["requestId"].to_string()).cloned().unwrap_or_default();
                self.troubles.push(format!("request: {line} was answered {}", about["response"]["status"]));
            }
            "Network.loadingFailed" if about["canceled"] != true => {
                let line = self.requests.get(&about["requestId"].to_string()).cloned().unwrap_or_default();
                self.troubles.push(format!("request: {line} failed: {}", about["errorText"]));
            }
            _ => {}
        }
    }

    /// What went wrong so far, and is forgotten now.
    pub fn troubles(&mut self) -> Vec<String> {
        // Whatever was said before this answer has arrived with it.
        self.eval("0");
        std::mem::take(&mut self.troubles)
    }

    /// Nothing went wrong so far.
    ///
    /// # Panics
    /// If anything did.
    pub fn is_sound(&mut self) {
        let troubles = self.troubles();
        assert!(troubles.is_empty(), "{troubles:#?}");
    }

    /// Goes to an address.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.wait_for("document.readyState === 'complete'");
    }

    /// Loads the page anew.
    pub fn reload(&mut self) {
        self.eval("window.before = true");
        self.call("Page.reload", json!({}));
        self.wait_for("!window.before && document.readyState === 'complete'");
    }

    /// The value of an expression in the page; that of a promise, once there is one.
    ///
    /// # Panics
    /// If it throws.
    pub fn eval(&mut self, expression: &str) -> Value {
        self.try_eval(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The same; what the browser says if the page went away meanwhile.
    fn try_eval(&mut self, expression: &str) -> Result<Value, Value> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut told = self.try_call("Runtime.evaluate", asked)?;
        let thrown = &told["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {}", thrown["exception"]["description"]);
        Ok(told["result"]["value"].take())
    }

    /// Waits until an expression is true. A page that is on its way to another is asked again there.
    ///
    /// # Panics
    /// If it stays false, or the browser cannot tell for another reason.
    pub fn wait_for(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_eval(&format!("!!({expression})")) {
                Ok(value) if value == true => return,
                Ok(_) => {}
                Err(error) if is_on_its_way(&error) => {}
                Err(error) => panic!("{expression}: {error}"),
            }
            if Instant::now() >= until {
                let text = self.text("body");
                panic!("{expression} stays false in:\n{text}\ntroubles: {:#?}", self.troubles);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until the text of an element contains this.
    pub fn wait_for_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait_for(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// The text of the first such element, as it is shown; empty if there is none.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks in the middle of the first such element, which must be there, in sight, and under nothing else.
    ///
    /// # Panics
    /// If it is not.
    pub fn click(&mut self, selector: &str) {
        let name = json!(selector);
        self.wait_for(&format!("document.querySelector({name})"));
        let place = self.eval(&format!(
            "(() => {{ const it = document.querySelector({name}); it.scrollIntoView({{ block: 'center', inline: 'center' }}); \
             const box = it.getClientRects()[0]; const x = box.x + box.width / 2, y = box.y + box.height / 2; \
             const hit = document.elementFromPoint(x, y); return {{ x, y, hit: it === hit || it.contains(hit), by: hit?.outerHTML.slice(0, 200) }}; }})()"
        ));
        assert_eq!(place["hit"], true, "{selector} is hidden by something: {place}");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Writes into the first such field, in place of what was there.
    pub fn write(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.eval(&format!("document.querySelector({}).select?.()", json!(selector)));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Chooses of a list.
    pub fn choose(&mut self, selector: &str, value: &str) {
        self.eval(&format!(
            "(() => {{ const it = document.querySelector({}); it.value = {}; \
             it.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()",
            json!(selector),
            json!(value)
        ));
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, `ArrowRight`, `Home`, …
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            other => panic!("no test presses {other}"),
        };
        for kind in ["rawKeyDown", "char", "keyUp"] {
            if kind == "char" && key != "Enter" {
                continue;
            }
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "char" {
                event["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Gives the window another size, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Has the page drawn for `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The whole page as a PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        decode_base64(taken["data"].as_str().expect("a picture is text"))
    }

    /// What a screen reader or a person at the keyboard would call what has the focus: its text, or its name.
    pub fn focused(&mut self) -> String {
        let told = self.eval(
            "(() => { const it = document.activeElement; return (it.getAttribute('aria-label') || it.innerText || it.labels?.[0]?.innerText || \
             it.id || it.tagName).trim().split('\\n')[0]; })()",
        );
        told.as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It ends by itself when its pipe is closed, and its helpers with it; and if it does not, it is ended.
        _ = self.send_quietly("Browser.close");
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(GLANCE);
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Page {
    fn send_quietly(&mut self, method: &str) -> std::io::Result<()> {
        let mut text = String::new();
        _ = write!(text, "{}\0", json!({ "id": self.next, "method": method }));
        self.to.write_all(text.as_bytes())
    }
}

/// Whether what was asked for was lost with the page that it was asked of: another is on its way.
fn is_on_its_way(error: &Value) -> bool {
    let said = error["message"].as_str().unwrap_or_default();
    ["navigated", "context was destroyed", "Cannot find context"].iter().any(|it| said.contains(it))
}

/// Hands on every message until there are no more.
fn read_on(mut from: impl BufRead, to: &Sender<Value>) {
    let mut message = Vec::new();
    while let Ok(1..) = from.read_until(0, &mut message) {
        message.pop();
        let Ok(value) = serde_json::from_slice(&message) else { return };
        if to.send(value).is_err() {
            return;
        }
        message.clear();
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0, |bits, byte| bits << 6 | digit(*byte)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::decode_base64;

    #[test]
    fn base64_reads_back() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("+/A=", "")]
        {
            if !bytes.is_empty() || text.is_empty() {
                assert_eq!(decode_base64(text), bytes.as_bytes(), "{text}");
            }
        }
        assert_eq!(decode_base64("+/A="), [0xfb, 0xf0]);
    }
}
