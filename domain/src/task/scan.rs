//! The members of a JSON object as stretches of its text, nothing of it converted.
//!
//! A page of an export reads thousands of bodies, and the general parser was a third of its rendering. This one
//! knows the plain case only and is as strict; whatever else it meets, an escaped name, a mistake, a deep value, it
//! leaves to the general parser.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
/// Values within values.
const DEPTH_MAX: u32 = 63;

/// Calls `take` with every name and value in their order. `None` when the general parser has to decide: then what
/// was taken does not count.
pub(super) fn members<'a>(json: &'a str, mut take: impl FnMut(&'a str, &'a str)) -> Option<()> {
    let mut scan = Scan { bytes: json.as_bytes(), at: 0 };
    scan.space();
    scan.expect(b'{')?;
    scan.space();
    if scan.next()? == b'}' {
        scan.at += 1;
        return scan.end();
    }
    loop {
        let start = scan.at + 1;
        let is_plain = scan.string()?;
        let name = json.get(start..scan.at - 1).filter(|_| is_plain)?;
        scan.colon()?;
        let start = scan.at;
        scan.value()?;
        take(name, json.get(start..scan.at)?);
        scan.space();
        match scan.next()? {
            b',' => scan.at += 1,
            b'}' => {
                scan.at += 1;
                return scan.end();
            }
            _ => return None,
        }
        scan.space();
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        if self.next()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.next() {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.bytes.len()).then_some(())
    }

    /// Goes over a string, and tells whether it has no escapes.
    fn string(&mut self) -> Option<bool> {
        self.expect(b'"')?;
        let mut is_plain = true;
        loop {
            self.at += plain(self.bytes.get(self.at..)?);
            match self.next()? {
                b'"' => {
                    self.at += 1;
                    return Some(is_plain);
                }
                b'\\' => {}
                // A control character.
                _ => return None,
            }
            is_plain = false;
            self.at += match self.bytes.get(self.at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                b'u' if self.bytes.get(self.at + 2..self.at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                _ => return None,
            };
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.next()? == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.next() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.next() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    /// Goes over a value of any kind, without recursion.
    fn value(&mut self) -> Option<()> {
        // One bit for each open value, the innermost last: set for an object.
        let (mut open, mut depth) = (0_u64, 0);
        loop {
            match self.next()? {
                b'"' => drop(self.string()?),
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let is_object = bracket == b'{';
                    if self.next()? == if is_object { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        if depth == DEPTH_MAX {
                            return None;
                        }
                        (open, depth) = (open << 1 | u64::from(is_object), depth + 1);
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                _ => return None,
            }
            // A value ends here, and with it maybe those around it.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                let is_object = open & 1 == 1;
                match self.next()? {
                    b',' => {
                        self.at += 1;
                        self.space();
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.at += 1;
                (open, depth) = (open >> 1, depth - 1);
            }
        }
    }

    /// The name of a member of an inner object, and its colon.
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.colon()
    }
}

/// How many bytes a string goes on without a quote, an escape or a control character.
fn plain(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, escape) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
        // A borrow may mark bytes above one that is truly marked, never below.
        let marked = (is_zero(quote) | is_zero(escape) | word.wrapping_sub(ONES * 0x20) & !word) & HIGH;
        if marked != 0 {
            return place * 8 + marked.trailing_zeros() as usize / 8;
        }
    }
    let ended = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    words.len() * 8 + ended.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    fn scanned(json: &str) -> Option<BTreeMap<&str, &str>> {
        let mut found = BTreeMap::new();
        members(json, |name, value| {
            found.insert(name, value);
        })
        .map(|()| found)
    }

    fn general(json: &str) -> Option<BTreeMap<String, &RawValue>> {
        serde_json::from_str(json).ok()
    }

    fn is_same(scanned: &BTreeMap<&str, &str>, general: &BTreeMap<String, &RawValue>) -> bool {
        let general = general.iter().map(|(name, value)| (name.as_str(), value.get()));
        scanned.iter().map(|(name, value)| (*name, *value)).eq(general)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-z\"\\\\\u{0}-\u{20}äö😀]{0,20}", "[a-z ]{0,40}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = String> {
        let object = prop::collection::btree_map("[a-zä_ ]{0,12}", any_value(), 0..6);
        (object, any::<bool>()).prop_map(|(object, is_pretty)| {
            if is_pretty {
                serde_json::to_string_pretty(&object).unwrap()
            } else {
                serde_json::to_string(&object).unwrap()
            }
        })
    }

    proptest! {
        #[test]
        fn an_object_is_read_as_the_general_parser_reads_it(json in any_object()) {
            let found = scanned(&json);
            prop_assert!(found.is_some(), "the plain case is known: {json}");
            prop_assert!(is_same(&found.unwrap(), &general(&json).unwrap()), "{json}");
        }

        #[test]
        fn what_the_general_parser_refuses_is_not_taken(
            json in any_object(),
            at in any::<prop::sample::Index>(),
            with in prop_oneof!["", "[\\]\\[{}\",:\\\\u0-9eE.+tfn \u{1}-]", "-0", "1e", "\\\\ud800", "\"a\":1,"],
            kept in 0..2_usize,
        ) {
            let places: Vec<usize> = json.char_indices().map(|(place, _)| place).collect();
            let place = at.index(places.len());
            let behind = places.get(place + kept).map_or("", |behind| &json[*behind..]);
            let changed = [&json[..places[place]], &with, behind].concat();
            if let Some(found) = scanned(&changed) {
                let general = general(&changed);
                prop_assert!(general.is_some_and(|general| is_same(&found, &general)), "{changed}");
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left() {
        for json in
            ["", "[]", "7", "{", "{}x", "{\"a\":01}", "{\"a\":1,}", "{\"\\u0061\":1}", "{\"a\":\"\u{1}\"}", "{\"a\"}"]
        {
            assert_eq!(scanned(json), None, "{json}");
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(scanned(&deep(64)).is_some() && scanned(&deep(65)).is_none());
        assert_eq!(scanned(" { } "), Some(BTreeMap::new()));
        assert_eq!(
            scanned("{\"a\":1,\"a\":{\"b\":[]}}"),
            Some(BTreeMap::from([("a", "{\"b\":[]}")])),
            "the last counts"
        );
    }
}
