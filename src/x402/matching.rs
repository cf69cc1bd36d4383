//! Does a client's `accepted` name one of our requirements? Deep JSON comparison, nothing else.
//!
//! Strings are compared byte for byte and amounts are strings, so no number here is money.
//! Rule: fact sheet sections 2.6 (requirements) and 2.7 (echoed extensions).

use serde_json::{Map, Number, Value};

use crate::x402::json::{Json, Kind, Members};

/// Whether `accepted` is an answer to `offered`.
///
/// Without `extra` both must be deeply equal. Our `extra`, unless absent, must be a recursive subset
/// of the client's, after `dynamic_members` were taken from both.
#[must_use]
pub fn matches(offered: &Value, accepted: &impl Json, dynamic_members: &[&str]) -> bool {
    let (Some(offered), Some(accepted)) = (offered.members(), accepted.members()) else {
        return false;
    };
    same_members(offered, accepted, &["extra"])
        && match (offered.member("extra"), accepted.member("extra")) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => match (ours.members(), theirs.members()) {
                (Some(ours), Some(theirs)) => contains_members(theirs, ours, dynamic_members),
                (Some(_) | None, _) => same(ours, theirs),
            },
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
    echoed: Option<&impl Members>,
) -> bool {
    let (Some(advertised), Some(echoed)) = (advertised, echoed) else {
        return true;
    };
    echoed.each().all(|(key, echo)| {
        let Some(ours) = advertised.get(key) else {
            return true;
        };
        let info = echo.members().and_then(|echo| echo.member("info"));
        match (ours.get("info"), info) {
            (Some(ours), Some(echo)) => contains(echo, ours),
            (None, _) => contains(echo, ours),
            (Some(_), None) => false,
        }
    })
}

/// Whether both are the same JSON value; member order and the spelling of numbers do not matter.
#[must_use]
pub fn same<A: Json, B: Json>(a: &A, b: &B) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Object(a), Kind::Object(b)) => same_members(a, b, &[]),
        (Kind::List(a), Kind::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Kind::Number(a), Kind::Number(b)) => same_number(a, b),
        (Kind::Text(a), Kind::Text(b)) => a == b,
        (Kind::Bool(a), Kind::Bool(b)) => a == b,
        (Kind::Null, Kind::Null) => true,
        (
            Kind::Null
            | Kind::Bool(_)
            | Kind::Number(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Object(_),
            _,
        ) => false,
    }
}

/// Whether a JSON number has this value, however it is spelled: `2`, `2.0`, `20e-1`.
#[must_use]
pub fn is_number(value: &impl Json, wanted: u64) -> bool {
    matches!(value.kind(), Kind::Number(n) if same_number(n, &Number::from(wanted)))
}

fn same_members(a: &impl Members, b: &impl Members, except: &[&str]) -> bool {
    counted(a, except) == counted(b, except)
        && a.each()
            .filter(|(key, _)| !except.contains(key))
            .all(|(key, ours)| b.member(key).is_some_and(|theirs| same(ours, theirs)))
}

fn counted(members: &impl Members, except: &[&str]) -> usize {
    let present = except.iter().filter(|key| members.member(key).is_some());
    members.count().saturating_sub(present.count())
}

fn contains<A: Json, B: Json>(whole: &A, part: &B) -> bool {
    match (whole.members(), part.members()) {
        (Some(whole), Some(part)) => contains_members(whole, part, &[]),
        (Some(_) | None, _) => same(whole, part),
    }
}

fn contains_members(whole: &impl Members, part: &impl Members, except: &[&str]) -> bool {
    part.each()
        .filter(|(key, _)| !except.contains(key))
        .all(|(key, part)| whole.member(key).is_some_and(|whole| contains(whole, part)))
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
        assert!(echo_matches(ours.as_object(), None::<&Map<String, Value>>));
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
