//! The checkout contract as a client sees it, read as liberally as it can be.
//!
//! Servers differ: ids come as strings or as numbers, amounts as integers, integral floats or strings, and the
//! lines of an order as pairs or as an object. All of these mean the same here.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An order's, item's or user's id, as text whatever the server wrote. Cloning it allocates nothing.
pub type Id = Arc<str>;

/// An order as `GET /orders/find/{order_id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Order {
    /// Whether the order is paid.
    pub paid: bool,
    /// Item and quantity, line by line. The same item may appear twice.
    #[serde(deserialize_with = "lines")]
    pub items: Vec<(Id, i64)>,
    /// Who pays.
    #[serde(deserialize_with = "id")]
    pub user_id: Id,
    /// What the whole order costs, in the smallest unit of money.
    #[serde(deserialize_with = "amount")]
    pub total_cost: i64,
}

/// An item as `GET /stock/find/{item_id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Item {
    /// Units in stock.
    #[serde(deserialize_with = "amount")]
    pub stock: i64,
    /// Price of one unit, in the smallest unit of money.
    #[serde(deserialize_with = "amount")]
    pub price: i64,
}

/// A user as `GET /payment/find_user/{user_id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct User {
    /// What the user can still spend, in the smallest unit of money.
    #[serde(deserialize_with = "amount")]
    pub credit: i64,
}

/// Finds the id in the answer of a `create` endpoint: `{"order_id": …}`, `{"item_id": …}` or `{"user_id": …}`.
#[must_use]
pub fn created_id(body: &[u8], field: &str) -> Option<Id> {
    let value: Value = serde_json::from_slice(body).ok()?;
    id_of(value.get(field)?)
}

/// The stable `code` of a problem-details body, found without reading the JSON: refusals are on the hot path.
///
/// `None` when there is none, or when it is not a plain word of at most 64 letters, digits, `_`, `-` or `.`.
#[must_use]
pub fn problem_code(body: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"code\"";
    let at = body.windows(KEY.len()).position(|window| window == KEY)?;
    let rest = body[at + KEY.len()..].trim_ascii_start().strip_prefix(b":")?;
    let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().take(65).position(|&b| b == b'"')?;
    let is_plain = |&b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    std::str::from_utf8(&rest[..end]).ok().filter(|code| !code.is_empty() && code.as_bytes().iter().all(is_plain))
}

/// The three kinds of thing that the contract keeps, each with its own ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An order.
    Order,
    /// An item in stock.
    Item,
    /// A user with credit.
    User,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Order => "order",
            Kind::Item => "item",
            Kind::User => "user",
        })
    }
}

fn id_of(value: &Value) -> Option<Id> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

fn amount_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            // Beyond 2^53 a float no longer names one integer.
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).map(
                #[expect(clippy::cast_possible_truncation, reason = "checked above: integral and within 2^53")]
                |float| float as i64,
            )
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
    let value = Value::deserialize(from)?;
    id_of(&value).ok_or_else(|| D::Error::custom(format!("{value} is not an id")))
}

fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(from)?;
    amount_of(&value).ok_or_else(|| D::Error::custom(format!("{value} is not a whole amount")))
}

fn lines<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Id, i64)>, D::Error> {
    let value = Value::deserialize(from)?;
    let lines: Option<Vec<_>> = match &value {
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair.as_array()?.as_slice() {
                [item, quantity] => Some((id_of(item)?, amount_of(quantity)?)),
                _ => None,
            })
            .collect(),
        Value::Object(map) => {
            map.iter().map(|(item, quantity)| Some((item.as_str().into(), amount_of(quantity)?))).collect()
        }
        _ => None,
    };
    lines.ok_or_else(|| D::Error::custom(format!("{value} is not a list of [item, quantity] pairs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_amounts_may_come_as_numbers_or_strings() {
        let strict: Order =
            serde_json::from_str(r#"{"order_id":"7","paid":true,"items":[["3",2]],"user_id":"4","total_cost":10}"#)
                .unwrap();
        let loose: Order = serde_json::from_str(
            r#"{"order_id":7,"paid":true,"items":{"3":2.0},"user_id":4,"total_cost":"10","extra":[]}"#,
        )
        .unwrap();
        assert_eq!(strict, loose);
        assert_eq!(strict.items, vec![("3".into(), 2)]);
        assert!(serde_json::from_str::<Item>(r#"{"stock":1.5,"price":1}"#).is_err());
        assert!(serde_json::from_str::<User>(r#"{"credit":null}"#).is_err());
        assert_eq!(created_id(br#"{"order_id":12}"#, "order_id").as_deref(), Some("12"));
        assert_eq!(created_id(b"oops", "order_id"), None);
    }

    #[test]
    fn the_code_of_a_refusal_is_found_without_reading_json() {
        assert_eq!(problem_code(br#"{"status":409,"code": "insufficient_stock","x":1}"#), Some("insufficient_stock"));
        assert_eq!(problem_code(b"Out of stock"), None);
        assert_eq!(problem_code(br#"{"code":"#), None);
        assert_eq!(problem_code(br#"{"code":"two words"}"#), None);
        assert_eq!(problem_code(br#"{"code":409}"#), None);
    }
}
