//! What messages look like: one byte of version, then postcard.
//!
//! ```text
//!   question, answer   1, the application's bytes
//!   commands           3, which participant they are for, the inbox for the replies, then for each: its number, its trace, itself (1, postcard) behind its length
//!   replies            2, then for each: the command's number, itself (1, postcard) behind its length
//! ```
//!
//! A command or reply that cannot be read does not concern its neighbours, since each stands behind its length.

use bytes::Bytes;
use protocol::limits::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES};
use protocol::{Command, Reply};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Unanswered, Unreadable};

/// The version of every message. Raise it when a message could be misread by a program of the version before.
pub(crate) const VERSION: u8 = 1;

/// The version of messages that carry commands.
const COMMANDS: u8 = 3;

/// The version of messages that carry replies.
const REPLIES: u8 = 2;

/// The longest identity of a participant.
pub(crate) const MAX_IDENTITY_BYTES: usize = 64;
/// The longest inbox.
const MAX_INBOX_BYTES: usize = 255;

/// Room that the commands of a message leave for the identity, the inbox, and for number and trace of one that is as long as may be.
const ENVELOPE_BYTES: usize = 2048;

pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, Unreadable> {
    let mut bytes = Vec::with_capacity(96);
    bytes.push(VERSION);
    let bytes = postcard::to_extend(message, bytes).map_err(|error| Unreadable::Nonsense(error.to_string()))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Unreadable::TooLong { found: bytes.len(), most: MAX_MESSAGE_BYTES });
    }
    Ok(bytes.into())
}

/// The bytes behind the version.
pub(crate) fn body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        None => Err(Unreadable::Empty),
        Some((&found, _)) if found != VERSION => Err(Unreadable::Version { found, known: VERSION }),
        Some(_) if bytes.len() > MAX_MESSAGE_BYTES => {
            Err(Unreadable::TooLong { found: bytes.len(), most: MAX_MESSAGE_BYTES })
        }
        Some((_, body)) => Ok(body),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match postcard::take_from_bytes(body(bytes)?) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Unreadable::Nonsense(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(Unreadable::Nonsense(error.to_string())),
    }
}

pub(crate) fn decode_command(bytes: &[u8]) -> Result<Command, Unreadable> {
    let command: Command = decode(bytes)?;
    let length = command.payload.as_slice().len();
    if length > MAX_PAYLOAD_BYTES {
        return Err(Unreadable::TooLong { found: length, most: MAX_PAYLOAD_BYTES });
    }
    Ok(command)
}

pub(crate) fn decode_reply(bytes: &[u8]) -> Result<Reply, Unreadable> {
    decode(bytes)
}

/// One of the commands of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parcel<'a> {
    /// By what its reply names it.
    pub(crate) number: u64,
    /// `traceparent` and `tracestate`.
    #[serde(borrow)]
    pub(crate) trace: Option<(&'a str, Option<&'a str>)>,
    /// The command, encoded.
    pub(crate) bytes: &'a [u8],
}

fn nonsense(error: &impl ToString) -> Unreadable {
    Unreadable::Nonsense(error.to_string())
}

/// A message that is being filled.
pub(crate) struct Filling {
    bytes: Vec<u8>,
    pub(crate) many: usize,
}

impl Filling {
    /// A message of commands for the participant of this identity, whose replies go to `inbox`.
    pub(crate) fn of_commands(addressee: &str, inbox: &str) -> Self {
        // Texts always can be written; a message without them would be a dead letter.
        let bytes = postcard::to_extend(&(addressee, inbox), vec![COMMANDS]).unwrap_or_else(|_| vec![COMMANDS]);
        Self { bytes, many: 0 }
    }

    pub(crate) fn of_replies() -> Self {
        Self { bytes: vec![REPLIES], many: 0 }
    }

    /// Whether there is room for so many bytes more. There always is for the first.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.many == 0 || self.bytes.len() + bytes + ENVELOPE_BYTES <= MAX_MESSAGE_BYTES
    }

    pub(crate) fn add(&mut self, part: &impl Serialize) -> Result<(), Unreadable> {
        self.bytes = postcard::to_extend(part, std::mem::take(&mut self.bytes)).map_err(|error| nonsense(&error))?;
        self.many += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

fn body_of_many(bytes: &[u8], version: u8) -> Result<&[u8], Unreadable> {
    const MOST: usize = MAX_MESSAGE_BYTES + ENVELOPE_BYTES;
    match bytes.split_first() {
        None => Err(Unreadable::Empty),
        Some((&found, _)) if found != version => Err(Unreadable::Version { found, known: version }),
        Some(_) if bytes.len() > MOST => Err(Unreadable::TooLong { found: bytes.len(), most: MOST }),
        Some((_, body)) => Ok(body),
    }
}

/// A message of commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    /// Which participant they are for.
    pub(crate) addressee: &'a str,
    /// Where the replies go.
    pub(crate) inbox: &'a str,
    pub(crate) parcels: Vec<Parcel<'a>>,
}

/// The commands of a message. Nothing of it is taken if its frame is broken.
pub(crate) fn open(bytes: &[u8]) -> Result<Opened<'_>, Unreadable> {
    let ((addressee, inbox), mut rest): ((&str, &str), _) =
        postcard::take_from_bytes(body_of_many(bytes, COMMANDS)?).map_err(|error| nonsense(&error))?;
    if inbox.len() > MAX_INBOX_BYTES {
        return Err(Unreadable::TooLong { found: inbox.len(), most: MAX_INBOX_BYTES });
    }
    let mut parcels = Vec::new();
    while !rest.is_empty() {
        let (parcel, behind) = postcard::take_from_bytes(rest).map_err(|error| nonsense(&error))?;
        parcels.push(parcel);
        rest = behind;
    }
    if parcels.is_empty() { Err(Unreadable::Empty) } else { Ok(Opened { addressee, inbox, parcels }) }
}

/// The replies of a message, each with the number of its command.
pub(crate) fn open_replies(bytes: &[u8]) -> Result<Vec<(u64, &[u8])>, Unreadable> {
    let mut rest = body_of_many(bytes, REPLIES)?;
    let mut replies = Vec::new();
    while !rest.is_empty() {
        let (reply, behind) = postcard::take_from_bytes(rest).map_err(|error| nonsense(&error))?;
        replies.push(reply);
        rest = behind;
    }
    Ok(replies)
}

/// A question: the version, and what the application says.
pub(crate) fn encode_question(question: &[u8]) -> Result<Bytes, Unanswered> {
    if question.len() >= MAX_MESSAGE_BYTES {
        return Err(Unanswered::TooLong);
    }
    Ok([&[VERSION], question].concat().into())
}

pub(crate) fn decode_question(message: &Bytes) -> Result<Bytes, Unreadable> {
    body(message).map(|body| message.slice_ref(body))
}

const GIVEN: u8 = 1;
const NONE: u8 = 0;

/// An answer, or that there is none. An answer that is too long is none.
pub(crate) fn encode_answer(answer: Option<&[u8]>) -> Bytes {
    match answer {
        Some(answer) if answer.len() + 2 <= MAX_MESSAGE_BYTES => [&[VERSION, GIVEN], answer].concat().into(),
        _ => Bytes::from_static(&[VERSION, NONE]),
    }
}

pub(crate) fn decode_answer(message: &Bytes) -> Result<Bytes, Unanswered> {
    match body(message) {
        Ok([GIVEN, answer @ ..]) => Ok(message.slice_ref(answer)),
        _ => Err(Unanswered::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::MAX_TEXT_BYTES;
    use protocol::{BranchId, BranchState, Name, Payload, Refusal, Timestamp, TransactionId, Unknown, Verb};

    fn command(verb: Verb, bytes: usize) -> Command {
        let transaction = TransactionId::new(Timestamp(1_790_000_000_000), [7; 16]);
        Command { branch: BranchId { transaction, step: 3 }, verb, payload: Payload::from(vec![9; bytes]) }
    }

    #[test]
    fn commands_and_replies_come_out_as_they_went_in() {
        for verb in Verb::ALL {
            for length in [0, 1, MAX_PAYLOAD_BYTES] {
                let command = command(verb, length);
                assert_eq!(decode_command(&encode(&command).unwrap()), Ok(command));
            }
        }
        let refusal = Refusal::new(Name::literal("insufficient_stock"), &"x".repeat(MAX_TEXT_BYTES));
        for reply in [
            Reply::Done(BranchState::Prepared),
            Reply::Refused(refusal),
            Reply::Violation(BranchState::Committed),
            Reply::Unknown(Unknown::Failed),
        ] {
            assert_eq!(decode_reply(&encode(&reply).unwrap()), Ok(reply));
        }
    }

    #[test]
    fn many_commands_and_replies_come_out_as_they_went_in() {
        let mut message = Filling::of_commands("mine", "settle.reply.x.b");
        let commands = [encode(&command(Verb::Prepare, 9)).unwrap(), Bytes::from_static(b"poison")];
        let trace = Some(("parent", Some("state")));
        let parcels = [
            Parcel { number: 7, trace, bytes: &commands[0] },
            Parcel { number: u64::MAX, trace: None, bytes: &commands[1] },
        ];
        parcels.iter().for_each(|parcel| message.add(parcel).unwrap());
        let message = message.finish();
        let opened = Opened { addressee: "mine", inbox: "settle.reply.x.b", parcels: parcels.to_vec() };
        assert_eq!(open(&message), Ok(opened));
        assert_eq!(decode_command(open(&message).unwrap().parcels[0].bytes), Ok(command(Verb::Prepare, 9)));
        assert!(decode_command(open(&message).unwrap().parcels[1].bytes).is_err());
        // The last byte is the last parcel's, whose length says how long it is: what is cut anywhere is not read at all.
        for length in 0..message.len() {
            let cut = open(&message[..length]);
            assert!(cut.is_err() || cut.unwrap().parcels.len() < 2, "{length} bytes");
        }
        let mut replies = Filling::of_replies();
        replies.add(&(7_u64, &commands[1][..])).unwrap();
        replies.add(&(8_u64, &b""[..])).unwrap();
        assert_eq!(open_replies(&replies.finish()), Ok(vec![(7, &b"poison"[..]), (8, &b""[..])]));
        assert!(open_replies(&[REPLIES, 1, 200]).is_err());
        let mut message = Filling::of_commands("mine", &"i".repeat(MAX_INBOX_BYTES + 1));
        message.add(&parcels[0]).unwrap();
        assert!(open(&message.finish()).is_err(), "a server that is sent a reply to it breaks the connection");
    }

    #[test]
    fn the_longest_command_fits_with_its_envelope() {
        let longest = encode(&command(Verb::Prepare, MAX_PAYLOAD_BYTES)).unwrap();
        let (parent, state) = ("p".repeat(128), "s".repeat(512));
        let mut message = Filling::of_commands(&"s".repeat(MAX_IDENTITY_BYTES), &"i".repeat(200));
        assert!(message.fits(longest.len()));
        let parcel = Parcel { number: u64::MAX, trace: Some((&parent, Some(&state))), bytes: &longest };
        message.add(&parcel).unwrap();
        let message = message.finish();
        assert_eq!(open(&message).unwrap().parcels, [parcel]);
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&command(Verb::Prepare, 3)).unwrap().to_vec();
        bytes[0] = 9;
        let error = decode_command(&bytes).unwrap_err();
        assert_eq!(error, Unreadable::Version { found: 9, known: VERSION });
        assert!(error.to_string().contains("version 9"));
    }

    #[test]
    fn questions_and_answers_come_out_as_they_went_in() {
        let question = encode_question(b"who?").unwrap();
        assert_eq!(decode_question(&question).unwrap(), &b"who?"[..]);
        assert_eq!(decode_answer(&encode_answer(Some(b"me"))).unwrap(), &b"me"[..]);
        assert_eq!(decode_answer(&encode_answer(Some(b""))).unwrap(), &b""[..]);
        assert_eq!(decode_answer(&encode_answer(None)), Err(Unanswered::Failed));
        assert_eq!(decode_answer(&Bytes::from_static(&[9, GIVEN, 1])), Err(Unanswered::Failed));
        assert_eq!(encode_question(&vec![0; MAX_MESSAGE_BYTES]), Err(Unanswered::TooLong));
        assert_eq!(decode_answer(&encode_answer(Some(&vec![0; MAX_MESSAGE_BYTES]))), Err(Unanswered::Failed));
    }

    #[test]
    fn what_is_cut_lengthened_or_too_long_is_not_read() {
        let whole = encode(&command(Verb::Commit, 20)).unwrap();
        for length in 0..whole.len() {
            assert!(decode_command(&whole[..length]).is_err(), "{length} bytes");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(decode_command(&longer).is_err());
        assert!(decode_command(&encode(&command(Verb::Commit, MAX_PAYLOAD_BYTES + 1)).unwrap()).is_err());
        assert!(encode(&command(Verb::Commit, MAX_MESSAGE_BYTES)).is_err());
    }
}
