//! The description of the API is held against the server: whatever its parameters allow or do not allow is asked, and every answer is one that is described.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use axum::response::Response;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as ProptestConfig, TestRunner};
use serde_json::{Value, json};
use shop::{Config, Shop};
use tower_service::Service;

/// Requests to each operation.
const REQUESTS: usize = 60;

struct Described {
    document: Value,
}

/// One thing that can be asked.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    described: &'a Value,
}

impl Described {
    fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, described)| Operation { method, path, described })
        })
    }

    /// Whether a body is as described: `references` go into the document.
    fn validates(&self, schema: &Value, body: &Value) -> Result<(), String> {
        let mut whole = schema.as_object().unwrap().clone();
        whole.insert("components".to_owned(), self.document["components"].clone());
        let validator = jsonschema::draft202012::new(&Value::Object(whole)).map_err(|error| error.to_string())?;
        validator.validate(body).map_err(|error| format!("{error} in {body}"))
    }
}

/// What may stand for a parameter: mostly what its schema allows.
fn text_for(schema: &Value) -> BoxedStrategy<String> {
    let junk = prop_oneof![
        Just("-1".to_owned()),
        Just("0".to_owned()),
        Just("9007199254740992".to_owned()),
        Just("1.5".to_owned()),
        Just("x".to_owned()),
        Just("%ff".to_owned()),
        Just("%20".to_owned()),
        "[a-zA-Z0-9%._-]{1,40}",
    ];
    let good = if let Some(words) = schema["enum"].as_array() {
        // A crash would be one of this test.
        let words = words.iter().filter_map(Value::as_str).filter(|word| *word != "crash").map(str::to_owned);
        prop::sample::select(words.collect::<Vec<_>>()).boxed()
    } else if schema["type"] == "integer" {
        let least = schema["minimum"].as_i64().unwrap_or(0);
        // Large seedings take seconds, long delays as long.
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX).min(20);
        (least..=most).prop_map(|number| number.to_string()).boxed()
    } else if schema["format"] == "uuid" {
        Just("0190b6e2-7c1f-7c3a-8f00-000000000001".to_owned()).boxed()
    } else {
        (0..10_u32).prop_map(|id| id.to_string()).boxed()
    };
    prop_oneof![4 => good, 1 => junk].boxed()
}

/// A body: as described, or not at all.
fn body_for(operation: &Value) -> BoxedStrategy<Option<String>> {
    if operation["requestBody"].is_null() {
        return Just(None).boxed();
    }
    let fault = json!({ "point": "before_commit", "action": "delay", "delay_ms": 1, "times": 1 });
    let resolve = json!({ "step": 1, "operator": "me", "reason": "why not" });
    prop_oneof![
        Just(None),
        Just(Some(fault.to_string())),
        Just(Some(resolve.to_string())),
        Just(Some("{\"point\":7}".to_owned())),
        Just(Some("[]".to_owned())),
        "[ -~]{0,60}".prop_map(Some),
        // More than anybody has to say.
        Just(Some("x".repeat(3 << 20))),
    ]
    .boxed()
}

fn request_for(operation: &Operation<'_>) -> impl Strategy<Value = (Request<Body>, String)> + use<> {
    let mut parts: Vec<BoxedStrategy<(String, String, Option<String>)>> = Vec::new();
    for parameter in operation.described["parameters"].as_array().into_iter().flatten() {
        let (name, place) =
            (parameter["name"].as_str().unwrap().to_owned(), parameter["in"].as_str().unwrap().to_owned());
        // One key is everybody's: it is used for another request, then.
        let key = || prop_oneof![1 => Just("everybody's".to_owned()), 3 => "[ -~]{0,300}"].boxed();
        let value = if place == "header" { key() } else { text_for(&parameter["schema"]) };
        let value = if place == "path" { value.prop_map(Some).boxed() } else { prop::option::of(value).boxed() };
        parts.push(value.prop_map(move |value| (place.clone(), name.clone(), value)).boxed());
    }
    let (method, path) = (operation.method.to_uppercase(), operation.path.to_owned());
    let accept = prop::sample::select(vec!["*/*", "application/json", "text/plain"]);
    let kind = prop::sample::select(vec!["application/json", "text/plain"]);
    (parts, body_for(operation.described), accept, kind).prop_map(move |(parts, body, accept, kind)| {
        let (mut target, mut query) = (path.clone(), Vec::new());
        let mut builder = Request::builder().method(&*method).header("accept", accept);
        for (place, name, value) in parts {
            let Some(value) = value else { continue };
            match &*place {
                "path" => target = target.replace(&format!("{{{name}}}"), &value),
                "query" => query.push(format!("{name}={value}")),
                _ => builder = builder.header(name, value),
            }
        }
        if !query.is_empty() {
            target = format!("{target}?{}", query.join("&"));
        }
        if body.is_some() {
            builder = builder.header("content-type", kind);
        }
        let said = body.as_ref().map(|body| body.get(..100).unwrap_or(body));
        let shown = format!("{method} {target} {said:?}");
        let request = builder.uri(&target).body(Body::from(body.unwrap_or_default()));
        (request.unwrap_or_else(|error| panic!("{shown}: {error}")), shown)
    })
}

/// Asks everything, and returns which statuses every operation answered with.
async fn ask_everything<S>(mut server: S, without: &[&str]) -> BTreeMap<String, BTreeSet<u16>>
where
    S: Service<Request<Body>, Response = Response>,
    S::Error: std::fmt::Debug,
{
    let document = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let answer = server.call(document).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let described = Described { document: serde_json::from_slice(&bytes).unwrap() };
    is_sound(&described);
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut met = BTreeMap::<String, BTreeSet<u16>>::new();
    for operation in
        described.operations().filter(|operation| !without.iter().any(|part| operation.path.contains(part)))
    {
        let requests = request_for(&operation);
        let name = format!("{} {}", operation.method, operation.path);
        for _ in 0..REQUESTS {
            let (request, shown) = requests.new_tree(&mut runner).unwrap().current();
            let answer = server.call(request).await.unwrap();
            let status = answer.status().as_u16();
            assert!(status < 500, "{shown}: {status}");
            let said = &operation.described["responses"][status.to_string()];
            let kind = answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
            let body = to_bytes(answer.into_body(), 16 << 20).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(!said.is_null(), "{shown}: {status} is not described: {text}");
            let kind = kind.unwrap_or_else(|| panic!("{shown}: no content type"));
            let essence = kind.split(';').next().unwrap();
            let schema = &said["content"][essence]["schema"];
            assert!(!schema.is_null(), "{shown}: {status} is not described as {essence}");
            let value =
                if essence.ends_with("json") { serde_json::from_str(&text).unwrap() } else { Value::String(text) };
            described.validates(schema, &value).unwrap_or_else(|why| panic!("{shown}: {status}: {why}"));
            met.entry(name.clone()).or_default().insert(status);
        }
    }
    met
}

/// What no answer shows: the document is OpenAPI 3.1 in itself.
fn is_sound(Described { document }: &Described) {
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    let mut used = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let named: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is another operation's id, too");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|it| it["in"] == "path");
            assert!(in_path.clone().all(|it| it["required"] == true));
            let declared: BTreeSet<&str> = in_path.map(|it| it["name"].as_str().unwrap()).collect();
            assert_eq!(declared, named, "{method} {path}");
            assert!(parameters.iter().all(|it| it["description"] != ""), "{method} {path}: a parameter without a word");
            for answer in operation["responses"].as_object().unwrap().values() {
                assert!(answer["description"].is_string());
            }
        }
    }
    let mut open = vec![document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(name) = members.get("$ref") {
                    let name = name.as_str().unwrap().strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas.contains_key(name), "there is no schema {name}");
                    used.insert(name.to_owned());
                }
                open.extend(members.values());
            }
            Value::Array(parts) => open.extend(parts),
            _ => {}
        }
    }
    for schema in schemas.values() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{error}: {schema}"));
    }
    assert!(used.len() > 3);
}

fn open(runtime: &tokio::runtime::Runtime, chaos: bool) -> (Shop, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().to_owned(), chaos, ..Config::default() };
    (runtime.block_on(Shop::open(config)).unwrap().0, folder)
}

#[test]
fn every_answer_of_the_shop_is_described() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (shop, _folder) = open(&runtime, false);
    runtime.block_on(async {
        let mut front = shop.front();
        for path in ["/stock/batch_init/10/1000/1", "/payment/batch_init/10/1000", "/orders/batch_init/10/10/10/1"] {
            let seeded = front.call(Request::post(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(seeded.status(), 200, "{path}");
        }
        // Once without seeding, which would undo what is there; and once with it.
        let mut met = ask_everything(shop.front(), &["batch_init"]).await;
        assert!(met["post /orders/checkout/{order}"].is_superset(&[200, 404].into()), "{met:?}");
        assert!(met["post /stock/subtract/{item}/{amount}"].is_superset(&[200, 400, 404, 422].into()), "{met:?}");
        let refused = &met["post /stock/fault/set"];
        assert!(refused.contains(&403) && !refused.contains(&200), "{met:?}");
        met.extend(ask_everything(shop.front(), &["fault"]).await);
        let never = |(operation, statuses): (&String, &BTreeSet<u16>)| {
            (!statuses.contains(&200) && !operation.contains("fault")).then(|| operation.clone())
        };
        assert_eq!(met.iter().filter_map(never).collect::<Vec<_>>(), Vec::<String>::new());
    });
    let (shop, _folder) = open(&runtime, true);
    runtime.block_on(async {
        let met = ask_everything(shop.front(), &["batch_init", "orders"]).await;
        assert!(met["post /stock/fault/set"].is_superset(&[200, 400, 413].into()), "{met:?}");
    });
}

#[test]
fn every_answer_to_operators_is_described() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (shop, _folder) = open(&runtime, false);
    runtime.block_on(async {
        let met = ask_everything(shop.admin_router(), &[]).await;
        assert!(met["get /audit"].contains(&200) && met["post /audit"].contains(&200), "{met:?}");
        assert!(met["post /transactions/{id}/resolve"].is_superset(&[400, 404].into()), "{met:?}");
    });
}

/// Nothing is routed but by `Api`, which describes it. What is served for every path, and the document itself, are the exceptions.
#[test]
fn no_route_is_made_without_a_description() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![sources], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if std::fs::read_to_string(&entry).unwrap().contains(".route(") {
                found.insert(entry.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(found, ["openapi.rs".to_owned()].into(), "these make routes past `openapi::Api`");
}
