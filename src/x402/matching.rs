//! Does a client's `accepted` name one of our requirements? Deep JSON comparison, nothing else.
//!
//! Strings are compared byte for byte and amounts are strings, so no number here is money.
//! Rule: fact sheet sections 2.6 (requirements) and 2.7 (echoed extensions).

use serde_json::{Map, Number, Value};

/// Whether `accepted` is an answer to `offered`.
///
/// Without `extra` both must be deeply equal. Our `extra`, unless absent, must be a recursive subset
/// of the client's, after `dynamic_members` were taken from both.
#[must_use]
pub fn matches(offered: &Value, accepted: &Value, dynamic_members: &[&str]) -> bool {
    let (Value::Object(offered), Value::Object(accepted)) = (offered, accepted) else {
        return false;
    };
    same_members(offered, accepted, &["extra"])
        && match (offered.get("extra"), accepted.get("extra")) {
            (None, _) => true,
            (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                contains_members(theirs, ours, dynamic_members)
            }
            (Some(ours), Some(theirs)) => same(ours, theirs),
            (Some(_), None) => false,
        }
}

/// The members of `extra` that a client may refresh by itself.
#[must_use]
pub fn dynamic_members(scheme: &str, network: &str) -> &'static [&'static str] {
    match (scheme, network.starts_with("solana:")) {
        ("exact", true) => &["recentBlockhash", "lastValidBlockHeight"],
        ("upto", true) => &["recentBlockhash", "lastValidBlockHeight", "recentSlot"],
        _ => &[],
    }
}

/// Whether the client left the extensions that we advertised as they were.
///
/// What we did not advertise is ignored. Of each extension that comes back, the `info` we
/// advertised (or the whole value, without `info`) must be a recursive subset of the echo.
#[must_use]
pub fn echo_matches(
    advertised: Option<&Map<String, Value>>,
    echoed: Option<&Map<String, Value>>,
) -> bool {
    let (Some(advertised), Some(echoed)) = (advertised, echoed) else {
        return true;
    };
    echoed.iter().all(|(key, echo)| {
        let Some(ours) = advertised.get(key) else {
            return true;
        };
        match (ours.get("info"), echo.get("info")) {
            (Some(ours), Some(echo)) => contains(echo, ours),
            (None, _) => contains(echo, ours),
            (Some(_), None) => false,
        }
    })
}

/// Whether both are the same JSON value; member order and the spelling of numbers do not matter.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_members(a, b, &[]),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (a, b) => a == b,
    }
}

/// Whether a JSON number has this value, however it is spelled: `2`, `2.0`, `20e-1`.
#[must_use]
pub fn is_number(value: &Value, wanted: u64) -> bool {
    matches!(value, Value::Number(n) if same_number(n, &Number::from(wanted)))
}

fn same_members(a: &Map<String, Value>, b: &Map<String, Value>, except: &[&str]) -> bool {
    let counted = |map: &Map<String, Value>| {
        let present = |key: &&&str| map.contains_key(**key);
        map.len()
            .saturating_sub(except.iter().filter(present).count())
    };
    counted(a) == counted(b)
        && a.iter()
            .filter(|(key, _)| !except.contains(&key.as_str()))
            .all(|(key, ours)| b.get(key).is_some_and(|theirs| same(ours, theirs)))
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => contains_members(whole, part, &[]),
        (whole, part) => same(whole, part),
    }
}

fn contains_members(
    whole: &Map<String, Value>,
    part: &Map<String, Value>,
    except: &[&str],
) -> bool {
    part.iter()
        .filter(|(key, _)| !except.contains(&key.as_str()))
        .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
}

/// Integers compare exactly. Where one side is spelled as a fraction, both are compared as the
/// doubles that JavaScript would see, but only within the range where doubles are exact.
fn same_number(a: &Number, b: &Number) -> bool {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if a == b {
        return true;
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) if a.is_f64() != b.is_f64() => x.abs() <= EXACT_MAX && x == y,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn check(offered: Value, accepted: Value, want: bool) {
        assert_eq!(
            matches(&offered, &accepted, &["recentBlockhash"]),
            want,
            "{offered} {accepted}"
        );
    }

    #[test]
    fn the_core_must_be_equal_and_extra_may_be_more() {
        check(json!({"a": "1"}), json!({"a": "1"}), true);
        check(json!({"a": "1"}), json!({"a": 1}), false);
        check(json!({"a": "0xAb"}), json!({"a": "0xab"}), false);
        check(json!({"a": "1"}), json!({"a": "1", "b": "2"}), false);
        check(json!({"a": "1", "b": null}), json!({"a": "1"}), false);
        check(
            json!({"a": {"x": 1}}),
            json!({"a": {"x": 1, "y": 2}}),
            false,
        );
        check(
            json!({"a": "1"}),
            json!({"a": "1", "extra": {"x": 1}}),
            true,
        );
        check(json!({"extra": {}}), json!({}), false);
        check(
            json!({"extra": {"x": {"y": 1}}}),
            json!({"extra": {"x": {"y": 1, "z": 2}}}),
            true,
        );
        check(
            json!({"extra": {"x": [1]}}),
            json!({"extra": {"x": [1, 2]}}),
            false,
        );
        check(
            json!({"extra": {"x": [{"y": 1}]}}),
            json!({"extra": {"x": [{"y": 1, "z": 2}]}}),
            false,
        );
        check(
            json!({"extra": {"x": null}}),
            json!({"extra": {"x": null}}),
            true,
        );
        check(json!({"extra": {"x": null}}), json!({"extra": {}}), false);
        check(json!({"extra": {"x": 1}}), json!({"extra": null}), false);
        check(json!([]), json!([]), false);
    }

    #[test]
    fn dynamic_members_do_not_count_on_either_side() {
        let offered = json!({"extra": {"feePayer": "A", "recentBlockhash": "old"}});
        check(
            offered.clone(),
            json!({"extra": {"feePayer": "A", "recentBlockhash": "new"}}),
            true,
        );
        check(offered.clone(), json!({"extra": {"feePayer": "A"}}), true);
        check(
            offered,
            json!({"extra": {"feePayer": "B", "recentBlockhash": "old"}}),
            false,
        );
        assert_eq!(dynamic_members("exact", "eip155:1"), &[] as &[&str]);
        assert_eq!(dynamic_members("upto", "solana:x").len(), 3);
        assert_eq!(dynamic_members("exact", "solana:x").len(), 2);
    }

    #[test]
    fn numbers_compare_by_value() {
        check(json!({"a": 300}), json!({"a": 300.0}), true);
        check(json!({"a": 300}), json!({"a": 300.000_1}), false);
        check(json!({"a": 300}), json!({"a": 301}), false);
        check(
            json!({"a": 9_007_199_254_740_993_u64}),
            json!({"a": 9_007_199_254_740_992_u64}),
            false,
        );
        check(
            json!({"a": 9_007_199_254_740_993_u64}),
            json!({"a": 9_007_199_254_740_994.0}),
            false,
        );
        check(json!({"a": 1e300}), json!({"a": 1e300}), true);
    }

    #[test]
    fn echoed_extensions_must_hold_what_was_advertised() {
        let ours = json!({"bazaar": {"info": {"a": 1}, "schema": {}}, "plain": {"b": 2}});
        let echo = |value: Value| echo_matches(ours.as_object(), value.as_object());
        assert!(echo(json!({})));
        assert!(echo(json!({"unknown": 1})));
        assert!(echo(
            json!({"bazaar": {"info": {"a": 1, "b": 2}}, "plain": {"b": 2, "c": 3}})
        ));
        assert!(!echo(json!({"bazaar": {"info": {"a": 2}}})));
        assert!(!echo(json!({"bazaar": {"a": 1}})));
        assert!(!echo(json!({"plain": {}})));
        assert!(echo_matches(None, json!({"x": 1}).as_object()));
        assert!(echo_matches(ours.as_object(), None));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((".{0,5}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .rev()
                    .map(|(k, v)| (k.clone(), reversed(v)))
                    .collect(),
            ),
            Value::Array(list) => list.iter().map(reversed).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    proptest! {
        #[test]
        fn every_requirement_matches_itself_in_any_member_order(core in any_json(), extra in any_json()) {
            let offered = json!({"core": core, "other": 1, "extra": extra});
            prop_assert!(matches(&offered, &offered, &[]));
            prop_assert!(matches(&offered, &reversed(&offered), &[]));
        }

        #[test]
        fn an_added_core_member_never_matches(core in any_json(), key in "[a-z]{3,9}") {
            prop_assume!(key != "core" && key != "extra");
            let offered = json!({"core": core});
            let mut accepted = offered.clone();
            accepted[key] = json!(1);
            prop_assert!(!matches(&offered, &accepted, &[]));
        }
    }
}
