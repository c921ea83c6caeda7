//! Which members a request's struct accepts, asked of its own `Deserialize`.

use serde::Deserialize;
use serde::de::{self, Visitor};

/// The names of the members that `T` is deserialised from, as they are spelled in JSON; empty if `T` is no struct.
pub fn members_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The recorder never yields a value: the names are all that is wanted.
    let _ = T::deserialize(Recorder(&mut names));
    names
}

/// A deserializer that writes down what is asked of it and then gives up.
struct Recorder<'a>(&'a mut &'static [&'static str]);

impl<'de> de::Deserializer<'de> for Recorder<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only names are recorded"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        #[expect(dead_code, reason = "only its names are looked at")]
        struct Request {
            key_id: String,
            #[serde(rename = "GrantTokens")]
            tokens: Option<Vec<String>>,
        }
        assert_eq!(members_of::<Request>(), ["KeyId", "GrantTokens"]);
        assert!(members_of::<String>().is_empty());
    }
}
