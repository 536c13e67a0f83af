//! The server's routes over a small model, called in this process: no socket, everything else as it is served.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::to_bytes;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::rt::System;
use actix_web::test::{TestRequest, init_service};
use actix_web::web::Data;
use actix_web::{App, Error};
use adapters::DirectoryStore;
use clap::Parser;
use engine::{Engine, EngineConfig, Model};
use server::access::Access;
use server::configuration::Configuration;
use server::datasets::DatasetFolder;
use server::evaluations::Evaluations;
use server::middleware::observe;
use server::routes::configure;
use server::state::{Parts, State};
use tasks::Catalog;

use crate::models::{SMALLEST, load_options};
use crate::scratch;

/// What the routes reach: the smallest model, an empty store, the built-in data.
pub fn state() -> Data<State> {
    let root = scratch();
    let path = root.join("served.gguf");
    SMALLEST.write_to(&path).expect("a writable folder");
    let store = root.join("store");
    let arguments = [
        "server",
        "--served-name",
        "tiny",
        "--max-rank",
        "8",
        "--model",
    ]
    .map(str::to_owned);
    let text = |path: &std::path::Path| path.to_str().expect("a name of its own").to_owned();
    let arguments = arguments
        .into_iter()
        .chain([text(&path), "--store".to_owned(), text(&store)]);
    let mut configuration = Configuration::parse_from(arguments);
    let access = Access::open(&mut configuration).expect("no keys and no certificate");
    let model = Model::load(&path, &load_options()).expect("a good model");
    let engine_configuration = EngineConfig {
        kv_tokens: 1024,
        ..EngineConfig::default()
    };
    let catalog = Catalog::open(None).expect("the built-in data");
    let store = DirectoryStore::open(&store).expect("a writable folder");
    let local = configuration.local_directory().to_owned();
    let parts = Parts {
        access,
        engine: Engine::start(model, engine_configuration).expect("an engine of a good model"),
        store: Arc::new(store),
        dataset_folder: DatasetFolder::open(&local, &catalog).expect("an empty folder"),
        evaluations: Evaluations::open(&local, 1).expect("an empty folder"),
        catalog,
        configuration,
    };
    Data::new(State::new(parts).expect("metrics with names of their own"))
}

/// One request to the routes: the status and the whole body of the answer.
pub type Call = Rc<dyn Fn(TestRequest) -> (u16, Vec<u8>)>;

/// Mounts the routes; what comes back answers one request at a time.
pub fn routes(state: Data<State>) -> Call {
    let runtime = System::new();
    let app = App::new()
        .app_data(state)
        .wrap(from_fn(observe))
        .configure(configure);
    let service = runtime.block_on(init_service(app));
    Rc::new(move |request| {
        runtime.block_on(async {
            let answer: Result<ServiceResponse<_>, Error> =
                service.call(request.to_request()).await;
            match answer {
                Err(error) => (error.as_response_error().status_code().as_u16(), Vec::new()),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let body = to_bytes(answer.into_body()).await;
                    (status, body.map(|body| body.to_vec()).unwrap_or_default())
                }
            }
        })
    })
}

/// A POST of these bytes.
pub fn post(path: &str, content_type: &str, body: &[u8]) -> TestRequest {
    TestRequest::default()
        .method(Method::POST)
        .uri(path)
        .insert_header(("content-type", content_type))
        .set_payload(body.to_vec())
}
