//! The page of a study, read as a browser reads it.

mod common;

use common::{record, study};
use diapason_report::{Bounds, Curves, Extras, HTML_FILE, Sample, to_html, write_files};
use diapason_study::{
    Cell, Cost, Grid, Machine, Pass, RungCandidate, RungDecision, Study, Timing, Timings, Trial,
    TrialFailure, TrialState,
};
use diapason_training::{CURVE, Counting, CurvePoint, SpanReading};
use scraper::{Html, Selector};
use std::time::{Duration, UNIX_EPOCH};

fn parsed(study: &Study, curves: &Curves, extras: &Extras) -> Html {
    let page = Html::parse_document(&to_html(study, &Bounds::default(), curves, extras));
    assert_eq!(page.errors, Vec::<String>::new());
    page
}

fn texts(page: &Html, selector: &str) -> Vec<String> {
    page.select(&Selector::parse(selector).unwrap())
        .map(|found| found.text().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn number_of(page: &Html, selector: &str) -> usize {
    page.select(&Selector::parse(selector).unwrap()).count()
}

/// A curve that ends at the trial's loss.
fn curve(trial: &Trial) -> Vec<CurvePoint> {
    let last = trial.record.as_ref().and_then(|record| record.last).unwrap();
    let point = |i: u64| CurvePoint {
        step: i * last.step / 20,
        train_loss: 1.0,
        validation_loss: last.validation_loss + 0.8 / i as f64 - 0.04,
        accuracy: 0.5,
        accuracy_last: 0.5,
        train_seconds: last.train_seconds * i as f64 / 20.0,
    };
    (1..=20).map(point).collect()
}

fn curves(study: &Study) -> Curves {
    Curves::new(study.trials.iter().map(curve).collect())
}

/// The seed's study with another grid: losses and costs follow the place in it.
fn grid(axes: &[&str]) -> Study {
    let before = study();
    let grid = Grid::parse(axes).unwrap();
    let cells: Vec<Cell> = grid.cells(&before.spec.config, 27).unwrap();
    let trials = cells.iter().enumerate().map(|(i, cell)| {
        let mut trial = before.trials[0].clone();
        (trial.number, trial.cell) = (i, i);
        let record = trial.record.as_mut().unwrap();
        record.params = cell.params.clone();
        let model = cell.config.model(27).unwrap();
        record.parameters = model.parameters() as u64;
        for reading in [&mut record.best, &mut record.last].into_iter().flatten() {
            reading.validation_loss = 6.0 * (record.parameters as f64).powf(-0.1) + 0.001 * i as f64;
        }
        record.train_seconds = 1e-4 * record.parameters as f64;
        trial
    });
    let trials = trials.collect();
    let mut study = Study { trials, cells, ..before };
    study.spec.grid = grid;
    study
}

#[test]
fn verdict_table_and_plots() {
    let mut study = study();
    let machine = Machine { host: "anvil".into(), processor: "A CPU".into() };
    let timing = |cell: &Cell| {
        (
            Timings::key(&cell.config),
            Timing {
                ms_per_step: 10.0 * cell.config.n_layers as f64,
                turns: 3,
                noise: 0.0,
                side_by_side: vec![],
            },
        )
    };
    let configurations = study.cells.iter().map(timing).collect();
    study.timings =
        vec![Timings { machine, threads: 2, engine: "colab".into(), measured: 0, configurations }];
    let extras = Extras {
        command: Some("diapason tune --corpus 'my <text>.txt'".into()),
        samples: vec![Sample { how: "seed 0".into(), text: "the <i>\nsea".into() }],
        ..Extras::default()
    };
    let page = parsed(&study, &curves(&study), &extras);
    assert_eq!(
        texts(&page, "h1, h2"),
        [
            "the seed",
            "Verdict",
            "Configurations",
            "Learning curves",
            "Comparison",
            "What it writes",
            "Notes",
            "How it was made"
        ]
    );
    assert_eq!(texts(&page, ".verdict"), ["Keep d_model=256 n_heads=8 n_layers=4"]);
    assert!(
        texts(&page, "section p")[1].starts_with("Price: 0.75 % more loss for half the time: ")
            && texts(&page, "section p")[2].contains("0.75 % more loss for 50 % less time"),
        "{:?}",
        texts(&page, "p")
    );
    assert_eq!(
        texts(&page, "table.configurations thead tr:nth-child(1) > *"),
        ["no.", "", "full, 20000 steps", "early, 4000 steps", ""]
    );
    assert_eq!(
        texts(&page, "table.configurations thead tr:nth-child(2) th").join(", "),
        "d_model, n_heads, n_layers, \
         loss, above best, bpc, accuracy, at last, FLOP, seconds (cost), training s, seed's, seed's s, \
         loss, above best, bpc, accuracy, at last, FLOP, seconds (cost), training s, seed's, seed's s, \
         parameters, tokens/s"
    );
    assert_eq!(
        texts(&page, "table.configurations tbody tr:first-child > *").join(", "),
        "1 ★, 256, 8, 4, \
         1.3307, +0.75 %, 1.9198, 55.0 %, 58.0 %, 7.91e14, 800.0, 331.1, 1.3307, 331.1, \
         1.4581, +0.47 %, 2.1036, 55.0 %, 58.0 %, 1.58e14, 160.0, 70.7, 1.4581, 70.7, 3,202,048, 51,200"
    );
    assert_eq!(number_of(&page, "table.configurations tbody tr.chosen"), 1);
    assert_eq!(number_of(&page, "table.configurations tbody th[scope=row]"), 4);
    assert_eq!(number_of(&page, "thead th:not([scope])"), 0);
    // Each of four curves in two plots with two kinds of axes; its values once.
    assert_eq!(number_of(&page, "figure.curves svg polyline.curve"), 16);
    assert_eq!(number_of(&page, "polyline[data-v]"), 4);
    assert_eq!(number_of(&page, "figure.pareto .mark.chosen, figure.pareto .mark.best"), 4);
    assert!(texts(&page, "figure.pareto text").iter().any(|text| text == "best loss + 1 %"));
    for svg in page.select(&Selector::parse("svg").unwrap()) {
        let told = svg.value().attr("role") == Some("img")
            && svg.value().attr("aria-label").is_some_and(|l| l.len() > 20);
        assert!(told || svg.value().attr("aria-hidden") == Some("true"));
    }
    assert_eq!(texts(&page, "code"), ["diapason tune --corpus 'my <text>.txt'"]);
    assert_eq!(texts(&page, ".sample pre"), ["the <i> sea"]);
    let facts = texts(&page, "dl div");
    for fact in ["engine colab", "digest of the text sha256:00", "steps timed on A CPU (anvil), 2 threads"] {
        assert!(facts.iter().any(|shown| shown == fact), "{fact}: {facts:?}");
    }
    // What the study has no data for is not there.
    assert_eq!(number_of(&page, "figure.fit, figure.differences, meta[http-equiv=refresh], .progress"), 0);
    assert!(!texts(&page, "th").iter().any(|head| head == "worse by"));
}

#[test]
fn what_comes_from_outside_is_text() {
    let evil = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u{202e}";
    let mut study = study();
    study.spec.name = evil.to_string();
    study.spec.corpus.name = evil.to_string();
    study.spec.corpus.digest = evil.to_string();
    record(&mut study, 0).engine = evil.to_string();
    let failed = record(&mut study, 1);
    failed.state = TrialState::Fail;
    failed.early = None;
    failed.failure =
        Some(TrialFailure { message: evil.to_string(), diverged_at: None, last_finite_loss: None });
    for cell in &mut study.cells {
        cell.params.0.insert(evil.to_string(), evil.into());
    }
    let extras = Extras {
        command: Some(evil.to_string()),
        samples: vec![Sample { how: evil.to_string(), text: evil.to_string() }],
        ..Extras::default()
    };
    let page = parsed(&study, &curves(&study), &extras);
    let shown = evil.replace('\u{202e}', "\\u{202e}");
    assert_eq!(texts(&page, "h1"), [shown.as_str()]);
    assert_eq!(texts(&page, "title").len(), 1 + number_of(&page, "svg title"));
    assert_eq!((number_of(&page, "script"), number_of(&page, "img"), number_of(&page, "style")), (1, 0, 1));
    assert!(texts(&page, "li.failure")[0].ends_with(&shown), "{:?}", texts(&page, "li"));
    assert_eq!(texts(&page, "td .failure"), ["failed", "failed"]);
    for found in page.select(&Selector::parse("*").unwrap()) {
        for (name, value) in found.value().attrs() {
            assert!(!name.starts_with("on") && !["src", "action"].contains(&name), "{name}");
            assert!(name != "href" || value == "data:,", "{value}");
        }
    }
}

#[test]
fn a_running_study_says_so_and_reads_itself_again() {
    let mut study = study();
    study.trials[3].record = None;
    let unfinished = record(&mut study, 2);
    unfinished.state = TrialState::Running;
    unfinished.best = None;
    let as_of = Some(UNIX_EPOCH + Duration::from_secs(1_795_488_667));
    let curves = Curves::new(study.trials[..3].iter().map(curve).collect());
    let page = parsed(&study, &curves, &Extras { running: true, as_of, ..Extras::default() });
    assert_eq!(texts(&page, ".progress"), ["running: 2 of 4 trials done, as of 2026-11-24 02:51:07 UTC"]);
    assert_eq!(number_of(&page, "meta[http-equiv=refresh]"), 1);
    assert!(texts(&page, ".verdict")[0].starts_with("So far: d_model=256"), "{:?}", texts(&page, ".verdict"));
    let page = parsed(&study, &curves, &Extras { as_of, ..Extras::default() });
    assert_eq!(
        texts(&page, ".progress"),
        ["not finished: 2 of 4 trials done, as of 2026-11-24 02:51:07 UTC"]
    );
    assert_eq!(number_of(&page, "meta[http-equiv=refresh]"), 0);

    // Before anything is known.
    for trial in &mut study.trials {
        trial.record = None;
    }
    let page = parsed(&study, &Curves::default(), &Extras { running: true, ..Extras::default() });
    assert_eq!(texts(&page, ".verdict"), ["No verdict yet: no configuration has a result."]);
    assert_eq!(number_of(&page, "figure"), 0);
    study.cells.clear();
    study.trials.clear();
    parsed(&study, &Curves::default(), &Extras::default());
}

#[test]
fn intervals_where_they_are_known() {
    let mut study = study();
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert_eq!(number_of(&page, "figure.differences"), 0);
    let certainty = |page: &Html| {
        texts(page, "main > section:first-child p")
            .into_iter()
            .find(|line| line.starts_with("Certainty"))
            .unwrap()
    };
    assert!(
        certainty(&page).contains("unknown, since trial 0 has no losses per span"),
        "{}",
        certainty(&page)
    );

    for trial in &mut study.trials {
        let record = trial.record.as_mut().unwrap();
        let best = record.best.unwrap();
        let loss = |k: usize| best.validation_loss + 1e-3 * ((k * 37 + trial.number * k * k) % 13) as f64;
        record.spans =
            vec![SpanReading { step: best.step, losses: (0..240).map(|k| loss(k) as f32).collect() }];
    }
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert!(certainty(&page).contains("decided for this seed alone"), "{}", certainty(&page));
    let missing = texts(&page, "section p").into_iter().find(|line| line.starts_with("Missing: ")).unwrap();
    assert!(
        missing.starts_with("Missing: a second seed of d_model=256")
            && missing.ends_with("; the same command with --until-decided trains them."),
        "{missing}"
    );
    assert_eq!(number_of(&page, "figure.differences .bar"), 4);
    assert_eq!(number_of(&page, "figure.differences .band"), 1);
    assert_eq!(
        texts(&page, "table.configurations thead tr:nth-child(2) th")
            .iter()
            .filter(|head| *head == "worse by")
            .count(),
        1
    );
    let shown = texts(&page, "td").into_iter().filter(|cell| cell.contains(" to ")).collect::<Vec<_>>();
    let decided = study.decision(Pass::Full).unwrap();
    let evidence = &decided.grounds.as_ref().unwrap().evidence;
    let expected = evidence.intervals.iter().map(|interval| {
        let [low, high] = interval.map(|i| [i.low, i.high]).unwrap().map(|nats| 100.0 * nats / evidence.loss);
        format!("{low:.2} to {high:.2} %")
    });
    assert_eq!(shown, expected.collect::<Vec<_>>());
}

#[test]
fn grids_of_two_keys_have_a_map_and_sizes_a_fit() {
    let study = grid(&["d_model=32,64,128,256", "n_layers=1,2,4"]);
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert_eq!(number_of(&page, "table.map tbody td"), 12);
    assert_eq!(number_of(&page, "table.map td.chosen"), 1);
    assert_eq!(texts(&page, "table.map tbody th"), ["32", "64", "128", "256"]);
    assert_eq!(number_of(&page, "figure.fit .mark"), 12);
    assert_eq!(texts(&page, "figure.fit h3"), ["Loss and size of the model"]);
    let caption = &texts(&page, "figure.fit figcaption")[0];
    assert!(caption.contains("of 12 sizes") && caption.contains("loss ~ parameters^-0."), "{caption}");
    assert!(caption.contains(" (95 %: -0."), "{caption}");
    // As much training as there are steps; what was not trained to its last step is no point of the line.
    let mut study = grid(&["d_model=32", "steps=500,1000,2000,4000,8000"]);
    for trial in &mut study.trials {
        let steps = study.cells[trial.cell].config.steps;
        let record = trial.record.as_mut().unwrap();
        record.steps = steps;
        for reading in [&mut record.best, &mut record.last].into_iter().flatten() {
            (reading.step, reading.validation_loss) = (steps, 8.0 * (steps as f64).powf(-0.2));
        }
    }
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert_eq!(texts(&page, "figure.fit h3"), ["Loss and amount of training"]);
    let caption = &texts(&page, "figure.fit figcaption")[0];
    assert!(
        caption.contains("of 5 sizes") && caption.contains("^-0.200 (95 %: -0.200 to -0.200)"),
        "{caption}"
    );
    record(&mut study, 1).steps = 700;
    record(&mut study, 1).stopped_early = true;
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert!(texts(&page, "figure.fit figcaption")[0].contains("of 4 sizes"));
    assert!(texts(&page, "section p").iter().any(|line| line.starts_with("1 trial ended by patience: 5 ")));
    // Three sizes are too few, and so is a range of three.
    for axes in [["d_model=32,64,256", "n_layers=1"], ["d_model=32", "n_layers=1,2,3"]] {
        let study = grid(&axes);
        let page = parsed(&study, &curves(&study), &Extras::default());
        assert_eq!(number_of(&page, "figure.fit, table.map"), 0);
    }
}

#[test]
fn what_was_stopped_says_by_what_and_after_what() {
    let mut study = grid(&["d_model=32,64,128", "n_layers=1"]);
    study.spec.rule = "halving:eta=3".parse().unwrap();
    let loss = |study: &Study, cell: usize| {
        study.trials[cell].record.as_ref().unwrap().last.unwrap().validation_loss
    };
    let candidates = (0..3).map(|cell| RungCandidate {
        params: study.cells[cell].params.clone(),
        cell: String::new(),
        loss: Some(loss(&study, cell)),
        losses: [(0, loss(&study, cell))].into(),
        cost: Some(1e12),
        goes_on: cell == 2,
        why: if cell == 2 { "lowest loss".into() } else { "<b>too much</b>".into() },
    });
    study.decisions = vec![RungDecision {
        bracket: 0,
        rung: 0,
        step: 5_000,
        next: 20_000,
        eta: 3,
        tolerance: 0.01,
        noise: 0.0,
        cost: "FLOP of all steps".into(),
        candidates: candidates.collect(),
    }];
    for trial in &mut study.trials {
        trial.bracket = Some(0);
        let record = trial.record.as_mut().unwrap();
        if trial.cell < 2 {
            (record.state, record.steps) = (TrialState::Pruned, 5_000);
            record.last.as_mut().unwrap().step = 5_000;
        }
    }
    let page = parsed(&study, &curves(&study), &Extras::default());
    assert_eq!(number_of(&page, "path.end"), 2 * 4 + 1, "a cross in each plot, and one in the legend");
    assert_eq!(number_of(&page, "svg:not(.key) .rungline"), 2);
    assert_eq!(texts(&page, "table.configurations td .pruned").len(), 2);
    assert!(
        texts(&page, "summary")
            .contains(&"Step 5,000: 1 of 3 configurations go on to step 20,000".to_string())
    );
    assert_eq!(
        texts(&page, "table.rung tbody tr:last-child > *").join(", "),
        format!("1, d_model=32 n_layers=1, {:.4}, 1.00e12, stopped, <b>too much</b>", loss(&study, 0))
    );
    let spared =
        texts(&page, "section p").into_iter().find(|line| line.starts_with("Stopped early: ")).unwrap();
    assert!(spared.starts_with("Stopped early: 2 trials of 3 stopped; they took "), "{spared}");
    // Nothing of all that where nothing was stopped.
    let page = parsed(&grid(&["d_model=32,64", "n_layers=1"]), &Curves::default(), &Extras::default());
    assert!(!texts(&page, "h2").contains(&"Stopped early".to_string()));
}

#[test]
fn what_is_known_of_the_text_is_drawn_and_said() {
    let study = study();
    let counting = Some(Counting { order: 7, context: 32, loss: 1.3213 });
    let bounds = Bounds { entropy_rate: Some(1.1), window_floor: Some(1.25), counting };
    let page = Html::parse_document(&to_html(&study, &bounds, &curves(&study), &Extras::default()));
    let labels = texts(&page, "figure.curves text.note");
    assert_eq!(labels, ["floor of this text: 1.2500", "counting 7-grams: 1.3213"].repeat(4));
    let notes = texts(&page, "li");
    assert!(notes.iter().any(|note| note.ends_with("the chosen configuration is 0.0807 nats above that")));
    let said = "counting 7-grams of the training text, with no model at all and windows of 32 characters, comes to 1.3213 nats \
                (1.9062 bits) per character; the chosen configuration is 0.0094 nats worse: it needs more training, or is too small";
    assert!(notes.iter().any(|note| note == said), "{notes:?}");
    let weaker =
        Bounds { counting: Some(Counting { order: 2, context: 32, loss: 1.5 }), ..Bounds::default() };
    let page = to_html(&study, &weaker, &curves(&study), &Extras::default());
    assert!(page.contains("the chosen configuration is 0.1693 nats better than that"));
}

#[test]
fn two_hundred_trials_stay_readable() {
    let rates: Vec<String> = (1..=20).map(|i| format!("{}e-4", i)).collect();
    let mut study =
        grid(&[&format!("learning_rate={}", rates.join(",")), "d_model=32,64,96,128,160", "n_layers=1,2"]);
    study.spec.cost = Cost::Flop;
    assert_eq!(study.trials.len(), 200);
    let curves = Curves::new(
        study
            .trials
            .iter()
            .map(|trial| {
                let last = curve(trial)[19];
                (1..=5000).map(|step| CurvePoint { step, ..last }).collect()
            })
            .collect(),
    );
    let page = to_html(&study, &Bounds::default(), &curves, &Extras::default());
    assert!(page.len() < 2_500_000, "{}", page.len());
    let page = Html::parse_document(&page);
    assert_eq!(number_of(&page, "table.configurations tbody tr"), 200);
    assert_eq!(number_of(&page, "polyline[data-v]"), 200);
    let losses = texts(&page, "table.configurations tbody td:nth-child(5)");
    assert!(losses.len() == 200 && losses.is_sorted(), "the lowest loss comes first: {losses:?}");
    assert!(texts(&page, "h3 ~ .legend li, .plots ~ .legend li").len() <= 12);
    assert!(texts(&page, ".legend li").iter().any(|text| text.starts_with("194 other configurations")));
    assert!(number_of(&page, "figure.pareto .number") <= 12);
}

#[test]
fn curves_are_read_from_the_trials_folders() {
    let folder = tempfile::tempdir().unwrap();
    let study = study();
    let trial = folder.path().join(&study.trials[1].folder);
    std::fs::create_dir_all(&trial).unwrap();
    std::fs::write(
        trial.join(CURVE),
        "step,train_loss,validation_loss,accuracy,accuracy_last,train_seconds\n50,2.5,2.25,0.5,0.5,1.5\n",
    )
    .unwrap();
    write_files(&study, &Bounds::default(), folder.path(), &Extras::default()).unwrap();
    let page = std::fs::read_to_string(folder.path().join(HTML_FILE)).unwrap();
    assert!(page.contains("data-t=\"1\" data-v=\"50,2.2500,1.5;\""));
    assert!(page.contains("3 trials that began have no curve in this folder"));
}
