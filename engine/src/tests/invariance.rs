//! An answer is the same bits alone or in any batch, chunked or not, from the prefix cache or computed, preempted or not.

use super::*;

fn prompts() -> Vec<Vec<u32>> {
    let lengths = [5, 23, 40, 16, 33, 64, 2, 17];
    let prompt = |index: usize, length: usize| -> Vec<u32> {
        (0..length as u32)
            .map(|i| 40 + (i * 7 + index as u32 * 13) % 200)
            .collect()
    };
    lengths
        .iter()
        .enumerate()
        .map(|(index, &length)| prompt(index, length))
        .collect()
}

fn requests(engine: &Engine) -> Vec<GenerateRequest> {
    let adapters: Vec<_> = (1..=7)
        .map(|seed| random_adapter(engine.base(), seed))
        .collect();
    prompts()
        .iter()
        .enumerate()
        .map(|(index, prompt)| GenerateRequest {
            adapter: (index > 0).then(|| Arc::clone(&adapters[index - 1])),
            ..greedy(prompt, 12)
        })
        .collect()
}

fn alone(engine: &Engine) -> Vec<Answer> {
    let requests = requests(engine);
    let answers = requests.into_iter().map(|request| {
        collect(
            engine
                .generate(request)
                .expect("the engine takes the request"),
        )
    });
    answers.collect()
}

fn together(engine: &Engine) -> Vec<Answer> {
    let receivers: Vec<_> = requests(engine)
        .into_iter()
        .map(|request| {
            engine
                .generate(request)
                .expect("the engine takes the request")
        })
        .collect();
    receivers.into_iter().map(collect).collect()
}

fn without_cache_counts(answers: Vec<Answer>) -> Vec<Answer> {
    let forget = |answer| Answer {
        cached_tokens: 0,
        ..answer
    };
    answers.into_iter().map(forget).collect()
}

#[test]
fn answers_do_not_depend_on_company_chunks_or_preemption() {
    for kernels in available_kernels() {
        let expected = {
            let (engine, _directory) = tiny_engine(kernels, EngineConfig::default());
            alone(&engine)
        };
        assert!(
            expected
                .windows(2)
                .all(|pair| pair[0].tokens != pair[1].tokens)
        );
        let roomy = EngineConfig::default();
        let small_chunks = EngineConfig {
            step_tokens: 3,
            ..EngineConfig::default()
        };
        let little_memory = EngineConfig {
            kv_tokens: 96,
            ..EngineConfig::default()
        };
        for config in [roomy, small_chunks, little_memory] {
            let (engine, _directory) = tiny_engine(kernels, config.clone());
            let answers = without_cache_counts(together(&engine));
            assert_eq!(answers, expected, "{kernels:?} {config:?}");
        }
    }
}

#[test]
fn a_cached_prefix_changes_nothing_but_the_count() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let cold = alone(&engine);
    let warm = alone(&engine);
    let cached: Vec<usize> = warm.iter().map(|answer| answer.cached_tokens).collect();
    assert_eq!(cached, [0, 16, 32, 0, 32, 48, 0, 16]);
    assert_eq!(without_cache_counts(warm), cold);
}

#[test]
fn an_adapter_meets_only_its_own_cached_blocks() {
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    let prompt = &prompts()[5];
    let (first, second) = (
        random_adapter(engine.base(), 1),
        random_adapter(engine.base(), 2),
    );
    let cold = logits(&engine, prompt, Some(Arc::clone(&second)));
    let (engine, _directory) = tiny_engine(KernelChoice::best(), EngineConfig::default());
    logits(&engine, prompt, Some(first));
    assert_eq!(logits(&engine, prompt, Some(second)), cold);
}

#[test]
fn kernel_sets_agree_up_to_rounding() {
    let mut all = available_kernels().map(|kernels| {
        let (engine, _directory) = tiny_engine(kernels, EngineConfig::default());
        let adapter = random_adapter(engine.base(), 3);
        logits(&engine, &prompts()[4], Some(adapter))
    });
    let portable = all
        .next()
        .expect("the portable kernels are always available");
    for other in all {
        let pairs = portable.iter().zip(&other);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Sums of another order or without fused operations take some activations to the next quant.
        assert!(worst < 5e-3, "a logit differs by {worst}");
    }
}
