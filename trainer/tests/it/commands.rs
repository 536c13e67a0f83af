//! The commands beside `train`: suite, inspect, export, merge.

use adapters::{LoraModule, Projection};
use clap::Parser;
use engine::DenseWeights;
use serde_json::Value;
use trainer::AdapterArguments;
use trainer::export::{ExportArguments, export};
use trainer::inspect::{InspectArguments, inspect};
use trainer::merge::{MergeArguments, merge};
use trainer::suite::{Outcome, SuiteArguments, TABLE, suite};

use crate::workplace::Workplace;

const UNEVEN: &str = "--epochs 2 --batch-size 4 --held-out 2 --rank 2 --alpha 6 --ranks down_proj=3,q_proj=1 --rslora --targets q_proj,v_proj,down_proj";

fn adapter(place: &Workplace) -> AdapterArguments {
    AdapterArguments {
        adapter: place.out(),
        model: place.model.clone(),
    }
}

/// `scale · B A`, entry by entry.
fn delta(module: &LoraModule) -> Vec<f64> {
    let inputs = module.a.len() / module.rank;
    let outputs = module.b.len() / module.rank;
    let entry = |output: usize, input: usize| {
        let products = (0..module.rank).map(|rank| {
            f64::from(module.b[output * module.rank + rank])
                * f64::from(module.a[rank * inputs + input])
        });
        f64::from(module.scale) * products.sum::<f64>()
    };
    (0..outputs)
        .flat_map(|output| (0..inputs).map(move |input| (output, input)))
        .map(|(output, input)| entry(output, input))
        .collect()
}

#[test]
fn ranks_of_their_own_and_rank_stabilised_scales_survive_the_directory() {
    let place = Workplace::new();
    place.run(UNEVEN).unwrap();
    let shapes: Vec<(Projection, usize, f32)> = place.adapter().modules[..3]
        .iter()
        .map(|module| (module.projection, module.rank, module.scale))
        .collect();
    let scale = |rank: f64| (6.0 / rank.sqrt()) as f32;
    assert_eq!(
        shapes,
        [
            (Projection::Query, 1, scale(1.0)),
            (Projection::Value, 2, scale(2.0)),
            (Projection::Down, 3, scale(3.0))
        ]
    );
}

#[test]
fn inspect_tells_the_norms_of_the_deltas() {
    let place = Workplace::new();
    place.run(UNEVEN).unwrap();
    let arguments = |json| InspectArguments {
        adapter: adapter(&place),
        json,
    };
    let told: Value = serde_json::from_str(&inspect(&arguments(true)).unwrap()).unwrap();
    let (mut squares, mut absolute, mut entries) = (0.0, 0.0, 0);
    for module in place.adapter().modules {
        for value in delta(&module) {
            squares += value * value;
            absolute += value.abs();
            entries += 1;
        }
    }
    let all = &told["distance"]["all"];
    let close = |told: &Value, expected: f64| {
        let told = told.as_f64().unwrap();
        assert!(
            (told - expected).abs() < 1e-4 * expected,
            "{told} {expected}"
        );
    };
    close(&all["delta"], squares.sqrt());
    close(&all["mean_absolute_change"], absolute / f64::from(entries));
    assert_eq!(all["entries"], entries);
    let text = inspect(&arguments(false)).unwrap();
    assert!(
        text.contains("down_proj (rank 3, scale 3.4641016, 2 layers)"),
        "{text}"
    );
}

#[test]
fn a_merged_model_has_the_deltas_in_its_weights() {
    let place = Workplace::new();
    place.run(UNEVEN).unwrap();
    let out = place.folder.path().join("merged");
    let arguments = MergeArguments {
        adapter: adapter(&place),
        out: out.clone(),
    };
    merge(&arguments).unwrap();
    let bytes = fs_err::read(out.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let base = DenseWeights::load(&place.model).unwrap();
    for module in place.adapter().modules {
        let name = format!("{}.weight", module.projection.module_path(module.layer));
        let merged = file.tensor(&name).unwrap();
        let merged = merged.data().chunks_exact(4);
        let before = base.layers[module.layer].matrix(module.projection);
        for ((bytes, before), delta) in merged.zip(before).zip(delta(&module)) {
            let value = f32::from_le_bytes(bytes.try_into().unwrap());
            let expected = f64::from(*before) + delta;
            assert!((f64::from(value) - expected).abs() < 1e-5, "{name}");
        }
    }
    let tokenizer = engine::Tokenizer::from_directory(&out).unwrap();
    let original = engine::Tokenizer::load(&place.model).unwrap();
    for text in ["so good 12", "<|im_end|> naïve"] {
        assert_eq!(tokenizer.encode(text, true), original.encode(text, true));
    }
    let again = merge(&arguments).unwrap_err().to_string();
    assert!(
        again.contains("a directory that does not exist yet"),
        "{again}"
    );
}

#[test]
fn an_exported_adapter_is_a_gguf_file_of_its_factors() {
    let place = Workplace::new();
    place.run(UNEVEN).unwrap();
    let out = place.folder.path().join("adapter.gguf");
    export(&ExportArguments {
        adapter: adapter(&place),
        out: out.clone(),
    })
    .unwrap();
    let mut file = fs_err::File::open(&out).unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    assert_eq!(
        content.metadata["adapter.type"].to_string().unwrap(),
        "lora"
    );
    // No alpha gives all three projections their scale, so it is in `B`.
    assert_eq!(
        content.metadata["adapter.lora.alpha"].to_f32().unwrap(),
        0.0
    );
    let device = candle_core::Device::Cpu;
    let module = &place.adapter().modules[2];
    let b = content
        .tensor(&mut file, "blk.0.ffn_down.weight.lora_b", &device)
        .unwrap()
        .dequantize(&device)
        .unwrap();
    assert_eq!(b.dims(), [module.b.len() / 3, 3]);
    let values: Vec<f32> = b.flatten_all().unwrap().to_vec1().unwrap();
    for (value, expected) in values.iter().zip(&module.b) {
        assert!((value - module.scale * expected).abs() < 1e-6);
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: SuiteArguments,
}

#[test]
fn a_suite_trains_what_is_missing_and_only_that() {
    let place = Workplace::new();
    let grid = |more: &str| {
        let kept = |flags: Vec<String>| {
            // A suite chooses tasks, sizes and directories itself.
            let own = ["--task", "--train-size", "--out"];
            let pairs = flags
                .chunks(2)
                .filter(|pair| !own.contains(&pair[0].as_str()));
            pairs.flatten().cloned().collect::<Vec<_>>()
        };
        let out = place.folder.path().join("grid");
        let line = ["trainer", "--tasks", "sentiment", "--sizes", "8", "--out"]
            .map(str::to_owned)
            .into_iter()
            .chain([out.to_str().unwrap().to_owned()])
            .chain(kept(place.flags(more)));
        Line::try_parse_from(line).unwrap().arguments
    };
    let flags = "--epochs 2 --batch-size 4 --held-out 2";
    let mut lines = Vec::new();
    let mut run = |flags: &str| {
        lines.clear();
        let runs = suite(&grid(flags), |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines.len(), runs.len());
        runs
    };
    let created = |outcome: &Outcome| match outcome {
        Outcome::Trained(manifest) => manifest.created.clone(),
        other => panic!("{other:?}"),
    };
    let unfinished = run(&format!("{flags} --max-minutes 1e-9"));
    assert!(
        unfinished
            .iter()
            .all(|run| matches!(run.outcome, Outcome::Unfinished))
    );
    let first = run(flags);
    let names: Vec<&str> = first.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["sentiment-ft", "sentiment-fticl"]);
    let second = run(flags);
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(created(&first.outcome), created(&second.outcome));
    }
    let table = fs_err::read_to_string(place.folder.path().join("grid").join(TABLE)).unwrap();
    assert_eq!(table.lines().count(), 2 + 2, "{table}");
    let row = table.lines().nth(2).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    // Of six examples in batches of four, two epochs.
    assert_eq!(cells[1..4], ["sentiment-ft", "6", "4"], "{table}");
    assert!(cells[5].parse::<f64>().unwrap() > 0.0, "{table}");
    let other = run("--epochs 2 --batch-size 4 --held-out 2 --rank 3");
    let Outcome::Failed(error) = &other[0].outcome else {
        panic!("{other:?}");
    };
    assert!(
        error
            .to_string()
            .contains("trained with rank 8, this suite has 3"),
        "{error}"
    );
}
