//! What messages look like: one byte of version, then postcard.

use bytes::Bytes;
use protocol::limits::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES};
use protocol::{Command, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Unanswered, Unreadable};

/// The version of every message. Raise it when a message could be misread by a program of the version before.
pub(crate) const VERSION: u8 = 1;

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
