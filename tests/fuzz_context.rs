//! Encryption contexts that somebody else wrote: each has one canonical form, from which it can be read back, and no two share
//! one.

use std::cell::RefCell;
use std::collections::HashMap;

use blockseal::kms::EncryptionContext;

use crate::fuzz::fuzz;

const CONTEXTS: [&str; 5] = [
    r#"{"aws:ebs:id": "vol-0123456789abcdef0", "aws:rds:db-id": "db-CQYSMDPBRZ7BPMH7Y3RTDG5QY"}"#,
    r#"{"a": "b", "ab": "", "": "ab", "A": "b", "b": "a"}"#,
    r#"{"\u00e9": "e\u0301", "e\u0301": "\u00e9", "😀": "\u0000\u001f\"\\", "\u0000": ""}"#,
    r#"{"\u0001": "\u0000\u0000\u0000\u0001", "\u0000\u0000\u0000\u0001": "\u0001", "x": "\u0000\u0000\u0000\u0000"}"#,
    "{}",
];

/// Reads the form as `docs/ciphertext-blob.md` describes it; `None` for what is none.
fn read_back(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    fn piece<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
        let (head, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(head)
    }
    fn number(bytes: &mut &[u8]) -> Option<usize> {
        Some(u32::from_be_bytes(piece(bytes, 4)?.try_into().ok()?) as usize)
    }
    fn text(bytes: &mut &[u8]) -> Option<String> {
        let length = number(bytes)?;
        String::from_utf8(piece(bytes, length)?.to_vec()).ok()
    }
    let mut bytes = bytes;
    let mut pairs = Vec::new();
    for _ in 0..number(&mut bytes)? {
        pairs.push((text(&mut bytes)?, text(&mut bytes)?));
    }
    bytes.is_empty().then_some(pairs)
}

#[test]
fn a_context_has_one_canonical_form_and_shares_it_with_none() {
    let corpus: Vec<_> = CONTEXTS.iter().map(|context| context.as_bytes().to_vec()).collect();
    let forms = RefCell::new(HashMap::<Vec<u8>, EncryptionContext>::new());
    fuzz(&corpus, 1, |input| {
        let Ok(context) = serde_json::from_slice::<EncryptionContext>(input) else { return };
        let form = context.canonical();
        let pairs = read_back(&form).expect("what was written can be read");
        assert!(pairs.is_sorted_by(|one, next| one.0.as_bytes() < next.0.as_bytes()), "keys in order, each once");
        assert_eq!(pairs.iter().cloned().collect::<EncryptionContext>(), context);
        assert_eq!(pairs.into_iter().rev().collect::<EncryptionContext>().canonical(), form, "whatever the order");
        let again: EncryptionContext = serde_json::from_str(&serde_json::to_string(&context).unwrap()).unwrap();
        assert_eq!(again.canonical(), form);
        if let Some(other) = forms.borrow_mut().insert(form, context.clone()) {
            assert_eq!(other, context, "two contexts share a form");
        }
    });
    assert!(forms.borrow().len() > 20, "mutations made no other contexts");
}
