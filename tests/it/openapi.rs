//! The served description has every route. That the committed one is the same is for the server's own tests.

use crate::harness::App;

const ROUTES: [&str; 68] = [
    "post /v1/completions",
    "post /v1/chat/completions",
    "post /v1/classify",
    "post /v1/score",
    "post /tokenize",
    "post /detokenize",
    "get /tokenizer_info",
    "get /v1/models",
    "get /v1/models/{id}",
    "get /v1/adapters",
    "post /v1/adapters",
    "get /v1/adapters/{name}",
    "put /v1/adapters/{name}",
    "delete /v1/adapters/{name}",
    "post /v1/adapters/{name}/activate",
    "post /v1/adapters/{name}/promote",
    "post /v1/adapters/{name}/rollback",
    "get /v1/adapters/{name}/history",
    "post /v1/adapters/{name}/canary",
    "delete /v1/adapters/{name}/canary",
    "put /v1/adapters/{name}/pin",
    "delete /v1/adapters/{name}/pin",
    "post /v1/compare",
    "post /v1/replay",
    "post /v1/load_lora_adapter",
    "post /v1/unload_lora_adapter",
    "post /load_lora_adapter",
    "post /unload_lora_adapter",
    "post /generate",
    "post /",
    "post /generate_stream",
    "get /info",
    "post /completion",
    "post /completions",
    "get /lora-adapters",
    "post /lora-adapters",
    "get /v2",
    "get /v2/health/live",
    "get /v2/health/ready",
    "get /v2/models/{model}",
    "get /v2/models/{model}/ready",
    "post /v2/models/{model}/infer",
    "get /v2/models/{model}/versions/{version}",
    "get /v2/models/{model}/versions/{version}/ready",
    "post /v2/models/{model}/versions/{version}/infer",
    "post /v2/repository/index",
    "post /v2/repository/models/{model}/load",
    "post /v2/repository/models/{model}/unload",
    "get /v1/tasks",
    "get /v1/datasets",
    "post /v1/datasets",
    "get /v1/datasets/{id}",
    "delete /v1/datasets/{id}",
    "post /v1/evaluations",
    "post /v1/evaluations/ood",
    "post /v1/evaluations/cross-task",
    "get /v1/evaluations",
    "get /v1/evaluations/{id}",
    "post /v1/evaluations/{id}/pause",
    "post /v1/evaluations/{id}/resume",
    "get /v1/evaluations/{id}/predictions",
    "delete /v1/evaluations/{id}",
    "get /v1/evaluations/{id}/events",
    "get /v1/evaluations/{id}/report",
    "get /health",
    "get /ready",
    "get /version",
    "get /metrics",
];

#[tokio::test]
async fn every_route_is_described_with_its_answers() {
    let app = App::start().await;
    let description = app.client.get("/openapi.json").await.expect(200);
    for route in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        let operation = &description["paths"][path][method];
        assert!(
            operation["responses"].is_object(),
            "{route} is not described"
        );
        let said = operation["summary"]
            .as_str()
            .or(operation["description"].as_str());
        assert!(
            said.is_some_and(|text| !text.is_empty()),
            "{route} does not say what it does"
        );
    }
    assert_eq!(app.client.get("/docs/").await.status, 200);
}
