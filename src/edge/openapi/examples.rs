//! Examples for every schema, parameter and error of the document.
//!
//! A member means the same thing wherever it occurs, so one table says what it looks like: `examples.json`, one scene
//! in which ids and times fit together. For a member counts, first match first, `Schema.member`, what the code says
//! beside it, `member`, and what its schema is made of; for a parameter of a path the part before it too,
//! `users/{id}`; for an error its status, `Error404`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::{Components, OpenApi, Ref, RefOr, Response, Schema};

static TABLE: LazyLock<BTreeMap<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).expect("a file of ours, read by every test"));

/// Gives an example to each schema and parameter that has none.
pub(super) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let found: Vec<_> = components.schemas.keys().map(|name| (name.clone(), named(name, components))).collect();
    for (name, example) in found {
        if let Some(RefOr::T(schema)) = components.schemas.get_mut(&name) {
            *own(schema) = example;
        }
    }
    for (path, item) in &mut document.paths.paths {
        let parameters = operations(item).filter_map(|operation| operation.parameters.as_mut()).flatten();
        for parameter in parameters {
            if let RefOr::T(parameter) = parameter {
                exemplify(path, parameter);
            }
        }
    }
}

/// Says each error answer once, with an example, and refers to it from every route that gives it.
pub(super) fn share_errors(document: &mut OpenApi, errors: BTreeMap<String, RefOr<Response>>) {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for (status, response) in &mut operation.responses.responses {
            if errors.get(status) == Some(response) {
                *response = RefOr::Ref(Ref::from_response_name(format!("Error{status}")));
            }
        }
    }
    let responses = &mut document.components.get_or_insert_default().responses;
    for (status, mut response) in errors {
        let name = format!("Error{status}");
        if let RefOr::T(response) = &mut response {
            for content in response.content.values_mut() {
                if let RefOr::T(content) = content {
                    content.example = TABLE.get(&name).cloned();
                }
            }
        }
        responses.insert(name, response);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [get, post, put, patch, delete].into_iter().filter_map(Option::as_mut)
}

/// The parameter's own `example` cannot be set from here, so it goes to its schema.
fn exemplify(path: &str, parameter: &mut Parameter) {
    let placed = format!("{{{}}}", parameter.name);
    let before = path.split('/').zip(path.split('/').skip(1)).find(|(_, part)| *part == placed);
    let placed = before.and_then(|(before, part)| TABLE.get(&format!("{before}/{part}")));
    let has_one = serde_json::to_value(&*parameter).is_ok_and(|value| value.get("example").is_some());
    if let (false, Some(RefOr::T(schema))) = (has_one, &mut parameter.schema) {
        let example = own(schema);
        if example.is_none() {
            *example = placed.or_else(|| TABLE.get(&parameter.name)).cloned();
        }
    }
}

/// Where a schema's example stands.
fn own(schema: &mut Schema) -> &mut Option<Value> {
    match schema {
        Schema::Object(object) => &mut object.example,
        Schema::Array(array) => &mut array.example,
        Schema::OneOf(one) => &mut one.example,
        Schema::AnyOf(any) => &mut any.example,
        Schema::AllOf(all) => &mut all.example,
        other => unreachable!("a kind of schema that is new: {}", serde_json::json!(other)),
    }
}

/// What a schema with a name looks like.
fn named(name: &str, components: &Components) -> Option<Value> {
    let said = TABLE.get(name).cloned();
    said.or_else(|| of(components.schemas.get(name)?, name, components))
}

/// What a schema looks like that is the one called `owner`, or a part of it.
fn of(schema: &RefOr<Schema>, owner: &str, components: &Components) -> Option<Value> {
    let schema = match schema {
        RefOr::Ref(target) => return named(target.ref_location.rsplit('/').next()?, components),
        RefOr::T(schema) => schema,
    };
    if let Some(said) = own(&mut schema.clone()).take() {
        return Some(said);
    }
    match schema {
        Schema::Object(object) if object.properties.is_empty() => object.enum_values.as_ref()?.first().cloned(),
        Schema::Object(object) => {
            let members = object.properties.iter();
            let members = members.map(|(name, schema)| Some((name.clone(), member(name, schema, owner, components)?)));
            members.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Schema::Array(array) => match &array.items {
            ArrayItems::RefOrSchema(items) => Some(Value::Array(vec![of(items, owner, components)?])),
            ArrayItems::False => None,
        },
        Schema::OneOf(one) => one.items.iter().find_map(|one| of(one, owner, components)),
        Schema::AnyOf(any) => any.items.iter().find_map(|one| of(one, owner, components)),
        Schema::AllOf(all) => {
            let parts = all.items.iter().map(|part| of(part, owner, components));
            let members = parts.map(|part| part?.as_object().cloned()).collect::<Option<Vec<_>>>()?;
            Some(Value::Object(members.into_iter().flatten().collect()))
        }
        _ => None,
    }
}

fn member(name: &str, schema: &RefOr<Schema>, owner: &str, components: &Components) -> Option<Value> {
    let beside = match schema {
        RefOr::T(schema) => own(&mut schema.clone()).take(),
        RefOr::Ref(_) => None,
    };
    let here = TABLE.get(&format!("{owner}.{name}")).cloned();
    here.or(beside).or_else(|| TABLE.get(name).cloned()).or_else(|| of(schema, owner, components))
}
