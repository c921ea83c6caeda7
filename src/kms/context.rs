//! The encryption context and its canonical form (`docs/ciphertext-blob.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most bytes that a context may have, keys and values together. AWS documents no limit; this one is our choice (assumed).
pub const MAX_CONTEXT_BYTES: usize = 8192;

/// An encryption context: pairs of strings, compared byte for byte, in no order. A missing context is the empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncryptionContext(pub BTreeMap<String, String>);

impl EncryptionContext {
    /// The bytes that are bound to a ciphertext: the number of pairs, then each pair in the order of its key's bytes, key
    /// and value each behind their length; numbers are 32 bits, big-endian. Different contexts give different bytes.
    ///
    /// # Panics
    /// If a string is longer than 4 GiB, which [`MAX_CONTEXT_BYTES`] rules out long before.
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.text_bytes() + 8 * self.0.len());
        let put_length = |bytes: &mut Vec<u8>, length: usize| {
            let length = u32::try_from(length).expect("contexts are limited to 8 KiB when a request is checked");
            bytes.extend_from_slice(&length.to_be_bytes());
        };
        put_length(&mut bytes, self.0.len());
        for (key, value) in &self.0 {
            for text in [key, value] {
                put_length(&mut bytes, text.len());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }

    /// Bytes of all keys and values together.
    pub fn text_bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Whether it has no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every pair of `part` is in this context too.
    pub fn contains_all(&self, part: &Self) -> bool {
        part.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for EncryptionContext {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_canonical_form_is_as_documented() {
        assert_eq!(context(&[]).canonical(), [0; 4]);
        let bytes = context(&[("b", "xy"), ("a", "")]).canonical();
        assert_eq!(bytes, b"\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01b\0\0\0\x02xy");
    }

    #[test]
    fn neither_order_nor_padding_nor_case_nor_unicode_form_is_taken_for_another() {
        assert_eq!(context(&[("a", "1"), ("b", "2")]), context(&[("b", "2"), ("a", "1")]));
        let different = [
            context(&[("a", "b")]),
            context(&[("ab", "")]),
            context(&[("", "ab")]),
            context(&[("A", "b")]),
            context(&[("a", "b"), ("", "")]),
            context(&[("\u{e9}", "")]),
            context(&[("e\u{301}", "")]),
        ];
        for (index, one) in different.iter().enumerate() {
            assert!(different[..index].iter().all(|other| other.canonical() != one.canonical()), "{one:?}");
        }
    }

    /// Reads a canonical form back: that this is possible shows that no two contexts share one.
    fn read_back(mut bytes: &[u8]) -> Vec<(String, String)> {
        fn number(bytes: &mut &[u8]) -> usize {
            let (head, rest) = bytes.split_first_chunk::<4>().unwrap();
            *bytes = rest;
            usize::try_from(u32::from_be_bytes(*head)).unwrap()
        }
        fn text(bytes: &mut &[u8]) -> String {
            let length = number(bytes);
            let (head, rest) = bytes.split_at(length);
            *bytes = rest;
            String::from_utf8(head.to_vec()).unwrap()
        }
        let count = number(&mut bytes);
        let pairs = (0..count).map(|_| (text(&mut bytes), text(&mut bytes))).collect();
        assert!(bytes.is_empty());
        pairs
    }

    proptest! {
        #[test]
        fn the_canonical_form_can_be_read_back(pairs in prop::collection::vec((".{0,12}", ".{0,12}"), 0..8)) {
            let context: EncryptionContext = pairs.iter().cloned().collect();
            let mut wanted: Vec<_> = context.0.clone().into_iter().collect();
            wanted.sort();
            prop_assert_eq!(read_back(&context.canonical()), wanted);
            let reversed: EncryptionContext =
                context.0.clone().into_iter().rev().collect();
            prop_assert_eq!(reversed.canonical(), context.canonical());
        }

        #[test]
        fn equal_bytes_mean_equal_contexts(
            one in prop::collection::btree_map("[ab]{0,3}", "[ab]{0,3}", 0..4),
            other in prop::collection::btree_map("[ab]{0,3}", "[ab]{0,3}", 0..4),
        ) {
            let (one, other) = (EncryptionContext(one), EncryptionContext(other));
            prop_assert_eq!(one.canonical() == other.canonical(), one == other);
        }
    }
}
