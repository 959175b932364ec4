//! Maps with port numbers as keys. JSON keys are texts, and serde does not turn them back into numbers inside a tagged enum.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub fn serialize<S: Serializer>(
    ports: &BTreeMap<u16, Vec<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ports.iter().map(|(port, value)| (port.to_string(), value)))
}

pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u16, Vec<String>>, D::Error> {
    BTreeMap::<String, Vec<String>>::deserialize(deserializer)?
        .into_iter()
        .map(|(port, value)| {
            let number = port.parse().map_err(|_| {
                D::Error::custom(format!("expected a port number as key, found {port:?}"))
            })?;
            Ok((number, value))
        })
        .collect()
}
