//! Which requests are admin actions, and what they are about as far as the path tells.

/// The action of a request, `None` for one that changes nothing of the server's.
pub fn of(method: &str, route: &str) -> Option<&'static str> {
    Some(match (method, route) {
        ("POST", "/v1/adapters" | "/v1/load_lora_adapter" | "/load_lora_adapter") => {
            "adapter.create"
        }
        ("PUT", "/v1/adapters/{name}") | ("POST", "/v2/repository/models/{model}/load") => {
            "adapter.replace"
        }
        ("DELETE", "/v1/adapters/{name}")
        | (
            "POST",
            "/v1/unload_lora_adapter"
            | "/unload_lora_adapter"
            | "/v2/repository/models/{model}/unload",
        ) => "adapter.delete",
        ("POST", "/v1/adapters/{name}/activate") => "adapter.activate",
        ("POST", "/v1/adapters/{name}/promote") => "adapter.promote",
        ("POST", "/v1/adapters/{name}/rollback") => "adapter.rollback",
        ("POST", "/v1/adapters/{name}/canary") => "adapter.canary.start",
        ("DELETE", "/v1/adapters/{name}/canary") => "adapter.canary.end",
        ("PUT", "/v1/adapters/{name}/pin") => "adapter.pin",
        ("DELETE", "/v1/adapters/{name}/pin") => "adapter.unpin",
        ("POST", "/lora-adapters") => "adapter.scale",
        ("POST", "/v1/datasets") => "dataset.create",
        ("DELETE", "/v1/datasets/{id}") => "dataset.delete",
        ("POST", "/v1/evaluations" | "/v1/evaluations/ood" | "/v1/evaluations/cross-task") => {
            "evaluation.create"
        }
        ("DELETE", "/v1/evaluations/{id}") => "evaluation.cancel",
        ("POST", "/v1/evaluations/{id}/pause") => "evaluation.pause",
        ("POST", "/v1/evaluations/{id}/resume") => "evaluation.resume",
        _ => return None,
    })
}

/// The part of a path that names what the request is about.
pub fn subject(route: &str, path: &str) -> Option<String> {
    let named = route.split('/').zip(path.split('/'));
    let mut named = named.filter(|(pattern, _)| pattern.starts_with('{'));
    named.next().map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_subject() {
        let found = subject("/v1/adapters/{name}/pin", "/v1/adapters/tone/pin");
        assert_eq!(found.as_deref(), Some("tone"));
        assert_eq!(subject("/v1/adapters", "/v1/adapters"), None);
    }

    /// Routes that change something and are no admin actions: they run a model or look at something.
    const OTHERS: [&str; 17] = [
        "/",
        "/completion",
        "/completions",
        "/detokenize",
        "/generate",
        "/generate_stream",
        "/tokenize",
        "/v1/chat/completions",
        "/v1/classify",
        "/v1/compare",
        "/v1/completions",
        "/v1/replay",
        "/v1/score",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        "/v2/repository/index",
        "/docs",
    ];

    #[test]
    fn every_route_that_changes_something_is_an_action_or_known_not_to_be_one() {
        let (mut path, mut seen) = ("", 0);
        for line in include_str!("../routes.rs").lines() {
            if let Some(rest) = line.trim().strip_prefix(".service(at(\"") {
                path = rest.split('"').next().unwrap_or_default();
            }
            for (call, method) in [("post()", "POST"), ("put()", "PUT"), ("delete()", "DELETE")] {
                if line.contains(&format!(".route({call}")) {
                    seen += 1;
                    let is_other = OTHERS.contains(&path);
                    assert_eq!(of(method, path).is_none(), is_other, "{method} {path}");
                }
            }
        }
        assert!(seen > 30, "the search for routes found {seen}");
    }
}
