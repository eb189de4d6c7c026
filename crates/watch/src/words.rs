//! Numbers as people read them.

/// So many stuck transactions are counted by whoever exports them, and no more.
const STUCK_COUNTED: u64 = 1_000;

/// With a comma behind each thousand.
pub fn digits(count: u64) -> String {
    let digits = count.to_string();
    let mut told = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// `1 finding`, `2 findings`.
pub fn number(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", digits(count), if count == 1 { "" } else { "s" })
}

/// How many transactions are stuck, as far as that is counted.
pub fn stuck(count: u64) -> String {
    format!("{}{}", digits(count), if count >= STUCK_COUNTED { " or more" } else { "" })
}

/// `1 transaction is`, `1,000 or more transactions are`: for a count of stuck ones.
pub fn stuck_are(count: u64) -> String {
    if count == 1 { "1 transaction is".to_owned() } else { format!("{} transactions are", stuck(count)) }
}

/// Who does not do something: `stock does not answer`, `payment and stock do not answer`.
pub fn do_not(who: &[&str], what: &str) -> String {
    let verb = if who.len() == 1 { "does" } else { "do" };
    let names = match who {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        names => names.concat(),
    };
    format!("{names} {verb} not {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_do_not_are_named_in_one_sentence() {
        assert_eq!(do_not(&["stock"], "answer"), "stock does not answer");
        assert_eq!(do_not(&["payment", "stock"], "answer"), "payment and stock do not answer");
        assert_eq!(do_not(&["a", "b", "c"], "acknowledge"), "a, b and c do not acknowledge");
    }

    #[test]
    fn thousands_are_told_apart() {
        for (count, told) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")] {
            assert_eq!(digits(count), told);
        }
        assert_eq!((number(1, "thing"), number(2_000, "thing")), ("1 thing".to_owned(), "2,000 things".to_owned()));
    }

    #[test]
    fn what_is_not_counted_to_its_end_is_said_to_be_more() {
        assert_eq!((stuck(999), stuck(1_000)), ("999".to_owned(), "1,000 or more".to_owned()));
        assert_eq!(stuck_are(1), "1 transaction is");
        assert_eq!(stuck_are(1_000), "1,000 or more transactions are");
    }
}
