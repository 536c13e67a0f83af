//! What each form of a report says of the same records.

use insta::assert_snapshot;
use serde_json::json;

use super::*;
use crate::cell_report::{CellComparison, CellReport, Verdict};
use crate::record::{Evaluation, Progress, Status};

/// A cell of `tone`, which was trained for sentiment.
fn cell(dataset: &str, domain: &str, shots: usize, interval: [f64; 2]) -> CellReport {
    CellReport {
        adapter: "tone".to_owned(),
        version: Some("ab".repeat(32)),
        trained_task: Some("sentiment".to_owned()),
        task: "sentiment".to_owned(),
        dataset: dataset.to_owned(),
        domain: domain.to_owned(),
        shots,
        prompt: 0,
        n: 4,
        metric: "accuracy".to_owned(),
        value: 0.75,
        ci95: [0.25, 1.0],
        baseline: 0.5,
        delta: (interval[0] + interval[1]) / 2.0,
        verdict: Verdict::of(interval),
        against: None,
        extra: json!({"delta_ci95": interval, "confusion": [[2, 0], [1, 1]], "labels": ["positive", "negative"], "macro_f1": 0.733, "truncated": 0}),
    }
}

/// A cell in which a text is asked for and a bare label comes nine times out of ten.
fn collapsed() -> CellReport {
    CellReport {
        task: "summary".to_owned(),
        n: 10,
        metric: "rouge_l".to_owned(),
        extra: json!({"delta_ci95": [-0.2, -0.1], "bare_labels": 9, "rouge_1": 0.25, "rouge_2": 0.0, "rouge_l": 0.125, "bleu": 0.01}),
        ..cell("xsum", "cross", 1, [-0.2, -0.1])
    }
}

/// A cell in which all examples get the first label.
fn one_label(dataset: &str) -> CellReport {
    let mut cell = cell(dataset, "out", 2, [-0.5, -0.25]);
    cell.extra["confusion"] = json!([[3, 0], [1, 0]]);
    cell
}

fn evaluation(cells: Vec<CellReport>) -> Evaluation {
    Evaluation {
        id: "eval_1".to_owned(),
        object: "evaluation".to_owned(),
        status: Status::Completed,
        kind: "out_of_domain".to_owned(),
        adapters: vec!["tone".to_owned()],
        progress: Progress {
            cells_done: cells.len(),
            cells_total: cells.len(),
            examples_done: 8,
            examples_total: 8,
            estimated_seconds_left: None,
        },
        cells,
        ..Evaluation::default()
    }
}

fn beside(mut cell: CellReport, name: &str) -> CellReport {
    cell.against = Some(CellComparison {
        adapter: name.to_owned(),
        version: Some("cd".repeat(32)),
        value: 0.7,
        delta: 0.05,
        delta_ci95: [0.01, 0.09],
        verdict: Verdict::Gains,
    });
    cell
}

#[test]
fn a_report_reads_like_a_table() {
    let evaluation = evaluation(vec![cell("yelp", "out", 2, [-0.25, 0.75])]);
    assert_snapshot!(markdown(&evaluation), @r"
    # Evaluation eval_1

    out_of_domain of tone: completed, 1 of 1 cells.

    ## tone@abababab

    - Out of domain: keeps on yelp (+0.250, -0.250 to +0.750).

    | adapter | version | trained_task | task | dataset | domain | shots | prompt | n | metric | value | 95 % interval | baseline | delta | delta 95 % interval | verdict |
    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
    | tone | abababababab | sentiment | sentiment | yelp | out | 2 | 0 | 4 | accuracy | 0.750 | 0.250 to 1.000 | 0.500 | +0.250 | -0.250 to +0.750 | keeps |

    Baseline: the base model in the same cell. Intervals: bootstrap, paired for delta. A verdict is one by its interval: above 0 it gains, below 0 it loses, otherwise it keeps.
    ");
}

#[test]
fn verdicts_are_told_by_domain_data_set_and_number_of_demonstrations() {
    let cells = vec![
        cell("amazon", "in", 0, [0.07, 0.17]),
        cell("amazon", "in", 2, [0.05, 0.16]),
        cell("amazon", "in", 4, [-0.1, 0.1]),
        cell("amazonfood", "in", 0, [0.03, 0.13]),
        one_label("yelp"),
        collapsed(),
    ];
    let markdown = markdown(&evaluation(cells));
    let words: Vec<&str> = markdown
        .lines()
        .filter(|line| line.starts_with("- "))
        .collect();
    assert_snapshot!(words.join("\n"), @r"
    - In domain: gains on amazon with 0 and 2 demonstrations (differences from +0.105 to +0.120) and amazonfood without demonstrations (+0.080, +0.030 to +0.130); keeps on amazon with 4 demonstrations (+0.000, -0.100 to +0.100).
    - Out of domain: loses on yelp (-0.375, -0.500 to -0.250).
    - Across tasks: loses on xsum (-0.150, -0.200 to -0.100).
    - It gives every example the same label on yelp with 2 demonstrations: the accuracy there is that label's share, and says nothing of the adapter.
    - Where texts are asked for it answers with a bare label on xsum with 1 demonstration (90 %).
    ");
}

#[test]
fn another_model_has_columns_of_its_own_where_there_is_one() {
    let alone = evaluation(vec![cell("yelp", "out", 2, [-0.25, 0.75])]);
    assert!(!markdown(&alone).contains("against"));
    let compared = evaluation(vec![
        beside(cell("yelp", "out", 2, [-0.25, 0.75]), "old|er"),
        cell("sst2", "out", 2, [-0.25, 0.75]),
    ]);
    let text = markdown(&compared);
    assert!(
        text.contains("- Out of domain against old|er: gains on yelp (+0.050, +0.010 to +0.090)."),
        "{text}"
    );
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let widths: Vec<usize> = rows.iter().map(|row| row.matches(" |").count()).collect();
    assert_eq!(widths, [21; 4], "{text}");
    assert!(
        rows[2].ends_with("keeps | old\\|er | 0.700 | +0.050 | +0.010 to +0.090 | gains |"),
        "{text}"
    );
}

#[test]
fn every_row_of_the_csv_has_every_column() {
    let mut awkward = beside(cell("yelp", "out", 2, [-0.25, 0.75]), "a,\"b\"");
    awkward.adapter = "two\nlines".to_owned();
    let cells = vec![cell("yelp", "out", 2, [-0.25, 0.75]), awkward];
    let text = csv(&evaluation(cells.clone()));
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<Vec<String>> = std::iter::once(reader.headers().unwrap().clone())
        .chain(reader.records().map(Result::unwrap))
        .map(|row| row.iter().map(ToOwned::to_owned).collect())
        .collect();
    assert_eq!(rows[0][..4], ["adapter", "version", "trained_task", "task"]);
    assert_eq!(rows[0][16..19], ["delta_ci95_high", "verdict", "against"]);
    assert!(
        text.contains("accuracy,0.75,0.25,1,0.5,0.25,-0.25,0.75,keeps,,,,,,,\n"),
        "{text}"
    );
    assert_eq!(rows[2][0], "two\nlines");
    assert_eq!(rows[2][18], "a,\"b\"");
    assert_eq!(rows[2][20..], ["0.7", "0.05", "0.01", "0.09", "gains"]);
}

#[test]
fn a_card_says_where_it_was_made_what_it_found_and_what_it_is_worth() {
    let mut xsum = collapsed();
    xsum.prompt = 1;
    let cells = [
        cell("amazon", "in", 0, [0.07, 0.17]),
        one_label("yelp"),
        xsum,
    ];
    let facts = CardFacts {
        command: "trainer evaluate",
        kernels: "avx2",
        held_out: Some((0.5, 0.9)),
    };
    let text = card(&cells, facts);
    assert_snapshot!(text, @r"
    ## Evaluation

    Measured with `trainer evaluate` (kernels: avx2). *base* is the untouched model in the same cell with the same demonstrations; intervals are bootstrap, paired for the difference. *in*: the data it was trained on and its sibling; *out*: the same task elsewhere; *cross*: other tasks. By the interval of its difference an adapter gains (above 0), loses (below 0) or keeps (0 is in it).

    Without demonstrations it is above the base on amazon, by intervals that exclude 0. It gives every example the same label on yelp with 2 demonstrations: the accuracy there is that label's share, and says nothing of the adapter. Where texts are asked for it answers with a bare label on xsum with 1 demonstration in prompt 1 (90 %).

    - In domain: gains in 1 of 1 cell.
    - Out of domain: loses in 1 of 1 cell.
    - Across tasks: loses in 1 of 1 cell.

    | domain | task | data set | shots | prompt | n | metric | value | 95 % interval | base | difference | 95 % interval of it | verdict |
    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
    | in | sentiment | amazon | 0 | 0 | 4 | accuracy | 0.750 | 0.250 to 1.000 | 0.500 | +0.120 | +0.070 to +0.170 | gains |
    | out | sentiment | yelp | 2 | 0 | 4 | accuracy | 0.750 | 0.250 to 1.000 | 0.500 | -0.375 | -0.500 to -0.250 | loses |
    | cross | summary | xsum | 1 | 1 | 10 | rouge_l | 0.750 | 0.250 to 1.000 | 0.500 | -0.150 | -0.200 to -0.100 | loses |
    ");
}

#[test]
fn a_card_says_whether_a_miss_was_one_of_training() {
    let cells = [
        cell("amazon", "in", 1, [-0.07, 0.17]),
        cell("amazonfood", "in", 1, [0.07, 0.17]),
    ];
    let said = |held_out| {
        let facts = CardFacts {
            held_out,
            ..CardFacts::default()
        };
        card(&cells, facts)
    };
    assert!(said(None).contains(
        "With 1 demonstration it is **not** above the base on amazon by an interval that excludes 0.\n"
    ));
    assert!(said(Some((0.5, 0.52))).contains(
        "excludes 0. Its accuracy on the held-out training examples went from 0.500 to 0.520: what is missing"
    ));
    assert!(said(Some((0.5, 0.9))).contains(
        "excludes 0, although its accuracy on the held-out training examples went from 0.500 to 0.900.\n"
    ));
    let nothing = card(&[], CardFacts::default());
    assert!(nothing.ends_with("Nothing was measured.\n"), "{nothing}");
}

#[test]
fn a_record_without_a_verdict_is_judged_by_its_interval() {
    let mut old = cell("yelp", "out", 2, [0.1, 0.2]);
    old.verdict = Verdict::Keeps;
    let record = evaluation(vec![old]);
    assert!(markdown(&record).contains("| gains |"));
    assert!(csv(&record).contains(",gains,"));
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    let mut cells = vec![
        beside(cell("amazon", "in", 0, [0.07, 0.17]), "<i>older</i>"),
        beside(cell("amazon", "in", 2, [-0.2, 0.17]), "<i>older</i>"),
        collapsed(),
    ];
    for cell in &mut cells {
        cell.adapter = "<script>alert('&')</script>".to_owned();
    }
    let mut record = evaluation(cells);
    record.error = Some("a <b>bold</b> error".to_owned());
    let page = html(&record);
    let lower = page.to_lowercase();
    for foreign in [
        "http:", "https:", "<script", "url(", "@import", "src=", "onload", "<i>", "<b>bold",
    ] {
        assert!(!lower.contains(foreign), "{foreign}: {page}");
    }
    assert!(page.contains("&lt;script&gt;alert("), "{page}");
}

#[test]
fn a_page_says_what_was_found_in_figures_words_and_pictures() {
    let mut base = cell("amazon", "in", 2, [0.0, 0.0]);
    (base.adapter, base.version, base.trained_task) = ("base".to_owned(), None, None);
    let record = evaluation(vec![
        base,
        cell("amazon", "in", 0, [0.07, 0.17]),
        cell("amazon", "in", 2, [-0.25, 0.2]),
        one_label("yelp"),
        collapsed(),
    ]);
    let page = html(&record);
    for expected in [
        "Out-of-domain evaluation",
        "tone",
        "@abababab",
        "<b>amazon</b> without demonstrations <span class=\"quiet\">(+0.120, +0.070 to +0.170)</span>",
        "class=\"cell gains-3\" title=\"+0.120, +0.070 to +0.170\"><span class=\"setting\">0</span><span class=\"value\">+0.12</span>",
        "class=\"cell loses-1 unsure\"",
        "\u{2212}0.38<sup>†</sup>",
        "accuracy on amazon by number of demonstrations",
        "tone, 0: 0.750 (0.250 to 1.000)",
        "width:90.0%",
        "every example got the same label",
        "macro-F1 0.733",
        "\u{2212}0.375",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    // Only amazon was measured with two numbers of demonstrations.
    assert_eq!(page.matches("class=\"chart\"").count(), 1);
    // The base beside itself is no row of the map and has no verdict.
    assert_eq!(page.matches("<article").count(), 1);
}

#[test]
fn a_page_without_cells_says_why() {
    let mut record = evaluation(Vec::new());
    record.finish(
        Status::Failed,
        Some("the engine stopped".to_owned()),
        1_769_000_000,
    );
    let page = html(&record);
    assert!(page.contains("It failed:</b> the engine stopped"), "{page}");
    assert!(page.contains("nothing had been measured"), "{page}");
    assert!(page.contains("2026-01-21 12:53:20 UTC"), "{page}");
    assert!(!page.contains("<table"), "{page}");
    record.finish(Status::Cancelled, None, 1_769_000_000);
    let page = html(&record);
    assert!(
        page.contains("It was cancelled: nothing") && !page.contains("It failed"),
        "{page}"
    );
}
