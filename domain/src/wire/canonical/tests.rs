use proptest::prelude::*;

use super::*;

fn rendered(json: &str) -> Result<String, Refusal> {
    canonical(json.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("canonical text is UTF-8"))
}

#[test]
fn members_are_put_in_order_of_code_points() {
    for (json, expected) in [
        (r#" { "b" : [ 1 , { "d":4 , "c":3 } ] , "a" : { } , "" : [ ] } "#, r#"{"":[],"a":{},"b":[1,{"c":3,"d":4}]}"#),
        (
            r#"{"aaaaaaaab":1,"aaaaaaaaa":2,"aaaaaaaa":3,"aaaaaaa":4}"#,
            r#"{"aaaaaaa":4,"aaaaaaaa":3,"aaaaaaaaa":2,"aaaaaaaab":1}"#,
        ),
        ("{\"\u{1f600}\":1,\"\u{ffff}\":2}", "{\"\u{ffff}\":2,\"\u{1f600}\":1}"),
        // By what the escapes stand for: a quote sorts before a letter, a line feed before both.
        (r#"{"a":1,"\"":2,"\n":3,"a\u0000":4}"#, r#"{"\n":3,"\"":2,"a":1,"a\u0000":4}"#),
        (r#"{"b":{"z":1,"y":{"x":1,"w":2}},"a":0}"#, r#"{"a":0,"b":{"y":{"w":2,"x":1},"z":1}}"#),
    ] {
        assert_eq!(rendered(json).as_deref(), Ok(expected), "{json}");
    }
}

#[test]
fn of_equal_keys_the_last_counts() {
    for (json, expected) in [
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"b":0,"a":1,"b":{"d":1,"c":2},"a":3}"#, r#"{"a":3,"b":{"c":2,"d":1}}"#),
        (r#"{"\u0061":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"a\u0000":1,"a":2,"a":3}"#, r#"{"a":3,"a\u0000":1}"#),
    ] {
        assert_eq!(rendered(json).as_deref(), Ok(expected), "{json}");
    }
}

#[test]
fn escapes_are_reduced_to_the_few_that_canonical_text_has() {
    for (json, expected) in [
        (r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#),
        (r#""\u0000\u0008\u001F\u007f\u0022\u005C""#, "\"\\u0000\\b\\u001f\u{7f}\\\"\\\\\""),
        (r#""\ud83d\uDE00\u00e9\uffff""#, "\"\u{1f600}é\u{ffff}\""),
        ("\"0123456\u{2028}/\u{7f}\"", "\"0123456\u{2028}/\u{7f}\""),
    ] {
        assert_eq!(rendered(json).as_deref(), Ok(expected), "{json}");
    }
}

#[test]
fn integers_keep_their_digits() {
    let longest = "9".repeat(INTEGER_DIGITS_MAX);
    for json in [longest.as_str(), &format!("-{longest}"), "0", "-1", "1180591620717411303424"] {
        assert_eq!(rendered(json).as_deref(), Ok(json));
    }
    assert_eq!(rendered("[-0,0]").as_deref(), Ok("[0,0]"));
    assert_eq!(rendered(&format!("{longest}0")), Err(Refusal::IntegerTooLong { at: 0 }));
    assert_eq!(rendered(&format!("{longest}0.0")), Err(Refusal::NotFinite { at: 0 }));
}

#[test]
fn what_cannot_be_signed_is_refused() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (json, expected) in [
        ("", Refusal::Syntax { at: 0 }),
        ("nul", Refusal::Syntax { at: 0 }),
        ("true1", Refusal::Syntax { at: 4 }),
        ("01", Refusal::Syntax { at: 1 }),
        ("1.", Refusal::Syntax { at: 1 }),
        (".5", Refusal::Syntax { at: 0 }),
        ("+1", Refusal::Syntax { at: 0 }),
        ("-", Refusal::Syntax { at: 0 }),
        ("1e", Refusal::Syntax { at: 1 }),
        ("[1,]", Refusal::Syntax { at: 3 }),
        ("[1 2]", Refusal::Syntax { at: 3 }),
        ("[1}", Refusal::Syntax { at: 2 }),
        ("{\"a\":1,}", Refusal::Syntax { at: 7 }),
        ("{\"a\" 1}", Refusal::Syntax { at: 5 }),
        ("{1:1}", Refusal::Syntax { at: 1 }),
        ("{\"a\":}", Refusal::Syntax { at: 5 }),
        ("{", Refusal::Syntax { at: 1 }),
        ("\u{feff}1", Refusal::Syntax { at: 0 }),
        ("1\u{a0}", Refusal::Syntax { at: 1 }),
        ("\"a", Refusal::Syntax { at: 2 }),
        (r#""\x""#, Refusal::Syntax { at: 1 }),
        (r#""\u12g4""#, Refusal::Syntax { at: 1 }),
        (r#""\u+123""#, Refusal::Syntax { at: 1 }),
        ("\"a\nb\"", Refusal::Control { at: 2 }),
        ("\"12345678\u{0}\"", Refusal::Control { at: 9 }),
        (r#""\ud800""#, Refusal::Surrogate { at: 1 }),
        (r#""\udc00\ud800""#, Refusal::Surrogate { at: 1 }),
        (r#""\ud83d\u0041""#, Refusal::Surrogate { at: 1 }),
        (r#"{"\udfff":1}"#, Refusal::Surrogate { at: 2 }),
        ("NaN", Refusal::NotFinite { at: 0 }),
        ("[Infinity]", Refusal::NotFinite { at: 1 }),
        ("-Infinity", Refusal::NotFinite { at: 0 }),
        ("1e400", Refusal::NotFinite { at: 0 }),
        ("{\"a\":-1E999,\"a\":1}", Refusal::NotFinite { at: 5 }),
        (&deep(DEPTH_MAX + 1), Refusal::TooDeep),
        (&deep(10_000), Refusal::TooDeep),
        (&"{\"a\":".repeat(10_000), Refusal::TooDeep),
    ] {
        assert_eq!(rendered(json), Err(expected), "{json}");
    }
    assert_eq!(canonical(b"\"\xed\xa0\x80\""), Err(Refusal::Utf8));
    assert_eq!(rendered(&deep(DEPTH_MAX)), Ok(deep(DEPTH_MAX)));
}

#[test]
fn a_refused_text_leaves_nothing_behind() {
    let mut canonicaliser = Canonicaliser::new();
    assert!(canonicaliser.canonical(br#"{"\u0061":[{"b":1,"a":"#).is_err());
    assert_eq!(canonicaliser.canonical(br#"{"b":1,"a":2}"#), Ok(br#"{"a":2,"b":1}"#.as_slice()));
}

#[test]
fn buffers_of_a_large_text_are_given_back() {
    let mut canonicaliser = Canonicaliser::new();
    let large = format!("[{}1]", "1.0e1,".repeat(400_000));
    assert!(canonicaliser.canonical(large.as_bytes()).is_ok_and(|text| text.len() > KEEP_MAX));
    assert_eq!(canonicaliser.canonical(b"1"), Ok(b"1".as_slice()));
    assert!(canonicaliser.out.capacity() <= KEEP_MAX);
}

#[test]
fn a_text_is_written_as_it_would_be_read() {
    for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}é\u{1f600}", "0123456789\""] {
        let mut written = Vec::new();
        write_string(text, &mut written);
        assert_eq!(canonical(&written).as_deref(), Ok(written.as_slice()), "{text:?}");
        assert_eq!(serde_json::from_slice::<String>(&written).ok().as_deref(), Some(text));
    }
}

/// Documents as parsed values, so that members can be reordered without changing what is said.
fn document() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec(("\\PC{0,10}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same document, members in another order and with space around everything.
fn shuffled(value: &serde_json::Value, seed: usize) -> String {
    use serde_json::Value;
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| shuffled(item, seed / 2 + 1)).collect();
            format!("[ {} ]", items.join(" ,\n"))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .map(|(key, member)| format!("{} :\t{}", Value::from(key.as_str()), shuffled(member, seed / 2 + 1)))
                .collect();
            let turn = seed % members.len().max(1);
            members.rotate_left(turn);
            if seed.is_multiple_of(3) {
                members.reverse();
            }
            format!("{{ {} }}", members.join(" , "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

proptest! {
    #[test]
    fn canonical_text_is_its_own_canonical_text(document in document()) {
        let once = rendered(&document.to_string()).expect("valid");
        prop_assert_eq!(rendered(&once), Ok(once.clone()));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&once).expect("valid"), document);
    }

    #[test]
    fn the_order_of_members_and_space_do_not_matter(document in document(), seed in any::<usize>()) {
        prop_assert_eq!(rendered(&shuffled(&document, seed)), rendered(&document.to_string()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = canonical(&bytes);
    }

    #[test]
    fn every_float_survives(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        if value.is_finite() {
            let text = rendered(&format!("{value:e}")).expect("finite");
            prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(bits));
        }
    }
}
