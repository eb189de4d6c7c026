//! The shapes of answers, by name.

use serde_json::{Value, json};

fn object(members: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn whole() -> Value {
    json!({ "type": "integer" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn of(name: &str) -> Value {
    super::schema(name)
}

/// A refusal whose further members are ids.
fn problem() -> Value {
    let mut problem = object(&[
        ("type", text()),
        ("title", text()),
        ("status", json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
        ("code", json!({ "type": "string", "pattern": "^[a-z_]+$", "description": "Stable: for programs" })),
        ("detail", json!({ "type": "string", "description": "For people" })),
    ]);
    problem["additionalProperties"] = text();
    problem
}

fn since() -> Value {
    json!({ "type": "integer", "description": "Milliseconds since 1970" })
}

fn transaction() -> Value {
    let happening = object(&[
        ("at", or_null("integer")),
        ("what", text()),
        ("service", or_null("string")),
        ("step", or_null("integer")),
        ("attempt", or_null("integer")),
        ("next", or_null("integer")),
        ("by", or_null("string")),
        ("detail", or_null("string")),
    ]);
    let mut transaction = object(&[
        ("id", text()),
        ("standing", json!({ "enum": ["undecided", "settling", "stuck", "finished"] })),
        ("driven", or_null("string")),
        ("record", json!({ "type": "object" })),
        ("order", or_null("string")),
        ("user", or_null("string")),
        ("parts", list(or_null("string"))),
        ("age_ms", whole()),
        ("sendings", list(json!({ "type": "object" }))),
    ]);
    transaction["properties"]["timeline"] = list(happening);
    transaction["properties"]["trace"] = object(&[("id", text()), ("certain", json!({ "type": "boolean" }))]);
    transaction
}

fn found() -> Value {
    let named = object(&[
        ("transaction", text()),
        ("order", or_null("string")),
        ("service", text()),
        ("step", whole()),
        ("branch", json!({ "type": "string", "description": "What became of it at its service" })),
        ("caused", json!({ "type": "boolean", "description": "Whether it explains what is off" })),
    ]);
    object(&[
        ("finding", json!({ "type": "object" })),
        ("text", text()),
        ("since", since()),
        ("transactions", list(named)),
    ])
}

/// All of them.
pub(super) fn all() -> Value {
    // Tools that know an older JSON schema stumble over `prefixItems`.
    let line = json!({
        "type": "array", "description": "The item's id, and how many units", "items": { "type": ["string", "integer"] },
        "minItems": 2, "maxItems": 2,
    });
    let letter = object(&[
        ("transaction_id", text()),
        ("service", or_null("string")),
        ("step", whole()),
        ("verb", text()),
        ("attempts", whole()),
        ("error", text()),
        ("at_ms", whole()),
    ]);
    let credit = [("user_id", text()), ("credit", whole())];
    let mut deep = object(&[("status", json!({ "enum": ["ok", "down"] })), ("services", json!({ "type": "object" }))]);
    deep["description"] = json!("`status` first, then what was found");
    json!({
        "Problem": problem(),
        "Health": object(&[("status", text())]),
        "DeepHealth": deep,
        "Message": object(&[("msg", text())]),
        "Status": object(&[("status", text())]),
        "OrderId": object(&[("order_id", text())]),
        "ItemId": object(&[("item_id", text())]),
        "UserId": object(&[("user_id", text())]),
        "Order": object(&[
            ("order_id", text()), ("paid", flag()), ("items", list(line)), ("user_id", text()), ("total_cost", whole()),
        ]),
        "OrderTotal": object(&[("order_id", text()), ("item_id", text()), ("total_cost", whole())]),
        "Paid": object(&[("order_id", text()), ("paid", json!({ "const": true }))]),
        "Item": object(&[("stock", whole()), ("price", whole())]),
        "ItemStock": object(&[("item_id", text()), ("stock", whole())]),
        "User": object(&credit),
        "DeadLetters": object(&[("count", whole()), ("latest", list(letter))]),
        "FaultRules": object(&[("status", text()), ("rules", json!({ "type": "object" }))]),
        "Fault": {
            "type": "object",
            "required": ["point", "action"],
            "properties": {
                "point": text(),
                "action": { "enum": ["crash", "delay", "error", "error_after"] },
                "delay_ms": { "type": "integer", "minimum": 1, "maximum": crate::faults::MAX_DELAY_MS },
                "times": { "type": "integer", "minimum": 1 },
                "percent": { "type": "integer", "minimum": 1, "maximum": crate::faults::ALWAYS },
            },
        },
        "Transaction": transaction(),
        "Retry": {
            "type": "object",
            "additionalProperties": false,
            "properties": { "operator": or_null("string"), "reason": or_null("string") },
        },
        "TrailEntry": object(&[
            ("number", whole()), ("note", of("TrailNote")), ("outcome", or_null("string")),
        ]),
        "TrailNote": object(&[
            ("at", since()), ("operator", text()), ("act", json!({ "enum": ["retry", "resolve"] })), ("transaction", text()),
            ("step", or_null("integer")), ("reason", or_null("string")),
        ]),
        "LogLevel": object(&[("filter", text())]),
        "LogLevelChange": {
            "type": "object",
            "required": ["filter"],
            "additionalProperties": false,
            "properties": {
                "filter": { "type": "string", "examples": ["warn,orchestrator=debug"] },
                "service": { "enum": ["orders", "stock", "payment", null], "description": "Whose; without it this process's alone" },
            },
        },
        "Resolve": {
            "type": "object",
            "required": ["step", "operator", "reason"],
            "additionalProperties": false,
            "properties": {
                "step": { "type": "integer", "minimum": 0, "maximum": 255 }, "operator": text(), "reason": text(),
            },
        },
        "AuditReport": object(&[
            ("off", whole()), ("findings", list(json!({ "type": "object" }))), ("texts", list(json!({ "type": "string" }))), ("paid_orders", whole()), ("paid_cost", whole()),
            ("items", whole()), ("users", whole()), ("open_transactions", whole()), ("compared", flag()),
        ]),
        "Found": found(),
        "Auditor": object(&[
            ("by", or_null("string")), ("runs", whole()), ("at", or_null("integer")), ("checked", whole()), ("postponed", whole()),
            ("complete", flag()), ("trouble", or_null("string")), ("off", whole()), ("findings", list(of("Found"))),
        ]),
    })
}
