//! JSON objects that name a member twice, as RabbitMQ 3.10 does with the mirrors of a queue: lists are joined, equal values are
//! one, and anything else is an error, for nobody can say which of them is meant.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

/// The typed value.
pub fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = serde_json::from_str(text).and_then(|Joined(value)| serde_json::from_value(value));
    read.map_err(|error| format!("expected JSON of another shape: {error}"))
}

/// A value in which every member is there once.
struct Joined(Value);

impl<'de> Deserialize<'de> for Joined {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Joined)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Joined(one)) = list.next_element()? {
            all.push(one);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Joined(value))) = members.next_entry::<String, _>()? {
            match object.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(mut known) => {
                    let name = known.key().clone();
                    join(known.get_mut(), value)
                        .map_err(|why| A::Error::custom(format!("{name}: {why}")))?;
                }
            }
        }
        Ok(object.into())
    }
}

fn join(known: &mut Value, other: Value) -> Result<(), String> {
    match (known, other) {
        (Value::Array(known), Value::Array(other)) => {
            for one in other {
                if !known.contains(&one) {
                    known.push(one);
                }
            }
            Ok(())
        }
        (known, other) if *known == other => Ok(()),
        (known, other) => Err(format!("named twice, as {known} and as {other}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_joined_equal_values_are_one_and_the_rest_is_refused() {
        let read = json::<Value>;
        assert_eq!(
            read(r#"[{"a":[1,2],"b":"x","a":[2,3],"b":"x","c":{"d":[],"d":[null]}}]"#),
            Ok(json!([{"a": [1, 2, 3], "b": "x", "c": {"d": [null]}}]))
        );
        let error = read(r#"{"a":1,"a":2}"#).unwrap_err();
        assert!(error.contains("a: named twice, as 1 and as 2"), "{error}");
        assert!(read(r#"{"a":[],"a":"x"}"#).is_err());
        assert!(read("{").is_err());
    }
}
