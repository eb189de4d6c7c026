//! Scripts, and calls of them as the server reads them.

use protocol::limits::{MAX_JOINED, MAX_JOINED_WORDS};

/// A script on the server, called by its hash.
#[derive(Debug)]
pub struct Script {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Script {
    /// A script whose text is these parts, one behind the other.
    pub fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

/// A command in the words of the server's protocol; or one of the commands that a script takes many of, in the words that the script expects.
#[derive(Debug, Clone)]
pub struct Words {
    count: usize,
    bytes: Vec<u8>,
    /// Whose words these are, behind those of others.
    of: Option<&'static Script>,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self { count: 0, bytes: Vec::with_capacity(192), of: None }
    }

    /// One of the commands that `script` takes many of, to which its words are to be added. The script is called once for all that stand next to
    /// each other, is given the number of the connection ([`ScriptStore::connection`](crate::ScriptStore::connection)), then of each command the number of its
    /// words and the words, and answers with a list that has an element for each, in their order.
    pub fn of(script: &'static Script) -> Self {
        Self { of: Some(script), ..Self::new() }
    }

    /// Whether a call that begins with this command can take `other` in as well.
    fn takes_in(&self, other: &Self) -> bool {
        matches!((self.of, other.of), (Some(of), Some(other)) if std::ptr::eq(of, other))
    }

    /// Adds a word, of any bytes.
    pub fn word(&mut self, word: &(impl AsRef<[u8]> + ?Sized)) -> &mut Self {
        self.count += 1;
        push_word(&mut self.bytes, word.as_ref());
        self
    }

    /// Adds a number in decimal.
    pub fn number(&mut self, number: i64) -> &mut Self {
        self.word(&number.to_string())
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + 8
    }

    /// Appends the command to what is sent.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'*');
        push_number(out, self.count as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.bytes);
    }
}

/// Writes commands as the server is sent them: each alone, but those of one script that stand next to each other as one call of it, as long as
/// that stays short. Notes of each call in `calls` how many commands it has; `None` if it is a command of its own.
pub(crate) fn write_all<'a>(
    commands: impl Iterator<Item = &'a Words>,
    base: &str,
    connection: u64,
    out: &mut Vec<u8>,
    calls: &mut Vec<Option<usize>>,
) {
    let mut commands = commands.peekable();
    let mut joined = Vec::new();
    while let Some(first) = commands.next() {
        let Some(script) = first.of else {
            first.write(out);
            calls.push(None);
            continue;
        };
        joined.clear();
        joined.push(first);
        let mut words = first.count;
        while let Some(next) = commands
            .next_if(|next| first.takes_in(next) && joined.len() < MAX_JOINED && words + next.count <= MAX_JOINED_WORDS)
        {
            words += next.count;
            joined.push(next);
        }
        let mut head = call(script, base);
        head.word(&connection.to_string());
        out.push(b'*');
        push_number(out, (head.count + words + joined.len()) as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&head.bytes);
        for command in &joined {
            push_word(out, command.count.to_string().as_bytes());
            out.extend_from_slice(&command.bytes);
        }
        calls.push(Some(joined.len()));
    }
}

fn push_word(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'$');
    push_number(out, word.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A call of `script` on the store whose keys begin with `base`.
pub(crate) fn call(script: &Script, base: &str) -> Words {
    let mut words = Words::new();
    words.word("EVALSHA").word(&script.hash).word("1").word(&format!("{base}meta"));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    static ONE: LazyLock<Script> = LazyLock::new(|| Script::new(&["return 1"]));
    static OTHER: LazyLock<Script> = LazyLock::new(|| Script::new(&["return 2"]));

    fn of(script: &'static Script, words: usize) -> Words {
        let mut command = Words::of(script);
        (0..words).for_each(|n| _ = command.number(n as i64));
        command
    }

    fn joined(commands: &[Words]) -> Vec<Option<usize>> {
        let (mut out, mut calls) = (Vec::new(), Vec::new());
        write_all(commands.iter(), "{x}:", 7, &mut out, &mut calls);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("EVALSHA").count(), calls.len(), "{text:?}");
        calls
    }

    #[test]
    fn neighbours_of_one_script_are_one_call() {
        let mut alone = Words::new();
        alone.word("EVALSHA");
        let commands = [of(&ONE, 1), of(&ONE, 2), of(&OTHER, 1), alone.clone(), alone, of(&ONE, 1)];
        assert_eq!(joined(&commands), [Some(2), Some(1), None, None, Some(1)]);
        let (mut out, mut calls) = (Vec::new(), Vec::new());
        write_all(commands[..2].iter(), "{x}:", 7, &mut out, &mut calls);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*10\r\n$7\r\nEVALSHA\r\n"), "{text:?}");
        assert!(
            text.ends_with("$8\r\n{x}:meta\r\n$1\r\n7\r\n$1\r\n1\r\n$1\r\n0\r\n$1\r\n2\r\n$1\r\n0\r\n$1\r\n1\r\n"),
            "{text:?}"
        );
    }

    #[test]
    fn a_call_stays_short() {
        let many: Vec<Words> = (0..2 * MAX_JOINED + 1).map(|_| of(&ONE, 1)).collect();
        assert_eq!(joined(&many), [Some(MAX_JOINED), Some(MAX_JOINED), Some(1)]);
        let long = [of(&ONE, MAX_JOINED_WORDS + 5), of(&ONE, MAX_JOINED_WORDS - 1), of(&ONE, 1), of(&ONE, 1)];
        assert_eq!(joined(&long), [Some(1), Some(2), Some(1)], "one that is long goes alone");
    }

    #[test]
    fn a_call_is_written_as_the_server_reads_it() {
        let mut words = Words::new();
        words.word("GET").word("a\r\nb").number(-12);
        let mut out = Vec::new();
        words.write(&mut out);
        assert_eq!(out, b"*3\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n$3\r\n-12\r\n");
    }
}
