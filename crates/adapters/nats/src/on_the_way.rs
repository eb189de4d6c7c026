//! Which commands went in which message: so that what a server says of a message is told to those who wait for its commands.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;

#[derive(Default)]
struct Messages {
    /// By number, which rises.
    sent: VecDeque<(u64, Instant, Vec<u64>)>,
    next: u64,
}

/// The messages that a server has not said anything of, until nobody waits for their commands any more.
#[derive(Default)]
pub(crate) struct OnTheWay {
    messages: Mutex<Messages>,
}

impl OnTheWay {
    /// Notes a message of these commands; returns its number.
    pub(crate) fn put(&self, until: Instant, ids: Vec<u64>) -> u64 {
        let mut messages = self.messages.lock();
        let now = Instant::now();
        while messages.sent.front().is_some_and(|(_, until, ids)| ids.is_empty() || *until <= now) {
            messages.sent.pop_front();
        }
        let number = messages.next;
        messages.next += 1;
        messages.sent.push_back((number, until, ids));
        number
    }

    /// Takes out the commands of a message.
    pub(crate) fn take(&self, number: u64) -> Vec<u64> {
        let mut messages = self.messages.lock();
        match messages.sent.binary_search_by_key(&number, |(number, ..)| *number) {
            Ok(at) => std::mem::take(&mut messages.sent[at].2),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_message_is_taken_out_once_and_forgotten_when_nobody_waits() {
        let (sent, later) = (OnTheWay::default(), Instant::now() + Duration::from_secs(3600));
        let numbers = [sent.put(later, vec![1, 2]), sent.put(Instant::now(), vec![3]), sent.put(later, vec![4])];
        assert_eq!(sent.take(numbers[2]), [4]);
        assert_eq!(sent.take(numbers[0]), [1, 2]);
        assert!(sent.take(numbers[0]).is_empty());
        sent.put(later, vec![5]);
        assert_eq!(sent.messages.lock().sent.len(), 1, "those taken out and those too late are gone");
        assert!(sent.take(numbers[1]).is_empty());
    }
}
