//! Settings of a service: their types, and whether a value fits.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One setting. Without a default the site must give a value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingSpec {
    pub r#type: SettingType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// One sentence for people.
    pub doc: String,
    /// For `choice`: what may be chosen.
    #[serde(default)]
    pub values: Vec<String>,
    /// For numbers: the smallest.
    #[serde(default)]
    pub min: Option<i64>,
    /// For numbers: the largest.
    #[serde(default)]
    pub max: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingType {
    Port,
    Integer,
    Boolean,
    String,
    Choice,
    Seconds,
    Bytes,
    Address,
    /// For example `10.77.0.100/24`.
    AddressWithPrefix,
    /// A list of texts.
    List,
}

impl SettingSpec {
    /// What a value must be, in words.
    pub fn wanted(&self) -> String {
        let (low, high) = self.range();
        let number = match (low, high) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            (low, i64::MAX) => format!("a whole number of at least {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        match self.r#type {
            SettingType::Port => format!("a port: {number}"),
            SettingType::Integer => number,
            SettingType::Seconds => format!("seconds: {number}"),
            SettingType::Bytes => format!("bytes: {number}"),
            SettingType::Boolean => "true or false".to_owned(),
            SettingType::String => "text in one line".to_owned(),
            SettingType::Choice => format!("one of {}", self.values.join(", ")),
            SettingType::Address => "an IP address".to_owned(),
            SettingType::AddressWithPrefix => {
                "an IP address with prefix length, for example 10.0.0.5/24".to_owned()
            }
            SettingType::List => "a list of texts".to_owned(),
        }
    }

    fn range(&self) -> (i64, i64) {
        let (low, high) = match self.r#type {
            SettingType::Port => (1, 65535),
            SettingType::Seconds | SettingType::Bytes => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        (
            self.min.unwrap_or(low).max(low),
            self.max.unwrap_or(high).min(high),
        )
    }

    pub fn accepts(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self.r#type {
            SettingType::Port
            | SettingType::Integer
            | SettingType::Seconds
            | SettingType::Bytes => {
                let (low, high) = self.range();
                value.as_i64().is_some_and(|n| (low..=high).contains(&n))
            }
            SettingType::Boolean => value.is_boolean(),
            SettingType::String => text.is_some_and(one_line),
            SettingType::Choice => text.is_some_and(|t| self.values.iter().any(|v| v == t)),
            SettingType::Address => text.is_some_and(|t| t.parse::<IpAddr>().is_ok()),
            SettingType::AddressWithPrefix => text.is_some_and(|t| parse_prefix(t).is_some()),
            SettingType::List => value
                .as_array()
                .is_some_and(|list| list.iter().all(|v| v.as_str().is_some_and(one_line))),
        }
    }
}

/// A value with a line break or a control character could add lines to a rendered configuration.
fn one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// `10.0.0.5/24` → address and prefix length.
pub fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (length <= bits).then_some((address, length))
}

/// Does the network that `address/length` lies in hold `other`?
pub fn same_network(address: IpAddr, length: u8, other: IpAddr) -> bool {
    match (address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(kind: SettingType) -> SettingSpec {
        SettingSpec {
            r#type: kind,
            default: None,
            doc: String::new(),
            values: vec!["ignore".to_owned()],
            min: None,
            max: None,
        }
    }

    #[rstest::rstest]
    #[case(SettingType::Port, json!(3306), true)]
    #[case(SettingType::Port, json!(0), false)]
    #[case(SettingType::Port, json!(65536), false)]
    #[case(SettingType::Port, json!("3306"), false)]
    #[case(SettingType::Seconds, json!(-1), false)]
    #[case(SettingType::Boolean, json!("yes"), false)]
    #[case(SettingType::String, json!("a\nb"), false)]
    #[case(SettingType::Choice, json!("ignore"), true)]
    #[case(SettingType::Choice, json!("ignor"), false)]
    #[case(SettingType::Address, json!("10.0.0.256"), false)]
    #[case(SettingType::AddressWithPrefix, json!("10.0.0.5/33"), false)]
    #[case(SettingType::AddressWithPrefix, json!("10.0.0.5/24"), true)]
    #[case(SettingType::List, json!(["a", 1]), false)]
    fn values_are_checked(#[case] kind: SettingType, #[case] value: Value, #[case] fits: bool) {
        assert_eq!(spec(kind).accepts(&value), fits);
    }

    #[rstest::rstest]
    #[case("10.77.0.100", 24, "10.77.0.11", true)]
    #[case("10.77.1.100", 24, "10.77.0.11", false)]
    #[case("10.77.1.100", 0, "192.0.2.1", true)]
    #[case("fd00::1", 64, "fd00::2", true)]
    #[case("fd00::1", 64, "10.0.0.1", false)]
    fn networks_hold_addresses(
        #[case] address: IpAddr,
        #[case] length: u8,
        #[case] other: IpAddr,
        #[case] holds: bool,
    ) {
        assert_eq!(same_network(address, length, other), holds);
    }
}
