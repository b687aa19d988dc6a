use super::*;

const AGENT: &str = "ab839deb-e31a-4037-a319-116bd4acb184";

fn parse(verb: Verb, members: &str) -> Result<Asked, Vec<FieldError>> {
    Asked::parse(verb, format!(r#"{{"agent_id":"{AGENT}",{members}}}"#).as_bytes())
}

/// The mistakes as `loc type`.
fn mistakes(verb: Verb, members: &str) -> Vec<String> {
    match parse(verb, members) {
        Ok(asked) => panic!("accepted: {asked:?}"),
        Err(errors) => errors.iter().map(|error| format!("{} {}", error.loc.join("."), error.kind)).collect(),
    }
}

#[test]
fn every_mistake_of_a_body_is_named() {
    let errors = Asked::parse(Verb::RetryTask, br#"{"agent_id":"x","engine":"sidekiq","bogus":1}"#).unwrap_err();
    let named: Vec<_> = errors.iter().map(|error| (error.loc.join("."), error.kind)).collect();
    for expected in [
        ("body.agent_id", "uuid_parsing"),
        ("body.engine", "enum"),
        ("body.task_id", "missing"),
        ("body.bogus", "extra_forbidden"),
    ] {
        assert!(named.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} in {named:?}");
    }
    let engine = errors.iter().find(|error| error.kind == "enum").unwrap();
    assert!(engine.msg.contains("celery, rq, dramatiq, huey, arq, taskiq"), "{}", engine.msg);
    assert_eq!(Asked::parse(Verb::RetryTask, b"[]").unwrap_err()[0].kind, "dict_type");
    assert_eq!(Asked::parse(Verb::RetryTask, b"{").unwrap_err()[0].kind, "json_invalid");
    let shape = serde_json::to_value(engine).unwrap();
    assert_eq!(shape["loc"], serde_json::json!(["body", "engine"]));
    assert_eq!(shape["type"], "enum");
}

#[test]
fn texts_are_measured_in_characters() {
    let ok = format!(r#""engine":"celery","task_id":"{}""#, "ü".repeat(200));
    assert!(parse(Verb::CancelTask, &ok).is_ok());
    let long = format!(r#""engine":"celery","task_id":"{}""#, "ü".repeat(201));
    assert_eq!(mistakes(Verb::CancelTask, &long), ["body.task_id string_too_long"]);
    assert_eq!(mistakes(Verb::CancelTask, r#""engine":"celery","task_id":"""#), ["body.task_id string_too_short"]);
    assert_eq!(mistakes(Verb::CancelTask, r#""engine":"celery","task_id":null"#), ["body.task_id missing"]);
    assert_eq!(mistakes(Verb::CancelTask, r#""engine":"celery","task_id":7"#), ["body.task_id string_type"]);
}

#[test]
fn rates_follow_the_pattern() {
    let rate = |rate: &str| parse(Verb::RateLimit, &format!(r#""task_name":"a","rate":"{rate}""#));
    for good in ["0", "1", "100", "100/s", "100/m", "100/h"] {
        assert!(rate(good).is_ok(), "{good}");
    }
    for bad in ["100/d", "-1", "1.5/s", "01/m", "0/s", "/s", "", "1/", "1/ss", " 1", "1\\n", "00", "١"] {
        let errors = rate(bad).expect_err(bad);
        assert_eq!(errors[0].loc, ["body", "rate"]);
    }
    assert!(rate(&"9".repeat(21)).is_err());
}

#[test]
fn an_empty_worker_broadcasts_like_a_missing_one() {
    let forms = [
        r#""task_name":"a","rate":"1""#,
        r#""task_name":"a","rate":"1","worker_name":"""#,
        r#""task_name":"a","rate":"1","worker_name":null"#,
    ];
    let asked: Vec<_> = forms.iter().map(|form| parse(Verb::RateLimit, form).unwrap()).collect();
    assert!(asked.iter().all(|asked| asked.request.is_global_throttle()));
    assert_eq!(asked[0], asked[1]);
    assert_eq!(asked[1], asked[2]);
}

#[test]
fn deltas_have_a_sign_and_a_bound() {
    let delta = |delta: i32| parse(Verb::PoolResize, &format!(r#""worker_name":"w@h","delta":{delta}"#));
    assert_eq!(delta(2).unwrap().request.action(), Action::PoolGrow);
    assert_eq!(delta(-100).unwrap().request.action(), Action::PoolShrink);
    assert_eq!(delta(0).unwrap_err()[0].kind, "value_error");
    assert_eq!(delta(101).unwrap_err()[0].kind, "less_than_equal");
    assert_eq!(delta(-101).unwrap_err()[0].kind, "greater_than_equal");
    let written = |delta: &str| parse(Verb::PoolResize, &format!(r#""worker_name":"w@h","delta":{delta}"#));
    assert_eq!(written("2.0").unwrap(), delta(2).unwrap(), "to JSON Schema 2.0 is an integer");
    for wrong in ["2.5", "1e300", "\"2\"", "true"] {
        assert_eq!(written(wrong).unwrap_err()[0].kind, "int_type", "{wrong}");
    }
    assert_eq!(mistakes(Verb::PoolResize, r#""worker_name":"w""#), ["body.delta missing"]);
}

#[test]
fn a_purge_needs_a_confirmation() {
    assert_eq!(mistakes(Verb::PurgeQueue, r#""queue":"q""#), ["body.confirm_token missing"]);
    assert_eq!(mistakes(Verb::PurgeQueue, r#""queue":"q","force":false"#), ["body.confirm_token missing"]);
    for ok in [r#""confirm_token":"x""#, r#""observed_depth":0"#, r#""force":true"#] {
        assert!(parse(Verb::PurgeQueue, &format!(r#""queue":"q",{ok}"#)).is_ok(), "{ok}");
    }
}

#[test]
fn overrides_follow_the_engine() {
    let both = r#","override_args":[],"override_kwargs":{}"#;
    for engine in Engine::ALL {
        let base = format!(r#""engine":"{engine}","task_id":"t""#);
        assert!(parse(Verb::RetryTask, &format!("{base}{both}")).is_ok(), "{engine} with both halves");
        let by_reference = parse(Verb::RetryTask, &base).is_ok();
        assert_eq!(by_reference, matches!(engine, Engine::Celery | Engine::Rq), "{engine} by reference");
        let half = format!(r#"{base},"override_kwargs":{{}}"#);
        if engine == Engine::Celery {
            assert!(parse(Verb::RetryTask, &half).is_ok());
        } else {
            assert_eq!(mistakes(Verb::RetryTask, &half), ["body.override_args missing"], "{engine}");
        }
        let late = parse(Verb::RetryTask, &format!(r#"{base}{both},"eta_seconds":5"#)).is_ok();
        assert_eq!(late, matches!(engine, Engine::Celery | Engine::Rq | Engine::Arq), "{engine} with eta");
        let urgent = parse(Verb::RetryTask, &format!(r#"{base}{both},"priority":"high""#)).is_ok();
        assert_eq!(urgent, engine == Engine::Celery, "{engine} with priority");
    }
}

#[test]
fn overrides_are_measured_in_bytes_of_compact_json() {
    let sized = |bytes: usize| {
        // {"k":"..."} is eight bytes and the text; blanks do not count.
        format!(r#""engine":"celery","task_id":"t","override_kwargs":{{ "k" : "{}" }}"#, "x".repeat(bytes - 8))
    };
    assert!(parse(Verb::RetryTask, &sized(65_536)).is_ok());
    assert_eq!(mistakes(Verb::RetryTask, &sized(65_537)), ["body.override_kwargs too_long"]);
    let reserved = r#""engine":"celery","task_id":"t","override_kwargs":{"__z4j_x":1}"#;
    assert_eq!(mistakes(Verb::RetryTask, reserved), ["body.override_kwargs value_error"]);
    let array = r#""engine":"celery","task_id":"t","override_kwargs":[1]"#;
    assert_eq!(mistakes(Verb::RetryTask, array), ["body.override_kwargs dict_type"]);
    let surrogate = r#""engine":"celery","task_id":"t","override_args":["\ud800"]"#;
    assert_eq!(mistakes(Verb::RetryTask, surrogate), ["body.override_args json_invalid"]);
    let deep = format!(r#""engine":"celery","task_id":"t","override_args":{}{}"#, "[".repeat(899), "]".repeat(899));
    assert!(parse(Verb::RetryTask, &deep).is_err(), "a frame could not hold it");
}

#[test]
fn numbers_of_overrides_survive() {
    let body = r#""engine":"celery","task_id":"t","override_args":[1180591620717411303424,1e16,1.0]"#;
    let Request::RetryTask { overrides, .. } = parse(Verb::RetryTask, body).unwrap().request else { panic!() };
    assert_eq!(overrides.args.as_deref(), Some("[1180591620717411303424,1e+16,1.0]"));
    assert!(!format!("{overrides:?}").contains("1180591620717411303424"));
}

#[test]
fn a_bulk_filter_is_never_empty_and_never_widened() {
    let bulk = |filter: &str| parse(Verb::BulkRetry, &format!(r#""filter":{filter}"#));
    for bad in [
        "{}",
        r#"{"engine":"celery"}"#,
        r#"{"state":null}"#,
        r#"{"bogus":1,"queue":"q"}"#,
        r#"{"state":"nope"}"#,
        r#"{"state":"failed","status":"started"}"#,
        r#"{"task_ids":[]}"#,
        "[]",
    ] {
        assert!(bulk(bad).is_err(), "{bad}");
    }
    let asked = bulk(r#"{"status":"failure","priority":"critical,high","since":"2026-04-16T12:00:00Z"}"#).unwrap();
    let Request::BulkRetry { filter, max, dry_run } = asked.request else { panic!() };
    assert_eq!((filter.state.unwrap().as_str(), filter.priority.len(), max, dry_run), ("failed", 2, 1000, false));
    let unknown = bulk(r#"{"bogus":1,"queue":"q"}"#).unwrap_err();
    assert_eq!(unknown[0].loc, ["body", "filter", "bogus"]);
    for max in ["0", "10001"] {
        assert!(parse(Verb::BulkRetry, &format!(r#""filter":{{"queue":"q"}},"max":{max}"#)).is_err());
    }
}

#[test]
fn the_request_hash_is_golden_and_knows_every_member() {
    let hash = |verb, members: &str| hex::encode(parse(verb, members).unwrap().hash());
    let base = r#""engine":"celery","task_id":"t""#;
    assert_eq!(hash(Verb::RetryTask, base), "1aea62e8490eea6694b67cf7da78c3830b9e67fc9d218b2058c2656518e5a76b");
    assert_eq!(hash(Verb::RetryTask, base), hash(Verb::RetryTask, &format!(r#"{base},"idempotency_key":"k""#)));
    let mut seen = std::collections::HashSet::new();
    for (verb, members) in [
        (Verb::RetryTask, base),
        (Verb::CancelTask, base),
        (Verb::RetryTask, r#""engine":"rq","task_id":"t""#),
        (Verb::RetryTask, r#""engine":"celery","task_id":"t2""#),
        (Verb::RetryTask, r#""engine":"celery","task_id":"t","override_args":[]"#),
        (Verb::RetryTask, r#""engine":"celery","task_id":"t","override_kwargs":{}"#),
        (Verb::RetryTask, r#""engine":"celery","task_id":"t","eta_seconds":1"#),
        (Verb::RetryTask, r#""engine":"celery","task_id":"t","priority":"low""#),
        (Verb::AddConsumer, r#""worker_name":"w","queue":"q""#),
        (Verb::CancelConsumer, r#""worker_name":"w","queue":"q""#),
        (Verb::AddConsumer, r#""worker_name":"w","queue":"q2""#),
        (Verb::PurgeQueue, r#""queue":"q","force":true"#),
        (Verb::PurgeQueue, r#""queue":"q","observed_depth":1"#),
        (Verb::PurgeQueue, r#""queue":"q","observed_depth":2"#),
        (Verb::PoolResize, r#""worker_name":"w","delta":1"#),
        (Verb::PoolResize, r#""worker_name":"w","delta":-1"#),
        (Verb::BulkRetry, r#""filter":{"queue":"q"},"max":1"#),
        (Verb::BulkRetry, r#""filter":{"queue":"q"},"max":2"#),
        (Verb::BulkRetry, r#""filter":{"name":"q"},"max":2"#),
        (Verb::RateLimit, r#""task_name":"a","rate":"1""#),
        (Verb::RateLimit, r#""task_name":"a","rate":"1","worker_name":"w""#),
    ] {
        assert!(seen.insert(hash(verb, members)), "{verb} {members}");
    }
}
