//! What a request says of itself: the values of its condition keys.

use std::collections::BTreeMap;

use super::keys::known;

/// What a request has under a condition key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// These values; one, unless the key is multi-valued.
    Values(Vec<String>),
    /// Nothing: the request surely does not have the key.
    Absent,
    /// It cannot be told; the reason.
    Unknown(String),
}

/// The condition keys of a request. Names are the same in any case, as AWS has it.
///
/// A key that was not set is absent if it is known ([`known`]) and else not known: a policy that asks for it decides
/// nothing.
#[derive(Clone, Default, Debug)]
pub struct Context {
    entries: BTreeMap<String, Entry>,
    /// Beginnings of names about which nothing is known, such as `aws:principaltag/`.
    unknown_prefixes: Vec<(String, String)>,
}

impl Context {
    /// Sets a key to one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.set_all(key, [value.into()])
    }

    /// Sets a multi-valued key; no values make it absent.
    pub fn set_all<S: Into<String>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) -> &mut Self {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        let entry = if values.is_empty() { Entry::Absent } else { Entry::Values(values) };
        self.entries.insert(key.to_ascii_lowercase(), entry);
        self
    }

    /// Sets a key to `value` if there is one; else the key is surely absent.
    pub fn set_opt(&mut self, key: &str, value: Option<impl Into<String>>) -> &mut Self {
        self.set_all(key, value.map(Into::into))
    }

    /// Adds one of a family of keys, such as `aws:ResourceTag/` and a tag's name. Two names that differ in their case alone
    /// are one key with two values, and which of them AWS takes is not documented: such a key is not known.
    pub fn set_named(&mut self, family: &str, name: &str, value: &str) -> &mut Self {
        let key = format!("{family}{name}").to_ascii_lowercase();
        let entry = match self.entries.get(&key) {
            Some(Entry::Values(_) | Entry::Unknown(_)) => {
                Entry::Unknown(format!("the request has two values of '{family}{name}', which differ in case alone"))
            }
            _ => Entry::Values(vec![value.to_owned()]),
        };
        self.entries.insert(key, entry);
        self
    }

    /// Says that a key cannot be told, and why; a name that ends in `/` or `:` means all that begin so.
    pub fn set_unknown(&mut self, key: &str, reason: impl Into<String>) -> &mut Self {
        let (key, reason) = (key.to_ascii_lowercase(), reason.into());
        if key.ends_with(['/', ':']) {
            self.unknown_prefixes.push((key, reason));
        } else {
            self.entries.insert(key, Entry::Unknown(reason));
        }
        self
    }

    /// What the request has under `key`.
    pub fn get(&self, key: &str) -> Entry {
        let lower = key.to_ascii_lowercase();
        if let Some(entry) = self.entries.get(&lower) {
            return entry.clone();
        }
        if let Some((_, reason)) = self.unknown_prefixes.iter().find(|(prefix, _)| lower.starts_with(prefix)) {
            return Entry::Unknown(reason.clone());
        }
        match known(key) {
            Some(_) => Entry::Absent,
            None => Entry::Unknown(format!("the condition key '{key}' is not known")),
        }
    }

    /// Takes in all of `other`, which wins where both have a key.
    pub fn extend(&mut self, other: &Self) -> &mut Self {
        self.entries.extend(other.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        self.unknown_prefixes.extend(other.unknown_prefixes.iter().cloned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_absent_or_not_known() {
        let mut context = Context::default();
        context
            .set("kms:ViaService", "ec2.us-east-1.amazonaws.com")
            .set_unknown("aws:PrincipalOrgID", "no organisation");
        context.set_unknown("aws:ResourceTag/", "tags were not given").set("aws:ResourceTag/a", "1");
        context.set_named("kms:EncryptionContext:", "Dept", "x").set("made:Up", "y");
        assert_eq!(context.get("KMS:VIASERVICE"), Entry::Values(vec!["ec2.us-east-1.amazonaws.com".to_owned()]));
        assert_eq!(context.get("kms:encryptioncontext:dept"), Entry::Values(vec!["x".to_owned()]));
        assert_eq!(context.get("made:up"), Entry::Values(vec!["y".to_owned()]));
        assert_eq!(context.get("aws:resourcetag/A"), Entry::Values(vec!["1".to_owned()]));
        assert_eq!(context.get("aws:ResourceTag/b"), Entry::Unknown("tags were not given".to_owned()));
        assert_eq!(context.get("aws:SourceVpce"), Entry::Absent);
        for unknown in ["aws:PrincipalOrgID", "aws:SourceVpces", "s3:prefix"] {
            assert!(matches!(context.get(unknown), Entry::Unknown(_)), "{unknown}");
        }
        context.set_named("kms:EncryptionContext:", "DEPT", "x");
        assert!(matches!(context.get("kms:EncryptionContext:Dept"), Entry::Unknown(_)));
    }
}
