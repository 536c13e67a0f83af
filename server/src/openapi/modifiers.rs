//! What the OpenAPI document says of every route, and what the handlers' types cannot say.

use utoipa::Modify;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, Ref, RefOr};

/// Bodies of which one may be of two kinds at once: a list without elements is one of texts and one of tokens, and of SGLang's fields none is
/// required.
const OVERLAPPING: [&str; 2] = ["GenerateBody", "Prompt"];
const REQUEST_ID: &str = "x-request-id";
const RETRY_AFTER: &str = "retry-after";
/// What the document says of keys.
const SCOPES: &str = "A key has scopes: `inference` runs models and looks at what can be run, `metrics` reads /metrics, `admin` does everything. A server without keys needs none.";
/// The statuses of a server that can be asked again.
const LATER: [&str; 2] = ["429", "503"];

/// The key that a server may want.
pub(super) struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(SCOPES));
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    }
}

/// `anyOf` where a body may be of several kinds at once.
pub(super) struct OverlappingKinds;

impl Modify for OverlappingKinds {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        for name in OVERLAPPING {
            if let Some(RefOr::T(schema)) = components.schemas.get_mut(name)
                && let Schema::OneOf(kinds) = schema
            {
                let mut any = AnyOfBuilder::new().description(kinds.description.take());
                for kind in std::mem::take(&mut kinds.items) {
                    any = any.item(kind);
                }
                *schema = Schema::AnyOf(any.build());
            }
        }
    }
}

/// The headers of every answer, and of those to whoever should come back later.
pub(super) struct AnswerHeaders;

impl Modify for AnswerHeaders {
    fn modify(&self, document: &mut OpenApi) {
        let headers = [
            (
                REQUEST_ID,
                Type::String,
                "The request's own, or one that was made for it",
            ),
            (
                RETRY_AFTER,
                Type::Integer,
                "Seconds after which to ask again",
            ),
        ];
        let components = document.components.get_or_insert_default();
        for (name, kind, description) in headers {
            let header = HeaderBuilder::new()
                .schema(Some(ObjectBuilder::new().schema_type(kind)))
                .description(Some(description));
            let header = RefOr::T(header.build());
            components.headers.insert(name.to_owned(), header);
        }
        for path in document.paths.paths.values_mut() {
            for operation in operations(path) {
                for (status, response) in &mut operation.responses.responses {
                    let RefOr::T(response) = response else {
                        continue;
                    };
                    let later = LATER.contains(&status.as_str()).then_some(RETRY_AFTER);
                    for name in [REQUEST_ID].into_iter().chain(later) {
                        let header = Ref::new(format!("#/components/headers/{name}"));
                        response.headers.insert(name.to_owned(), RefOr::Ref(header));
                    }
                }
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut path.get,
        &mut path.put,
        &mut path.post,
        &mut path.delete,
    ];
    all.into_iter().flatten()
}
