//! What is said of a study: the notebook's own, as if its numbers had been measured here.

mod common;

use common::{record, study};
use diapason_report::{Bounds, Extras, Sample, StudyJson, to_csv, to_markdown, to_text, write_files};
use diapason_study::{
    Grid, Machine, Pass, SEED_NUMBERS, SEED_STEPS, Study, Timing, Timings, TrialFailure, TrialState,
};
use diapason_training::{Protocol, SeedRule};

#[test]
fn wide_terminal() {
    let text = to_text(&study(), &Bounds::default(), 200);
    assert_eq!(format!("\n{text}"), "
                                                                     early, 4000 steps                                                      full, 20000 steps
   d_model  n_heads  n_layers  parameters    loss     bpc  accuracy  at last  seconds     FLOP  seed's  seed's s    loss     bpc  accuracy  at last  seconds     FLOP  seed's  seed's s  tokens/s
-----------------------------------------  ---------------------------------------------------------------------  ---------------------------------------------------------------------  --------
*      256        8         4   3,202,048  1.4581  2.1036    55.0 %   58.0 %     70.7  1.58e14  1.4581      70.7  1.3307  1.9198    55.0 %   58.0 %    331.1  7.91e14  1.3307     331.1   123,697
       256        8         8   6,356,992  1.4512  2.0937    55.0 %   58.0 %    137.3  3.16e14  1.4512     137.3  1.3208  1.9055    55.0 %   58.0 %    652.1  1.58e15  1.3208     652.1    62,809
       256       16         4   3,202,048  1.4716  2.1230    55.0 %   58.0 %     75.0  1.58e14  1.4716      75.0  1.3434  1.9381    55.0 %   58.0 %    351.3  7.91e14  1.3434     351.3   116,584
       256       16         8   6,356,992  1.4677  2.1175    55.0 %   58.0 %    146.5  3.16e14  1.4677     146.5  1.3371  1.9291    55.0 %   58.0 %    696.6  1.58e15  1.3371     696.6    58,796

* chosen; loss in nats per character of the validation text, bpc in bits; seconds are training steps alone
seed's: loss and seconds of the notebook that --as-seed reproduces: text8, on a Colab GPU; this study: text8, on this machine

early, 4000 steps:
  best loss: 1.4512, 137.3 s, by d_model=256 n_heads=8 n_layers=8
  tolerance: 1 %, so a loss up to 1.4657 is acceptable, and the cheapest such configuration is chosen
  d_model=256 n_heads=8 n_layers=4: loss 1.4581, 70.7 s: 0.47 % more loss for 48 % less time: acceptable, and the cheapest that is
  d_model=256 n_heads=16 n_layers=4: loss 1.4716, 75.0 s: 1.4 % more loss for 45 % less time: too much
  choice of this pass: d_model=256 n_heads=8 n_layers=4
full, 20000 steps:
  best loss: 1.3208, 652.1 s, by d_model=256 n_heads=8 n_layers=8
  tolerance: 1 %, so a loss up to 1.3340 is acceptable, and the cheapest such configuration is chosen
  d_model=256 n_heads=8 n_layers=4: loss 1.3307, 331.1 s: 0.75 % more loss for 49 % less time: acceptable, and the cheapest that is
  d_model=256 n_heads=16 n_layers=4: loss 1.3434, 351.3 s: 1.71 % more loss for 46 % less time: too much
  choice of this pass: d_model=256 n_heads=8 n_layers=4
both passes choose the same configuration
verdict: d_model=256 n_heads=8 n_layers=4 is the cheapest of 4 within 1 % of the best loss: 0.75 % more loss for 49 % less time than d_model=256 n_heads=8 n_layers=8
certainty: unknown, since trial 0 has no losses per span of text
chosen: d_model=256 n_heads=8 n_layers=4
");
}

#[test]
fn eighty_columns() {
    let text =
        to_text(&study(), &Bounds { entropy_rate: Some(1.1), window_floor: Some(1.25), counting: None }, 80);
    for line in text.lines() {
        assert!(line.chars().count() <= 80 || line.starts_with("chosen: "), "{line}");
    }
    assert_eq!(
        format!("\n{text}"),
        "
                                  early, 4000 steps        full, 20000 steps
   d_model  n_heads  n_layers    loss  seconds  seed's    loss  seconds  seed's
-----------------------------  -----------------------  -----------------------
*      256        8         4  1.4581     70.7  1.4581  1.3307    331.1  1.3307
       256        8         8  1.4512    137.3  1.4512  1.3208    652.1  1.3208
       256       16         4  1.4716     75.0  1.4716  1.3434    351.3  1.3434
       256       16         8  1.4677    146.5  1.4677  1.3371    696.6  1.3371

* chosen; loss in nats per character of the validation text, bpc in bits;
  seconds are training steps alone
seed's: loss and seconds of the notebook that --as-seed reproduces: text8, on a
  Colab GPU; this study: text8, on this machine
the text's entropy rate is 1.1000 nats (1.5870 bits) per character: no model can
  do better; with windows alone as context, 1.2500 nats (1.8034 bits); the
  chosen configuration is 0.0807 nats above that
columns that do not fit here are in report.md and results.csv

early, 4000 steps:
  best loss: 1.4512, 137.3 s, by d_model=256 n_heads=8 n_layers=8
  tolerance: 1 %, so a loss up to 1.4657 is acceptable, and the cheapest such
      configuration is chosen
  d_model=256 n_heads=8 n_layers=4: loss 1.4581, 70.7 s: 0.47 % more loss for
      48 % less time: acceptable, and the cheapest that is
  d_model=256 n_heads=16 n_layers=4: loss 1.4716, 75.0 s: 1.4 % more loss for
      45 % less time: too much
  choice of this pass: d_model=256 n_heads=8 n_layers=4
full, 20000 steps:
  best loss: 1.3208, 652.1 s, by d_model=256 n_heads=8 n_layers=8
  tolerance: 1 %, so a loss up to 1.3340 is acceptable, and the cheapest such
      configuration is chosen
  d_model=256 n_heads=8 n_layers=4: loss 1.3307, 331.1 s: 0.75 % more loss for
      49 % less time: acceptable, and the cheapest that is
  d_model=256 n_heads=16 n_layers=4: loss 1.3434, 351.3 s: 1.71 % more loss for
      46 % less time: too much
  choice of this pass: d_model=256 n_heads=8 n_layers=4
both passes choose the same configuration
verdict: d_model=256 n_heads=8 n_layers=4 is the cheapest of 4 within 1 % of the
  best loss: 0.75 % more loss for 49 % less time than d_model=256 n_heads=8
  n_layers=8
certainty: unknown, since trial 0 has no losses per span of text
chosen: d_model=256 n_heads=8 n_layers=4
"
    );
}

#[test]
fn failures_and_unfinished_trials_are_named() {
    let mut study = study();
    study.trials[3].record = None;
    let failed = record(&mut study, 1);
    failed.state = TrialState::Fail;
    failed.early = None;
    failed.failure = Some(TrialFailure {
        message: "diverged at step 12: the last finite loss was 3.1000".into(),
        diverged_at: Some(12),
        last_finite_loss: Some(3.1),
    });
    let text = to_text(&study, &Bounds::default(), 100);
    assert_eq!(
        format!("\n{text}"),
        "
                                              early, 4000 steps        full, 20000 steps
   d_model  n_heads  n_layers  parameters    loss  seconds  seed's    loss  seconds  seed's
-----------------------------------------  -----------------------  -----------------------
*      256        8         4   3,202,048  1.4581     70.7  1.4581  1.3307    331.1  1.3307
       256        8         8   6,356,992  failed           1.4512  failed           1.3208
       256       16         4   3,202,048  1.4716     75.0  1.4716  1.3434    351.3  1.3434
       256       16         8                 ...           1.4677     ...           1.3371

* chosen; loss in nats per character of the validation text, bpc in bits; seconds are training steps
  alone
seed's: loss and seconds of the notebook that --as-seed reproduces: text8, on a Colab GPU; this
  study: text8, on this machine
failed: trial 1, d_model=256 n_heads=8 n_layers=8, seed 0: diverged at step 12: the last finite loss
  was 3.1000
1 of 4 trials have not finished; the same command continues
columns that do not fit here are in report.md and results.csv

early, 4000 steps:
  best loss: 1.4581, 70.7 s, by d_model=256 n_heads=8 n_layers=4
  tolerance: 1 %, so a loss up to 1.4727 is acceptable, and the cheapest such configuration is
      chosen
  no other configuration costs less
  left out: d_model=256 n_heads=8 n_layers=8: diverged at step 12: the last finite loss was 3.1000
  left out: d_model=256 n_heads=16 n_layers=8: not finished
  choice of this pass: d_model=256 n_heads=8 n_layers=4
full, 20000 steps:
  best loss: 1.3307, 331.1 s, by d_model=256 n_heads=8 n_layers=4
  tolerance: 1 %, so a loss up to 1.3440 is acceptable, and the cheapest such configuration is
      chosen
  no other configuration costs less
  left out: d_model=256 n_heads=8 n_layers=8: diverged at step 12: the last finite loss was 3.1000
  left out: d_model=256 n_heads=16 n_layers=8: not finished
  choice of this pass: d_model=256 n_heads=8 n_layers=4
both passes choose the same configuration
verdict: d_model=256 n_heads=8 n_layers=4 has the lowest loss of 2 and none costs less (1 of 4
  trials have not finished)
certainty: unknown, since trial 0 has no losses per span of text
chosen: d_model=256 n_heads=8 n_layers=4
"
    );
    let nothing = Study { trials: Vec::new(), ..study };
    let text = to_text(&nothing, &Bounds::default(), 100);
    assert!(text.ends_with("no verdict yet: no configuration has a result\n"), "{text}");
}

#[test]
fn what_the_notebooks_rule_loses_is_named() {
    let mut study = study();
    study.spec.protocol = Protocol::AsSeed;
    for number in 0..4 {
        let record = record(&mut study, number);
        record.seed_rule = Some(SeedRule::Stopped { step: 4001 });
        record.early.as_mut().unwrap().step = 4001;
    }
    let text = to_text(&study, &Bounds::default(), 120);
    assert!(text.contains("the notebook's rule would have lost none of these cells"), "{text}");
    assert!(text.contains("early, 4001 steps"), "{text}");
    assert_eq!(study.rows()[0].lost_by_seed_rule, Some(false));
    assert!(study.rows()[0].stopped_early);

    let last = record(&mut study, 2).last;
    record(&mut study, 2).early = last;
    record(&mut study, 2).seed_rule = Some(SeedRule::Lost);
    let text = to_text(&study, &Bounds::default(), 1000);
    assert!(
        text.contains(
            "the notebook's early pass would have left no number for d_model=256 n_heads=16 n_layers=4, seed 0"
        ),
        "{text}"
    );
    assert_eq!(study.lost_by_seed_rule().len(), 1);
}

#[test]
fn json_has_the_keys_of_the_contract() {
    let json =
        serde_json::to_value(StudyJson::new(&study(), &Bounds::default(), &Extras::default())).unwrap();
    assert_eq!(json["corpus"], serde_json::json!({"name": "text8", "digest": "sha256:00"}));
    let trials = json["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 8);
    for key in [
        "number",
        "params",
        "seed",
        "pass",
        "state",
        "steps",
        "stopped_early",
        "validation_loss",
        "validation_bpc",
        "accuracy",
        "accuracy_last",
        "train_seconds",
        "tokens_per_second",
        "parameters",
    ] {
        assert!(trials.iter().all(|trial| trial.get(key).is_some()), "{key}");
    }
    let first = &trials[0];
    assert_eq!(first["params"], serde_json::json!({"d_model": 256, "n_heads": 8, "n_layers": 4}));
    assert_eq!(
        (&first["pass"], &first["state"], &first["steps"]),
        (&"early".into(), &"COMPLETE".into(), &4000.into())
    );
    assert_eq!(json["verdict"]["chosen"], first["params"]);
    assert_eq!(
        json["verdict"]["reason"],
        "d_model=256 n_heads=8 n_layers=4 is the cheapest of 4 within 1 % of the best loss: 0.75 % more loss for \
         49 % less time than d_model=256 n_heads=8 n_layers=8"
    );
    assert_eq!(json["seed_numbers"].as_array().unwrap().len(), 8);
    assert_eq!(json["verdict"]["prices"].as_array().unwrap().len(), 1);
    assert_eq!(json["trained_share"], 1.0);
    assert_eq!(json["environment"]["engine"], "colab");

    let mut none = study();
    none.trials.clear();
    let json = serde_json::to_value(StudyJson::new(&none, &Bounds::default(), &Extras::default())).unwrap();
    assert_eq!((&json["trials"], &json["verdict"]), (&serde_json::json!([]), &serde_json::Value::Null));
}

#[test]
fn csv_has_a_line_per_pass() {
    let mut study = study();
    let csv = String::from_utf8(to_csv(&study).unwrap()).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(
        lines[0],
        "number,d_model,n_heads,n_layers,seed,pass,state,steps,stopped_early,validation_loss,validation_bpc,accuracy,\
         accuracy_last,train_seconds,tokens_per_second,parameters,flop,read_at,lost_by_seed_rule,error,engine,\
         other_engines,threads,trials_at_once,ms_per_step_alone,ms_per_step_noise"
    );
    assert!(
        lines[2].starts_with("0,256,8,4,0,full,COMPLETE,20000,false,1.3307313919067383,"),
        "{}",
        lines[2]
    );
    study.spec.grid = Grid::parse(&["steps=20000"]).unwrap();
    let csv = String::from_utf8(to_csv(&study).unwrap()).unwrap();
    assert!(csv.starts_with("number,params_steps,d_model,n_heads,n_layers,seed,"), "{csv}");
}

#[test]
fn markdown_has_all_columns_and_shows_names_as_they_are() {
    let mut study = study();
    study.spec.name = "a | <script>alert(1)</script>".to_string();
    let extras = Extras {
        command: Some("diapason tune --corpus '`x`.txt'".into()),
        samples: vec![Sample { how: "seed 0".into(), text: "the sea\n# and ``` then".into() }],
        ..Extras::default()
    };
    let text = to_markdown(&study, &Bounds::default(), &extras);
    let (said, made) = text.split_once("\n## How it was made\n").unwrap();
    assert_eq!(format!("\n{said}"), "
# a \\| &lt;script>alert(1)&lt;/script>

Text: text8, digest `sha256:00`.

## Verdict

**Keep d_model=256 n_heads=8 n_layers=4**

- Price: 0.75 % more loss for half the time: 1.3307 instead of 1.3208 nats per character, 331.1 s instead of 652.1 s
- Why: d_model=256 n_heads=8 n_layers=4 is the cheapest of 4 within 1 % of the best loss: 0.75 % more loss for 49 % less time than d_model=256 n_heads=8 n_layers=8
- Certainty: unknown, since trial 0 has no losses per span of text

## Configurations

|  | d_model | n_heads | n_layers | parameters | early loss | early bpc | early accuracy | early at last | early seconds | early FLOP | early seed's | early seed's s | full loss | full bpc | full accuracy | full at last | full seconds | full FLOP | full seed's | full seed's s | tokens/s |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| \\* | 256 | 8 | 4 | 3,202,048 | 1.4581 | 2.1036 | 55.0 % | 58.0 % | 70.7 | 1.58e14 | 1.4581 | 70.7 | 1.3307 | 1.9198 | 55.0 % | 58.0 % | 331.1 | 7.91e14 | 1.3307 | 331.1 | 123,697 |
|  | 256 | 8 | 8 | 6,356,992 | 1.4512 | 2.0937 | 55.0 % | 58.0 % | 137.3 | 3.16e14 | 1.4512 | 137.3 | 1.3208 | 1.9055 | 55.0 % | 58.0 % | 652.1 | 1.58e15 | 1.3208 | 652.1 | 62,809 |
|  | 256 | 16 | 4 | 3,202,048 | 1.4716 | 2.1230 | 55.0 % | 58.0 % | 75.0 | 1.58e14 | 1.4716 | 75.0 | 1.3434 | 1.9381 | 55.0 % | 58.0 % | 351.3 | 7.91e14 | 1.3434 | 351.3 | 116,584 |
|  | 256 | 16 | 8 | 6,356,992 | 1.4677 | 2.1175 | 55.0 % | 58.0 % | 146.5 | 3.16e14 | 1.4677 | 146.5 | 1.3371 | 1.9291 | 55.0 % | 58.0 % | 696.6 | 1.58e15 | 1.3371 | 696.6 | 58,796 |

- `*` chosen; loss in nats per character of the validation text, bpc in bits; seconds are training steps alone
- seed's: loss and seconds of the notebook that --as-seed reproduces: text8, on a Colab GPU; this study: text8, on this machine

## The reasoning, step by step

- early, 4000 steps:
  - best loss: 1.4512, 137.3 s, by d_model=256 n_heads=8 n_layers=8
  - tolerance: 1 %, so a loss up to 1.4657 is acceptable, and the cheapest such configuration is chosen
  - d_model=256 n_heads=8 n_layers=4: loss 1.4581, 70.7 s: 0.47 % more loss for 48 % less time: acceptable, and the cheapest that is
  - d_model=256 n_heads=16 n_layers=4: loss 1.4716, 75.0 s: 1.4 % more loss for 45 % less time: too much
  - choice of this pass: d_model=256 n_heads=8 n_layers=4
- full, 20000 steps:
  - best loss: 1.3208, 652.1 s, by d_model=256 n_heads=8 n_layers=8
  - tolerance: 1 %, so a loss up to 1.3340 is acceptable, and the cheapest such configuration is chosen
  - d_model=256 n_heads=8 n_layers=4: loss 1.3307, 331.1 s: 0.75 % more loss for 49 % less time: acceptable, and the cheapest that is
  - d_model=256 n_heads=16 n_layers=4: loss 1.3434, 351.3 s: 1.71 % more loss for 46 % less time: too much
  - choice of this pass: d_model=256 n_heads=8 n_layers=4
- both passes choose the same configuration
- verdict: d_model=256 n_heads=8 n_layers=4 is the cheapest of 4 within 1 % of the best loss: 0.75 % more loss for 49 % less time than d_model=256 n_heads=8 n_layers=8
- certainty: unknown, since trial 0 has no losses per span of text
- chosen: d_model=256 n_heads=8 n_layers=4

## What it writes

seed 0:

````text
the sea
# and ``` then
````
");
    for part in [
        "\n- engine: colab\n",
        "\n- text: text8\n- digest of the text: sha256:00\n",
        "\n- tolerance: 1 %\n- cost: seconds of training\n",
        "\n```text\ndiapason tune --corpus '`x`.txt'\n```\n",
    ] {
        assert!(made.contains(part), "{part}: {made}");
    }
    study.trials[3].record = None;
    let text = to_markdown(&study, &Bounds::default(), &Extras::default());
    assert!(text.contains("**So far: d_model=256 n_heads=8 n_layers=4**"), "{text}");
}

#[test]
fn files_are_written_into_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    write_files(&study(), &Bounds::default(), folder.path(), &Extras::default()).unwrap();
    assert!(std::fs::read_to_string(folder.path().join("report.md")).unwrap().starts_with("# the seed\n"));
    assert!(folder.path().join("results.csv").is_file());
    let json = std::fs::read(folder.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["verdict"]["chosen"]["n_heads"], 8);
    let error = write_files(&study(), &Bounds::default(), &folder.path().join("absent"), &Extras::default())
        .unwrap_err();
    assert!(error.to_string().contains("report.md"), "{error}");
}

#[test]
fn several_seeds_are_averaged() {
    let mut study = study();
    study.spec.seeds = 2;
    for cell in 0..4 {
        let mut again = study.trials[cell].clone();
        (again.number, again.seed) = (4 + cell, 1);
        let record = again.record.as_mut().unwrap();
        record.seed = 1;
        record.best.as_mut().unwrap().validation_loss += 0.01;
        study.trials.push(again);
    }
    assert!((study.readings(Pass::Full)[0].loss - 1.33573).abs() < 1e-5);
    let text = to_text(&study, &Bounds::default(), 200);
    assert!(text.contains("1.3357") && text.contains("means over seeds"), "{text}");
}

#[test]
fn different_engines_are_said() {
    let note = |study: &Study| {
        let text = to_text(study, &Bounds::default(), usize::MAX);
        text.lines().filter(|line| line.contains("engine")).map(str::to_string).collect::<Vec<_>>()
    };
    let mut study = study();
    assert!(note(&study).is_empty());
    record(&mut study, 1).engine = "other".into();
    record(&mut study, 2).engine = String::new();
    assert_eq!(
        note(&study),
        [
            "the trials were computed by different engines, and small differences between them may be the engines': \
             colab (trials 0, 3); other (trial 1)"
        ]
    );
    record(&mut study, 1).engine = "colab".into();
    record(&mut study, 1).other_engines = vec!["old".into(), "older".into()];
    assert_eq!(
        note(&study),
        [
            "trial 1 went on with another engine, colab, than it began with, old, older: its result is neither's"
        ]
    );
    let rows = study.rows();
    assert_eq!((rows[0].engine.as_deref(), rows[4].engine.as_deref()), (Some("colab"), None));
    let json = serde_json::to_value(StudyJson::new(&study, &Bounds::default(), &Extras::default())).unwrap();
    assert_eq!(json["trials"][2]["other_engines"], serde_json::json!(["old", "older"]));
    assert_eq!(json["trials"][0]["engine"], "colab");
    let csv = String::from_utf8(to_csv(&study).unwrap()).unwrap();
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().contains(",error,engine,other_engines,"), "{csv}");
    assert!(lines.nth(2).unwrap().contains(",colab,old older,"), "{csv}");
}

#[test]
fn a_budget_stands_in_the_place_of_the_steps() {
    let mut study = study();
    study.spec.budget = Some("10min".parse().unwrap());
    for (cell, steps) in [20_000, 10_000, 18_000, 9_000].into_iter().enumerate() {
        study.cells[cell].config.steps = steps;
        record(&mut study, cell).steps = steps;
    }
    let text = to_text(&study, &Bounds::default(), usize::MAX);
    assert!(text.contains("early, 20 % of the steps") && text.contains("full, 10min each"), "{text}");
    assert!(!text.contains("20000 steps") && text.contains("18000"), "{text}");
    let extras = Extras { command: Some("diapason tune --budget 10min".into()), ..Extras::default() };
    let markdown = to_markdown(&study, &Bounds::default(), &extras);
    assert!(markdown.contains("\n- budget: 10min of training for each configuration\n"), "{markdown}");
    assert!(
        markdown.contains("| full steps |") && markdown.contains("in a folder that has a copy"),
        "{markdown}"
    );
    let json = serde_json::to_value(StudyJson::new(&study, &Bounds::default(), &extras)).unwrap();
    assert_eq!(json["budget"], "10min");
    // Characters are the same everywhere.
    study.spec.budget = Some("2e9chars".parse().unwrap());
    let markdown = to_markdown(&study, &Bounds::default(), &extras);
    assert!(markdown.contains("in a folder where it is not yet:"), "{markdown}");
}

#[test]
fn times_say_where_they_come_from() {
    let mut study = study();
    // As if the first two cells had run side by side: the same work in nearly twice the time.
    for (number, (threads, trials_at_once)) in
        [(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (2.0, 1.0)].into_iter().enumerate()
    {
        let record = record(&mut study, number);
        (record.threads, record.trials_at_once) = (Some(threads), Some(trials_at_once));
    }
    record(&mut study, 0).train_seconds = 660.0;
    record(&mut study, 0).tokens_per_second = Some(2048.0 * SEED_STEPS as f64 / 660.0);
    assert_eq!(study.candidates(Pass::Full)[0].cost, 330.0);
    assert_eq!(study.candidates(Pass::Full)[2].cost, SEED_NUMBERS[6].seconds);
    let text = to_text(&study, &Bounds::default(), usize::MAX);
    assert!(
        text.contains("\ntrials ran side by side: seconds are scaled as if each had had 2 threads, "),
        "{text}"
    );

    // Steps that were timed beforehand count, if all of them were.
    let timing = |cell: usize, ms_per_step| {
        let timing = Timing { ms_per_step, turns: 3, noise: 0.0, side_by_side: Vec::new() };
        (Timings::key(&study.cells[cell].config), timing)
    };
    let mut timings = Timings {
        machine: Machine { host: "bench".into(), processor: "a processor".into() },
        threads: 2,
        engine: "colab".into(),
        measured: 0,
        configurations: [timing(0, 16.0), timing(1, 32.0), timing(2, 17.0)].into(),
    };
    let last = timing(3, 34.0);
    study.timings = vec![timings.clone()];
    assert_eq!(study.candidates(Pass::Full)[0].cost, 330.0, "one is missing");
    timings.configurations.extend([last]);
    study.timings = vec![timings];
    let costs: Vec<f64> = study.candidates(Pass::Full).iter().map(|candidate| candidate.cost).collect();
    assert_eq!(costs, [320.0, 640.0, 340.0, 680.0]);
    assert_eq!(study.candidates(Pass::Early)[1].cost, 128.0);
    let text = to_text(&study, &Bounds::default(), usize::MAX);
    assert!(
        text.contains(
            "\nseconds are the steps times what one takes alone on 2 threads, timed before training on bench \
             (a processor); trials ran side by side, and the times that they took are in results.csv\n"
        ),
        "{text}"
    );
    assert!(text.contains(" 640.0 ") && text.contains(" 128,000"), "{text}");
    let json = serde_json::to_value(StudyJson::new(&study, &Bounds::default(), &Extras::default())).unwrap();
    assert_eq!(json["trials"][1]["threads"], 1.0);
    assert_eq!(json["trials"][1]["trials_at_once"], 2.0);
    assert_eq!(json["trials"][1]["ms_per_step_alone"], 16.0);
    let csv = String::from_utf8(to_csv(&study).unwrap()).unwrap();
    assert!(csv.lines().nth(2).unwrap().ends_with(",1,2,16,0"), "{csv}");
}
