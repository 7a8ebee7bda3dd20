//! The result document keeps to the schema that is shipped with it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

mod support;

use serde_json::{Value, json};
use support::{Faults, NullServer};

const SCHEMA: &str = include_str!("../schema/run-1.schema.json");

/// Checks a value against the part of JSON Schema (2020-12) that the shipped schema uses. A keyword it does not know is
/// a failure, so that the schema cannot say something that nobody checks.
struct Validator {
    root: Value,
    mistakes: Vec<String>,
}

impl Validator {
    fn mistakes(schema: &Value, value: &Value) -> Vec<String> {
        let mut validator = Self {
            root: schema.clone(),
            mistakes: Vec::new(),
        };
        validator.check(schema, value, "");
        validator.mistakes
    }

    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        for (keyword, rule) in schema.as_object().expect("a schema is an object") {
            let holds = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "contentEncoding" | "format" => {
                    true
                }
                "$ref" | "items" | "properties" | "additionalProperties" => {
                    self.descend(keyword, rule, value, at);
                    true
                }
                simple => holds(simple, rule, value),
            };
            if !holds {
                self.mistakes.push(format!("{at}: {keyword} {rule}"));
            }
        }
    }

    /// Checks the parts of a value, or the value against a schema elsewhere.
    fn descend(&mut self, keyword: &str, rule: &Value, value: &Value, at: &str) {
        match keyword {
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#'));
                let target = pointer
                    .and_then(|pointer| self.root.pointer(pointer))
                    .cloned();
                self.check(&target.unwrap_or_else(|| panic!("no {rule}")), value, at);
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, item, &format!("{at}/{index}"));
                }
            }
            _ => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let rule = if keyword == "properties" {
                        rule.get(name)
                    } else {
                        Some(rule)
                    };
                    // Members may be added within a major version; here we want to know of each.
                    match rule {
                        Some(rule) => self.check(rule, member, &format!("{at}/{name}")),
                        None => self
                            .mistakes
                            .push(format!("{at}/{name} is not in the schema")),
                    }
                }
            }
        }
    }
}

/// Keywords that look at one value and nothing inside it.
fn holds(keyword: &str, rule: &Value, value: &Value) -> bool {
    let bound = || rule.as_u64().expect("a bound");
    match keyword {
        "type" => match rule {
            Value::Array(names) => names.iter().any(|name| has_type(value, name)),
            name => has_type(value, name),
        },
        "const" => value == rule,
        "enum" => rule.as_array().expect("a list").contains(value),
        "minimum" => value
            .as_f64()
            .is_none_or(|number| number >= rule.as_f64().expect("a bound")),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.len() as u64 >= bound()),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= bound()),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= bound()),
        "required" => value.as_object().is_none_or(|members| {
            let mut names = rule
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            names.all(|name| members.contains_key(name))
        }),
        unknown => panic!("the schema uses `{unknown}`, which is not checked here"),
    }
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("`{other}` is no type"),
    }
}

#[test]
fn results_keep_to_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let server = NullServer::start(Faults {
        busy_every: Some(50),
        ..Faults::default()
    });
    let pid = std::process::id();
    // Ten seconds, so that there are confidence intervals.
    let (_, open) = server.run_json(&format!(
        "--mix p256=1,ping=9 -r 300 -d 10s -w 0s -c 2 --slo p99<1s --slo errors<50% --slo mean<1s \
         --label a=b --server-pid {pid} --verify 1%"
    ));
    assert_eq!(Validator::mistakes(&schema, &open), Vec::<String>::new());
    assert!(
        open.pointer("/result/latency/response/ci95/p99").is_some(),
        "no interval in {open}"
    );
    assert!(open["result"]["server_cpu"].is_object());
    let (_, closed) = server.run_json("--mix ping --closed -n 100 -w 0s -c 1");
    assert_eq!(Validator::mistakes(&schema, &closed), Vec::<String>::new());
    let stock = NullServer::start(Faults {
        stock: true,
        ..Faults::default()
    });
    let (_, stock) = stock.run_json("--mix ping --closed -n 100 -w 0s -c 1");
    assert_eq!(Validator::mistakes(&schema, &stock), Vec::<String>::new());
}

#[test]
fn the_check_itself_finds_mistakes() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mistakes = Validator::mistakes(
        &schema,
        &json!({"schema": "loadgen.run/2", "slo": [{"expr": 1}], "new": 0}),
    );
    let text = mistakes.join("\n");
    for part in [
        "/schema: const",
        "/slo/0/expr: type",
        "/slo/0: required",
        ": required",
        "/new is not in the schema",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn the_files_of_a_result_directory_can_be_read() {
    let server = NullServer::start(Faults::default());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("result");
    let out_text = out.to_str().unwrap();
    let arguments =
        format!("--mix ping -r 500 -d 2s -w 0s -c 1 --hlog --hgrm --fail-on slo --out {out_text}");
    let output = server.loadgen(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", support::text_of(&output));
    let read = |name: &str| {
        std::fs::read_to_string(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };

    let result: Value = serde_json::from_str(&read("result.json")).unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read("summary.txt"), page);
    for part in ["response", "service", "send lag", "p99.9", "checked"] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("offered"), "{progress}");

    let log = read("run.hlog");
    let entries: Vec<_> =
        hdrhistogram::serialization::interval_log::IntervalLogIterator::new(log.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
    let intervals = entries
        .iter()
        .filter(|entry| {
            matches!(
                entry,
                hdrhistogram::serialization::interval_log::LogEntry::Interval(_)
            )
        })
        .count();
    assert_eq!(intervals, result["intervals"].as_array().unwrap().len());
    assert!(read("run.hgrm").contains("#[Max"));

    let again = server.loadgen(&arguments).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(support::text_of(&again).contains("not empty"));
}
