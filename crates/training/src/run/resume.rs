//! Taking up a run where its checkpoint ends: only the same run, and all of it.

use super::{BEST, CHECKPOINT, Occasion, Run, scheduled};
use crate::checkpoint::{self, Header, Stored};
use crate::{Checkpoint, CheckpointError, Event, Protocol, TrainingError, curve};

impl Run<'_> {
    /// Takes up the run in the folder, if it is the same one.
    pub(super) fn resume(&mut self) -> Result<(), TrainingError> {
        let path = self.spec.folder.join(CHECKPOINT);
        let mut stored = Stored::open(&path)?;
        let old = stored.header().clone();
        (self.schedule, self.header.config) = scheduled(self.spec, self.spec.config.clone(), Some(&old));
        // First, for a run without an average that is now to keep one was begun with other settings.
        self.check_same_run(&old)?;
        let averages = self.header.config.updating().averages;
        if !stored.has_moments() || averages && !stored.has_average() {
            return Err(CheckpointError::Content {
                path,
                what: "optimizer state",
                detail: "it is not there, so the run cannot go on; --init starts a new run from its weights"
                    .to_string(),
            }
            .into());
        }
        // Straight into the engine: a large model is not held twice.
        let mut read = Ok(());
        self.engine.keep_average(averages);
        self.engine.with_state(&mut |state| {
            state.second_moment.fill(0.0);
            read = stored
                .read_parameters(state.parameters)
                .and_then(|()| stored.read_moments(state.first_moment, state.second_moment))
                .and_then(|()| if averages { stored.read_average(state.average) } else { Ok(()) });
        });
        read?;

        // The text may lie in another place by now.
        let Header { config, corpus_request, .. } = std::mem::replace(&mut self.header, old);
        self.unsaved = self.header.config != config || self.header.corpus_request != corpus_request;
        self.header.config = config;
        self.header.corpus_request = corpus_request;
        if self.header.progress.characters == 0 {
            // Not counted by the version that wrote it.
            self.header.progress.characters = self.header.config.characters(self.header.step) as u64;
        }
        self.unsaved |= self.leave_out_foreign_evaluation();
        let here = self.engine.id().to_string();
        if self.header.engine != here {
            let before = std::mem::replace(&mut self.header.engine, here.clone());
            (self.observe)(&Event::Note(format!(
                "computed by engine {before} up to step {}, by {here} from there",
                self.header.step
            )));
            let others = &mut self.header.progress.other_engines;
            if !others.contains(&before) {
                others.push(before);
            }
            self.unsaved = true;
        }
        if let Some(early) = self.spec.early_step.filter(|_| self.spec.protocol == Protocol::Standard) {
            let curve = &self.header.progress.curve;
            if early < self.header.step && !curve.iter().any(|point| point.step == early) {
                (self.observe)(&Event::Note(format!(
                    "the run is past the early read-out at step {early} and was not evaluated there"
                )));
            }
        }
        if let Some(best) = curve::best(&self.header.progress.curve).map(|point| point.step) {
            let path = self.spec.folder.join(BEST);
            let is_there = matches!(Checkpoint::read_header(&path), Ok(header) if header.step == best);
            // Killed between the checkpoint and the best weights? They are the checkpoint's.
            if !is_there && best == self.header.step {
                self.write(Occasion::Best, |run| run.save_best())?;
            } else if !is_there {
                (self.observe)(&Event::Note(format!(
                    "{} is missing or damaged: the weights of the best step so far, {best}, are lost",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// Leaves the evaluation at the end of a shorter run out of the curve, where the run as it is now would not
    /// have made it, so that the two come to the same. It stays only as long as it is the best, for the best
    /// weights are then its own. Returns whether anything was left out.
    pub(super) fn leave_out_foreign_evaluation(&mut self) -> bool {
        let curve = &mut self.header.progress.curve;
        let (before, best) = (curve.len(), curve::best(curve).map(|point| point.step));
        curve.retain(|point| self.schedule.is_due(point.step) || Some(point.step) == best);
        curve.len() < before
    }

    /// Whether `old` is the run that was asked for.
    pub(super) fn check_same_run(&self, old: &Header) -> Result<(), TrainingError> {
        let (new, spec) = (&self.header, self.spec);
        if old.corpus_digest != new.corpus_digest {
            return Err(TrainingError::CorpusChanged {
                folder: spec.folder.clone(),
                old_name: old.corpus_name.clone(),
                old_digest: old.corpus_digest.clone(),
                name: new.corpus_name.clone(),
                digest: new.corpus_digest.clone(),
            });
        }
        // More steps or more patience change nothing that has been computed. Under the notebook's protocol
        // the last step is an evaluation of its own, which its rule counts.
        let may_change = |key: &str| match key {
            "steps" => {
                old.config.steps < new.config.steps
                    && spec.protocol == Protocol::Standard
                    && !new.config.depends_on_length()
            }
            "patience" => {
                old.config.patience != 0
                    && (new.config.patience == 0 || new.config.patience > old.config.patience)
            }
            // What it comes to is in the engine's id.
            "checkpoint_seconds" | "precision" => true,
            _ => false,
        };
        let mut differences: Vec<String> = old
            .config
            .differences(&new.config)
            .into_iter()
            .filter(|(key, _, _)| !may_change(key))
            .map(|(key, was, now)| format!("{key} was {was}, now {now}"))
            .collect();
        let mut compare = |what, was: String, now: String| {
            if was != now {
                differences.push(format!("{what} was {was}, now {now}"));
            }
        };
        compare("seed", old.seed.to_string(), spec.seed.to_string());
        compare("protocol", old.protocol.name().to_string(), spec.protocol.name().to_string());
        let budget = |seconds: Option<f64>| seconds.map_or("none".to_string(), |s| format!("{s} seconds"));
        compare("budget", budget(old.progress.time.map(|time| time.budget)), budget(spec.time_budget));
        match (&old.progress.init, &spec.init) {
            (None, Some(_)) => {
                differences.push("it started from random weights, now from a file".to_string());
            }
            (Some(was), Some(path)) => {
                let now = checkpoint::digest_of_weights(path, &new.model, &new.alphabet)?;
                if *was != now {
                    differences.push(format!(
                        "it started from other weights than those in {} (--init can be left out)",
                        path.display()
                    ));
                }
            }
            (_, None) => {}
        }
        if !differences.is_empty() {
            return Err(TrainingError::SettingsChanged {
                folder: spec.folder.clone(),
                differences: differences.join("; "),
            });
        }
        if old.engine != new.engine && !spec.allow_other_engine {
            return Err(TrainingError::OtherEngine {
                folder: spec.folder.clone(),
                old: old.engine.clone(),
                new: new.engine.clone(),
            });
        }
        Ok(())
    }

    /// Whether `there` is a run that differs from this in more than its length.
    pub(super) fn is_other_run(&self, there: &Header) -> bool {
        let is_length = |key| matches!(key, "steps" | "patience" | "eval_every" | "checkpoint_seconds");
        there.corpus_digest != self.header.corpus_digest
            || there.seed != self.header.seed
            || there.protocol != self.header.protocol
            || there.config.differences(&self.header.config).iter().any(|(key, _, _)| !is_length(key))
    }
}
