//! `--tensorboard DIR`: curves for TensorBoard while training goes on.
//!
//! One folder below DIR for each run, as TensorBoard expects it. Curves to look at are not worth a run: what cannot be
//! written is said once, and training goes on.

use crate::failure::note;
use diapason_report::EventFile;
use diapason_training::{CurvePoint, Event};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The event files of the runs that are under way.
pub(crate) struct Boards {
    folder: Option<PathBuf>,
    runs: BTreeMap<usize, Run>,
}

struct Run {
    folder: PathBuf,
    file: Option<EventFile>,
    tokens_per_second: f64,
}

impl Boards {
    /// In `folder`; nowhere if there is none.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_path_buf), runs: BTreeMap::new() }
    }

    /// A run begins, whose events come with this number; `name` is its folder below the boards'.
    pub(crate) fn begin(&mut self, number: usize, name: &Path) {
        if let Some(folder) = &self.folder {
            let run = Run { folder: folder.join(name), file: None, tokens_per_second: 0.0 };
            self.runs.insert(number, run);
        }
    }

    /// Writes what an event brings.
    pub(crate) fn event(&mut self, number: usize, event: &Event) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let written = match event {
            Event::Started { step, .. } => {
                EventFile::create(&run.folder, if *step == 0 { 0 } else { step + 1 })
                    .map(|file| run.file = Some(file))
            }
            Event::Step { tokens_per_second, .. } => {
                run.tokens_per_second = *tokens_per_second;
                Ok(())
            }
            Event::Evaluated(point) => match &mut run.file {
                Some(file) => {
                    point_of(file, point, run.tokens_per_second);
                    file.flush()
                }
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = written {
            note(&format!("--tensorboard: {error}; training goes on without it"));
            self.folder = None;
            self.runs.clear();
        }
    }

    /// A run has ended.
    pub(crate) fn end(&mut self, number: usize) {
        self.runs.remove(&number);
    }
}

fn point_of(file: &mut EventFile, point: &CurvePoint, tokens_per_second: f64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let mut scalar = |tag, value| file.scalar(tag, point.step, now, value);
    scalar("loss/validation", point.validation_loss);
    scalar("loss/train", point.train_loss);
    scalar("accuracy/all", point.accuracy);
    scalar("accuracy/last", point.accuracy_last);
    if tokens_per_second > 0.0 {
        scalar("tokens_per_second", tokens_per_second);
    }
}
