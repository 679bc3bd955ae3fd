//! `GET /openapi.json`: every path on this port, described by hand and held against the real routes
//! by the tests below.

use bytes::Bytes;

/// The description, OpenAPI 3.1.
pub(super) fn described() -> Bytes {
    Bytes::from_static(DOCUMENT)
}

const DOCUMENT: &[u8] = include_bytes!("../openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use hyper::Method;
    use serde_json::Value;

    use super::*;
    use crate::gateway::path::{Repository, Route, SharedMemory, V1};
    use crate::gateway::text::Asked;

    type Paths = BTreeMap<String, BTreeSet<String>>;

    fn document() -> Value {
        serde_json::from_slice(&described()).unwrap()
    }

    /// Methods of each path, in lower case.
    fn paths() -> Paths {
        let document = document();
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = |item: &Value| {
            let members = item.as_object().unwrap().keys();
            let methods = members.filter(|name| *name != "parameters");
            methods.cloned().collect()
        };
        paths
            .map(|(path, item)| (path.clone(), methods(item)))
            .collect()
    }

    /// What a path is routed to; a new kind of route needs its path in the document, and its name
    /// in [`KINDS`].
    fn kind(route: Route<'_>) -> &'static str {
        match route {
            Route::Live => "live",
            Route::Ready => "ready",
            Route::Server => "server",
            Route::Models => "models",
            Route::Model(_) => "model",
            Route::ModelReady(_) => "model ready",
            Route::Infer(_) => "infer",
            Route::Configuration(_) => "configuration",
            Route::Statistics(None) => "all statistics",
            Route::Statistics(Some(_)) => "statistics",
            Route::Repository(Repository::Index) => "index",
            Route::Repository(Repository::Load(_)) => "load",
            Route::Repository(Repository::Unload(_)) => "unload",
            Route::SharedMemory(SharedMemory::Status) => "region status",
            Route::SharedMemory(SharedMemory::Register) => "register",
            Route::SharedMemory(SharedMemory::Unregister) => "unregister",
            Route::Trace(None) => "trace",
            Route::Trace(Some(_)) => "trace of a model",
            Route::Logging => "logging",
            Route::Text(Asked::Embeddings) => "embeddings",
            Route::Text(Asked::Embed) => "embed",
            Route::Text(Asked::Rerank) => "rerank",
            Route::Text(Asked::Predict) => "classes of texts",
            Route::Text(Asked::Tokenize) => "tokens of texts",
            Route::Text(Asked::Info) => "a model for texts",
            Route::V1(V1::Models) => "v1 models",
            Route::V1(V1::Model(_)) => "v1 model",
            Route::V1(V1::Metadata(_)) => "v1 metadata",
            Route::V1(V1::Verb(_, verb)) => verb.name(),
            Route::Described => "described",
            Route::Operator => "operator",
            Route::Unknown => "unknown",
        }
    }

    const KINDS: [&str; 34] = [
        "live",
        "ready",
        "server",
        "models",
        "model",
        "model ready",
        "infer",
        "configuration",
        "all statistics",
        "statistics",
        "index",
        "load",
        "unload",
        "region status",
        "register",
        "unregister",
        "trace",
        "trace of a model",
        "logging",
        "embeddings",
        "embed",
        "rerank",
        "classes of texts",
        "tokens of texts",
        "a model for texts",
        "v1 models",
        "v1 model",
        "v1 metadata",
        "predict",
        "classify",
        "regress",
        "explain",
        "described",
        "operator",
    ];

    #[test]
    fn every_route_is_described_with_its_methods_and_nothing_else_is() {
        let mut seen = BTreeSet::new();
        for (path, described) in paths() {
            let filled = path.replace(['{', '}'], "");
            let route = Route::of(&filled);
            assert_ne!(route, Route::Unknown, "{path} is described and not served");
            seen.insert(kind(route));
            if route == Route::Operator {
                continue;
            }
            let taken = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
            let taken = taken
                .iter()
                .filter(|method| route.methods().include(method));
            let taken: BTreeSet<String> = taken.map(|m| m.as_str().to_lowercase()).collect();
            assert_eq!(described, taken, "{path}");
        }
        assert_eq!(
            seen,
            KINDS.into_iter().collect(),
            "a route is not described"
        );
    }

    /// Routes of the operator API as its source has them.
    fn operator_routes() -> Paths {
        let source = include_str!("../operator.rs");
        let mut routes = Paths::new();
        for chunk in source.split(".route(").skip(1) {
            let path = chunk
                .split('"')
                .nth(1)
                .expect("a route begins with its path");
            let end = chunk
                .find(".route_layer")
                .or_else(|| chunk.find(".fallback"));
            let handlers = &chunk[..end.unwrap_or(chunk.len())];
            let methods = ["get", "post", "put", "delete"].into_iter();
            let methods = methods.filter(|method| handlers.contains(&format!("{method}(")));
            routes.insert(path.to_owned(), methods.map(str::to_owned).collect());
        }
        routes
    }

    #[test]
    fn the_operator_api_is_described_route_by_route() {
        // Parameters have other names for people than for axum.
        let nameless = |path: &str| {
            let parts = path.split('/');
            let parts = parts.map(|part| if part.starts_with('{') { "{}" } else { part });
            parts.collect::<Vec<_>>().join("/")
        };
        let of = |paths: Paths| -> Paths {
            let paths = paths.into_iter();
            paths
                .map(|(path, methods)| (nameless(&path), methods))
                .collect()
        };
        let served = of(operator_routes());
        assert!(served.len() > 20, "{served:?}");
        let mut described = of(paths());
        described.retain(|path, _| path.starts_with("/v2/paceline/"));
        assert_eq!(served, described);
    }

    #[test]
    fn references_lead_somewhere_and_the_release_is_this_one() {
        let document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let text = std::str::from_utf8(DOCUMENT).unwrap();
        let references = text.split("\"$ref\": \"#").skip(1);
        let references: BTreeSet<&str> = references
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(references.len() > 50);
        for reference in &references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        for kind in ["schemas", "parameters", "responses"] {
            let components = document["components"][kind].as_object().unwrap();
            for name in components.keys() {
                let pointer = format!("/components/{kind}/{name}");
                assert!(references.contains(&*pointer), "{pointer} is used nowhere");
            }
        }
    }
}
