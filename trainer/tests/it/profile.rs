//! The domain profile: measured after a training, added to an adapter that has none.

use adapters::{DomainProfile, Manifest, write_manifest};
use engine::{Engine, EngineConfig, LoadOptions, Model, Priority, ScoreRequest};
use trainer::profile::{ProfileArguments, profile};
use trainer::recipe::ActivationBits;
use trainer::{AdapterArguments, EngineArguments};

use crate::workplace::Workplace;

const SHORT: &str = "--epochs 1 --batch-size 4 --held-out 2 --rank 2 --alpha 6";

fn arguments(place: &Workplace) -> ProfileArguments {
    ProfileArguments {
        adapter: AdapterArguments {
            adapter: place.out(),
            model: place.model.clone(),
        },
        data: Some(place.data()),
        train_size: None,
        examples: 512,
        engine: EngineArguments {
            activation_bits: ActivationBits::Mixed,
            kernels: None,
            threads: Some(1),
        },
    }
}

fn manifest(place: &Workplace) -> Manifest {
    Manifest::parse(&place.written("manifest.json")).unwrap()
}

/// Mean hidden state of a text's tokens behind others, through an engine of this test's own.
fn state(place: &Workplace, behind: &str, text: &str) -> Vec<f32> {
    let model = Model::load(&place.model, &LoadOptions::default()).unwrap();
    let engine = Engine::start(model, EngineConfig::default()).unwrap();
    let weights = engine.prepare(&place.adapter());
    let encode = |text: &str| engine.tokenizer().encode_prompt(text);
    let request = ScoreRequest {
        prompt: encode(&format!("{behind}{text}")),
        continuations: Vec::new(),
        adapter: Some(weights.into()),
        pooled_from: Some(encode(behind).len()),
        priority: Priority::Interactive,
        deadline: None,
    };
    let result = engine.score(request).unwrap().blocking_recv().unwrap();
    result.unwrap().mean_hidden.unwrap()
}

fn prompt(text: &str) -> String {
    format!("### Input:\n{text}\n### Sentiment:")
}

#[test]
fn a_training_measures_what_its_inputs_look_like() {
    let place = Workplace::new();
    let report = place.run(SHORT).unwrap();
    let adapter = place.adapter();
    assert_eq!(adapter.version, report.version);
    let card = String::from_utf8(place.written("README.md")).unwrap();
    assert!(card.contains(report.version.as_str()), "{card}");
    let domain = adapter.manifest.domain.unwrap();
    assert_eq!(domain.examples, 8);
    let texts = [
        "good tea",
        "a bad cup",
        "the good one",
        "bad and sad",
        "so good",
        "this is bad",
        "good good",
        "bad",
    ];
    let states = texts.map(|text| state(&place, "", &prompt(text)));
    assert_eq!(domain, DomainProfile::measure(&states).unwrap());
    let strange = state(&place, "", "0123456789 @@@@ XYZ");
    assert_eq!(domain.in_domain(domain.distance(&strange)), 0.0);
}

#[test]
fn demonstrations_stand_before_what_is_measured() {
    let place = Workplace::new();
    let flags = format!("--method fticl --shots 2 {SHORT}");
    place.run(&flags).unwrap();
    let domain = manifest(&place).domain.unwrap();
    let behind = format!(
        "{}positive\n\n{}negative\n\n",
        prompt("the good one"),
        prompt("bad and sad")
    );
    let nearest = domain.distance(&state(&place, &behind, &prompt("so good")));
    assert!(domain.in_domain(nearest) > 0.0, "{nearest}");
    let alone = domain.distance(&state(&place, "", &prompt("so good")));
    assert!(alone > nearest, "{alone} {nearest}");
}

#[test]
fn an_adapter_without_a_profile_gets_the_one_of_its_training() {
    let place = Workplace::new();
    let trained = place.run(SHORT).unwrap().version;
    let renewed = profile(&arguments(&place)).unwrap();
    assert_eq!((&renewed.before, &renewed.after), (&trained, &trained));
    let mut without = manifest(&place);
    without.domain = None;
    write_manifest(&place.out(), &without).unwrap();
    let bare = place.adapter().version;
    fs_err::write(place.out().join("README.md"), format!("Version `{bare}`.")).unwrap();
    let renewed = profile(&arguments(&place)).unwrap();
    assert_eq!((&renewed.before, &renewed.after), (&bare, &trained));
    let told = renewed.to_string();
    assert!(told.contains("8 training inputs") && told.contains(bare.as_str()));
    let card = String::from_utf8(place.written("README.md")).unwrap();
    assert_eq!(card, format!("Version `{trained}`."));
    let few = ProfileArguments {
        examples: 3,
        ..arguments(&place)
    };
    assert_ne!(profile(&few).unwrap().after, trained);
    assert_eq!(manifest(&place).domain.unwrap().examples, 3);
}

#[test]
fn an_adapter_that_does_not_say_what_it_was_trained_on_is_refused() {
    let place = Workplace::new();
    place.run(SHORT).unwrap();
    let mut changed = manifest(&place);
    changed.trained_on = Some("letters".to_owned());
    write_manifest(&place.out(), &changed).unwrap();
    let error = profile(&arguments(&place)).unwrap_err().to_string();
    assert!(
        error.contains("trained_on letters; a profile needs amazon"),
        "{error}"
    );
    changed.task = None;
    write_manifest(&place.out(), &changed).unwrap();
    let error = profile(&arguments(&place)).unwrap_err().to_string();
    assert!(
        error.contains("task nothing; a profile needs one of"),
        "{error}"
    );
}
