//! The terminal: borrowed, and given back as it was, however this ends.

use std::io::{IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// The other screen, without a cursor, and back.
const BORROW: &str = "\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &str = "\x1b[?25h\x1b[?1049l";

/// What somebody pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Other,
}

/// A borrowed terminal.
pub(super) struct Screen {
    /// How keys were read before, if there are any.
    before: Option<Termios>,
    keys: mpsc::Receiver<Key>,
}

/// Its lines and columns, if standard output is a terminal.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}

impl Screen {
    pub(super) fn borrow() -> anyhow::Result<Self> {
        let input = std::io::stdin();
        let mut before = None;
        let (pressed, keys) = mpsc::channel(16);
        if input.is_terminal() {
            let modes = tcgetattr(&input)?;
            let mut raw = modes.clone();
            // Keys at once and unseen; Ctrl-C stays a signal.
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(&input, OptionalActions::Now, &raw)?;
            before = Some(modes);
            // It waits for a key for ever, and ends with the process.
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
                for byte in input.lock().bytes().map_while(Result::ok) {
                    let key = if matches!(byte, b'q' | b'Q' | 0x1b) { Key::Quit } else { Key::Other };
                    if pressed.blocking_send(key).is_err() {
                        return;
                    }
                }
            })?;
        }
        let screen = Self { before, keys };
        screen.write(BORROW)?;
        Ok(screen)
    }

    /// Draws lines over those of before.
    pub(super) fn draw(&mut self, lines: &[String]) -> anyhow::Result<()> {
        // Each line is cleared behind its text, and the rest of the screen below, so that nothing flickers.
        let mut text = "\x1b[H".to_owned();
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        self.write(&text)
    }

    /// Waits for a key; for ever if nobody can press one.
    pub(super) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        _ = self.write(GIVE_BACK);
        if let Some(before) = &self.before {
            _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
