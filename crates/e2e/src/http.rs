//! HTTP/1.1, the client's half: one request, one answer, on any stream.

use std::io::{self, Read, Write};

use serde_json::Value;

/// The longest head of an answer that is read. Bytes.
const MAX_HEAD: usize = 64 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Response {
    /// The first header of this name, given in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The member of a JSON body as text, if it is there.
    pub fn member(&self, name: &str) -> Option<String> {
        let value: Value = serde_json::from_str(&self.body).ok()?;
        value.get(name).map(|member| member.as_str().map_or_else(|| member.to_string(), str::to_owned))
    }
}

fn malformed(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// The bytes of a request.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method != "GET" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// Reads one answer.
///
/// # Errors
/// Those of the stream; `UnexpectedEof` if it ends before the answer does; `InvalidData` if it is no answer.
pub fn read_response(stream: &mut impl Read) -> io::Result<Response> {
    let mut bytes = Vec::with_capacity(512);
    let (mut response, head) = loop {
        read_more(stream, &mut bytes)?;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(head) = parsed.parse(&bytes).map_err(malformed)? {
            let owned = |header: &httparse::Header<'_>| {
                (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned())
            };
            let headers = parsed.headers.iter().map(owned).collect();
            let status = parsed.code.ok_or_else(|| malformed("an answer without a status"))?;
            break (Response { status, headers, body: String::new() }, head);
        }
        if bytes.len() > MAX_HEAD {
            return Err(malformed("the head of the answer does not end"));
        }
    };
    // Without a length there is no body, or it is as long as the connection.
    let length: usize = match response.header("content-length") {
        "" if response.header("transfer-encoding").is_empty() => 0,
        text => text.parse().map_err(malformed)?,
    };
    while bytes.len() < head + length {
        read_more(stream, &mut bytes)?;
    }
    response.body = String::from_utf8_lossy(&bytes[head..head + length]).into_owned();
    Ok(response)
}

fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&chunk[..read]);
            Ok(())
        }
    }
}

/// Sends a request and reads its answer.
///
/// # Errors
/// Those of the stream, and what is no answer. Nobody knows then whether the request was carried out.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Response> {
    stream.write_all(request)?;
    read_response(stream)
}
