//! Scripts, and calls of them as the server reads them.

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

/// A command in the words of the server's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    count: usize,
    bytes: Vec<u8>,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self { count: 0, bytes: Vec::with_capacity(192) }
    }

    /// Adds a word, of any bytes.
    pub fn word(&mut self, word: &(impl AsRef<[u8]> + ?Sized)) -> &mut Self {
        let word = word.as_ref();
        self.count += 1;
        self.bytes.push(b'$');
        push_number(&mut self.bytes, word.len() as u64);
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
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

    #[test]
    fn a_call_is_written_as_the_server_reads_it() {
        let mut words = Words::new();
        words.word("GET").word("a\r\nb").number(-12);
        let mut out = Vec::new();
        words.write(&mut out);
        assert_eq!(out, b"*3\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n$3\r\n-12\r\n");
    }
}
