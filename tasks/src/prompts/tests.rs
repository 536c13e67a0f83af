//! The wording, verbatim, and prompt maps, good and bad.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Piece, PromptError, Prompts, context, pieces};
use crate::example::{Example, Fields};
use crate::task::Task;

fn fields(task: Task) -> Fields {
    match task {
        Task::Summary | Task::Sentiment => Fields::input("It rained."),
        Task::Question => Fields::from([("input", "Ana ran."), ("answer", "tired")]),
        Task::Detection | Task::Inference => {
            Fields::from([("input_1", "It rained."), ("input_2", "It was wet.")])
        }
    }
}

fn rendered(prompt: usize) -> String {
    let prompts = Prompts::built_in();
    let text = |task| {
        prompts
            .render(prompt, task, &fields(task))
            .expect("built in")
    };
    Task::ALL
        .map(|task| text(task) + "<output>")
        .join("\n=====\n")
}

#[test]
fn prompt_0_is_the_plain_form() {
    insta::assert_snapshot!(rendered(0), @r#"
    ### Input:
    It rained.
    ### Summary:<output>
    =====
    ### Input:
    Ana ran.
    ### Answer:
    tired
    ### Question:<output>
    =====
    ### Input:
    It rained.
    ### Sentiment:<output>
    =====
    ### Input_1:
    It rained.
    ### Input_2:
    It was wet.
    ### Paraphrase Classification:<output>
    =====
    ### Input_1:
    It rained.
    ### Input_2:
    It was wet.
    ### Inference:<output>
    "#);
}

#[test]
fn prompt_1_asks_in_sentences() {
    insta::assert_snapshot!(rendered(1), @r#"
    Here is an article.
    It rained.
    Its main point, put into one or two short sentences, is:<output>
    =====
    Someone was told this: Ana ran.
    Then they were asked something, and they said: tired
    What they were asked was:<output>
    =====
    A customer wrote: It rained.
    Say in one word, positive or negative, how the customer felt:<output>
    =====
    First sentence: It rained.
    Second sentence: It was wet.
    Say yes if both sentences mean the same and no if they do not:<output>
    =====
    Suppose this is true: It rained.
    Then consider this claim: It was wet.
    For the claim the first text is an entailment, neutral or a contradiction, namely:<output>
    "#);
}

#[test]
fn a_demonstration_is_prompt_output_and_blank_line() {
    let prompts = Prompts::built_in();
    let demonstrations =
        [("Lovely.", "positive"), ("Broken.\n", "negative")].map(|(input, output)| Example {
            fields: Fields::input(input),
            output: output.to_owned(),
        });
    let text = context(&prompts, 0, Task::Sentiment, &demonstrations).expect("complete");
    assert_eq!(
        text,
        "### Input:\nLovely.\n### Sentiment:positive\n\n### Input:\nBroken.\n\n### Sentiment:negative\n\n"
    );
    assert_eq!(
        context(&prompts, 0, Task::Sentiment, &[]),
        Ok(String::new())
    );
}

#[test]
fn braces_in_an_example_stay_as_they_are() {
    let fields = Fields::from([("input", "{answer} {input} {"), ("answer", "{input}")]);
    let text = Prompts::built_in().render(0, Task::Question, &fields);
    assert_eq!(
        text.as_deref(),
        Ok("### Input:\n{answer} {input} {\n### Answer:\n{input}\n### Question:")
    );
}

#[test]
fn says_which_field_or_prompt_is_missing() {
    let prompts = Prompts::built_in();
    let error = prompts
        .render(1, Task::Question, &Fields::input("Ana ran."))
        .expect_err("no answer");
    insta::assert_snapshot!(error, @r#"the question prompt needs the field "answer""#);
    let error = prompts
        .render(2, Task::Summary, &Fields::input("x"))
        .expect_err("two prompts");
    insta::assert_snapshot!(error, @"there is no prompt 2; the prompts are 0 to 1");
    assert_eq!(error.code(), "unknown_prompt");
}

fn map_entry() -> Value {
    json!({
        "summary": "S {input}:", "sentiment": "{{input} F }{}{ {input }:", "question": "{answer}<{input}",
        "inference": "{input_1}{input_2} ", "detection": "{input_2}{input_1}{input_2}", "other": "{unknown}"
    })
}

fn parse(map: &Value) -> Result<Prompts, PromptError> {
    Prompts::parse(map.to_string().as_bytes())
}

#[test]
fn a_prompt_map_replaces_every_prompt() {
    let prompts = parse(&json!([map_entry(), map_entry(), map_entry()])).expect("complete");
    assert_eq!(prompts.count(), 3);
    let text = |task| prompts.render(2, task, &fields(task)).expect("complete");
    assert_eq!(text(Task::Summary), "S It rained.:");
    assert_eq!(text(Task::Sentiment), "{It rained. F }{}{ {input }:");
    assert_eq!(text(Task::Question), "tired<Ana ran.");
    assert_eq!(text(Task::Inference), "It rained.It was wet. ");
    assert_eq!(text(Task::Detection), "It was wet.It rained.It was wet.");
}

fn complaint(change: impl FnOnce(&mut Value)) -> String {
    let mut map = json!([map_entry(), map_entry()]);
    change(&mut map);
    parse(&map).expect_err("changed for the worse").to_string()
}

#[test]
fn an_unusable_prompt_map_is_refused_with_the_entry() {
    insta::assert_snapshot!(complaint(|map| map[1]["summary"] = "{input} {text}".into()), @"prompt 1 for summary names the field {text}; summary has input");
    insta::assert_snapshot!(complaint(|map| map[1]["question"] = "{input}".into()), @"prompt 1 for question does not show the field {answer}");
    insta::assert_snapshot!(complaint(|map| map[0] = json!({"summary": "{input}"})), @"prompt 0 of the prompt map has no template for question");
    insta::assert_snapshot!(complaint(|map| *map = json!([])), @"the prompt map is empty; expected at least prompt 0");
    insta::assert_snapshot!(complaint(|map| map[0]["summary"] = 3.into()), @"not a prompt map: invalid type: integer `3`, expected a string at line 1 column 179; expected a JSON list of objects from task to template");
}

proptest! {
    #[test]
    fn pieces_put_together_are_the_template(template in "[a{}_ é]{0,24}") {
        let mut together = String::new();
        let mut literal_before = false;
        for piece in pieces(&template) {
            match piece {
                Piece::Text(text) => {
                    prop_assert!(!text.is_empty() && !literal_before);
                    together.push_str(text);
                    literal_before = true;
                }
                Piece::Field(name) => {
                    together.push_str(&format!("{{{name}}}"));
                    literal_before = false;
                }
            }
        }
        prop_assert_eq!(together, template);
    }
}
