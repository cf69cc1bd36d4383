//! JSON as it stands in a payment header: texts are not copied but pointed at.
//!
//! It goes through the parser that `serde_json::Value` goes through, with the same limits, and means the same:
//! of members with one name the last one counts, in the place of the first. What reads payloads and compares
//! them takes either, by the traits [`Json`] and [`Members`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Up to so many members a name is looked for one by one. More are indexed, or an object of thousands of
/// them would be compared with itself.
const FEW: usize = 32;
/// With a member of this name `serde_json` means the text of another value. Whoever reads what we pass on with
/// it would read another payment.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// A JSON value, whoever keeps it.
pub trait Json: Sized {
    /// What it keeps the members of an object in.
    type Members: Members<Value = Self>;

    /// What it is.
    fn kind(&self) -> Kind<'_, Self>;

    /// It, if it is a text.
    fn text(&self) -> Option<&str> {
        match self.kind() {
            Kind::Text(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Object(_) => None,
        }
    }

    /// Its members, if it is an object.
    fn members(&self) -> Option<&Self::Members> {
        match self.kind() {
            Kind::Object(members) => Some(members),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => None,
        }
    }
}

/// The members of a JSON object; each name is there once.
pub trait Members {
    /// What they are.
    type Value: Json<Members = Self>;

    /// The member of this name.
    fn member(&self, name: &str) -> Option<&Self::Value>;

    /// How many there are.
    fn count(&self) -> usize;

    /// All of them.
    fn each(&self) -> impl Iterator<Item = (&str, &Self::Value)>;
}

/// What a JSON value is.
#[derive(Debug)]
pub enum Kind<'j, J: Json> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(&'j Number),
    /// A text.
    Text(&'j str),
    /// An array.
    List(&'j [J]),
    /// An object.
    Object(&'j J::Members),
}

/// A JSON value that points into the bytes it was read from, wherever a text needs no unescaping.
#[derive(Clone, Debug)]
pub enum Borrowed<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Object<'a>),
}

/// The members of an object, in the order in which their names came first.
#[derive(Clone, Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Borrowed<'a>)>);

impl Json for Value {
    type Members = Map<String, Self>;

    fn kind(&self) -> Kind<'_, Self> {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(value) => Kind::Bool(*value),
            Self::Number(number) => Kind::Number(number),
            Self::String(text) => Kind::Text(text),
            Self::Array(list) => Kind::List(list),
            Self::Object(members) => Kind::Object(members),
        }
    }
}

impl Members for Map<String, Value> {
    type Value = Value;

    fn member(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<'a> Json for Borrowed<'a> {
    type Members = Object<'a>;

    fn kind(&self) -> Kind<'_, Self> {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(value) => Kind::Bool(*value),
            Self::Number(number) => Kind::Number(number),
            Self::Text(text) => Kind::Text(text),
            Self::List(list) => Kind::List(list),
            Self::Object(members) => Kind::Object(members),
        }
    }
}

impl<'a> Members for Object<'a> {
    type Value = Borrowed<'a>;

    fn member(&self, name: &str) -> Option<&Borrowed<'a>> {
        self.0
            .iter()
            .find_map(|(own, value)| (own == name).then_some(value))
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Borrowed<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<'a> Object<'a> {
    /// Adds a member, or gives the one of this name another value. `index` knows where the names are once
    /// there are many.
    fn put(
        &mut self,
        name: Cow<'a, str>,
        value: Borrowed<'a>,
        index: &mut HashMap<Cow<'a, str>, usize>,
    ) {
        let found = if self.0.len() < FEW {
            self.0.iter().position(|(own, _)| *own == name)
        } else {
            if index.is_empty() {
                let names = self.0.iter().enumerate();
                index.extend(names.map(|(at, (own, _))| (own.clone(), at)));
            }
            index.get(&name).copied()
        };
        match found.and_then(|at| self.0.get_mut(at)) {
            Some((_, old)) => *old = value,
            None => {
                if !index.is_empty() {
                    index.insert(name.clone(), self.0.len());
                }
                self.0.push((name, value));
            }
        }
    }
}

impl From<&Borrowed<'_>> for Value {
    fn from(json: &Borrowed<'_>) -> Self {
        match json {
            Borrowed::Null => Self::Null,
            Borrowed::Bool(value) => Self::Bool(*value),
            Borrowed::Number(number) => Self::Number(number.clone()),
            Borrowed::Text(text) => Self::String(text.to_string()),
            Borrowed::List(list) => list.iter().map(Self::from).collect(),
            Borrowed::Object(members) => Self::Object(members.into()),
        }
    }
}

impl From<&Object<'_>> for Map<String, Value> {
    fn from(members: &Object<'_>) -> Self {
        let own = |(name, value): &(Cow<'_, str>, _)| (name.to_string(), Value::from(value));
        members.0.iter().map(own).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Borrowed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// The name of a member.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameReader).map(Self)
    }
}

struct Reader;
struct NameReader;

impl<'de> Visitor<'de> for NameReader {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Borrowed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Borrowed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Borrowed::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Borrowed::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Borrowed::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        // JSON has no spelling for what is no number.
        Ok(Number::from_f64(value).map_or(Borrowed::Null, Borrowed::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Borrowed::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Borrowed::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Borrowed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut index) = (Object(Vec::new()), HashMap::new());
        while let Some((Name(name), value)) = map.next_entry()? {
            if name == RAW_VALUE {
                return Err(A::Error::custom("a name that no payment has"));
            }
            members.put(name, value, &mut index);
        }
        Ok(Borrowed::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::matching::same;
    use proptest::prelude::*;

    /// Whether both readers read `text`, and the same out of it.
    #[track_caller]
    fn agree(text: &[u8]) {
        let (ours, theirs) = (
            serde_json::from_slice::<Borrowed<'_>>(text),
            serde_json::from_slice::<Value>(text),
        );
        let told = String::from_utf8_lossy(text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(Value::from(&ours), theirs, "{told}");
                assert_eq!(Value::from(&ours).to_string(), theirs.to_string(), "{told}");
                assert!(same(&theirs, &ours) && same(&ours, &theirs), "{told}");
            }
            (ours, theirs) => assert_eq!(
                ours.err().map(|error| error.to_string()),
                theirs.err().map(|error| error.to_string()),
                "{told}"
            ),
        }
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        for text in [
            r#"{"a":1,"b":[null,true,-5,1.5,"x"],"c":{"d":"é","e":"\u00e9\ud83d\ude00"}}"#,
            r#"{"a":1,"b":2,"a":{"c":3}}"#,
            r#"{"a\u0062":1,"ab":2}"#,
            r#"[18446744073709551615,18446744073709551616,-9223372036854775809,1e300,-0.0,0]"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":01}"#,
            r#"{"a":1,}"#,
            r#"{"a":1} x"#,
            r#"{"a":"x"#,
            r#"{"":""}"#,
            "",
        ] {
            agree(text.as_bytes());
        }
        agree(b"{\"a\":\"\xff\"}");
        for depth in [127, 128, 129, 5000] {
            agree("[".repeat(depth).as_bytes());
            agree(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
            agree(format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)).as_bytes());
        }
    }

    #[test]
    fn nothing_is_read_that_serde_json_would_read_as_something_else() {
        for text in [
            r#"{"$serde_json::private::RawValue":"[1]"}"#,
            r#"{"a":{"$serde_json::private::RawValue":"x"}}"#,
            r#"{"a":1,"$serde_json::private::RawValue":1}"#,
        ] {
            assert!(
                serde_json::from_str::<Borrowed<'_>>(text).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn of_members_with_one_name_the_last_counts_however_many_there_are() {
        for count in [2, FEW - 1, FEW, FEW + 1, 500] {
            let once = (0..count).map(|n| format!("\"m{n}\":{n}"));
            let again = (0..count).map(|n| format!("\"m{n}\":[{n}]"));
            let text = once.chain(again).collect::<Vec<_>>().join(",");
            agree(format!("{{{text}}}").as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_text_is_read_in_two_ways(text in r#"[\{\}\[\],:"\\eu0-9.a-c é-]{0,40}"#) {
            agree(text.as_bytes());
            agree(format!("{{{text}}}").as_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            agree(&bytes);
        }
    }
}
