//! `worker`: one more process for a study that is there.

use super::working::{Task, work};
use super::{open, page, winner};
use crate::args::Worker;
use crate::failure::{Failure, note};
use crate::signals::Signals;
use crate::storage;
use diapason_report::{Extras, write_files};
use diapason_storage::StorageUrl;
use diapason_study::Home;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: Worker, signals: &Signals) -> Result<(), Failure> {
    let Some(url) = storage::given(args.place.storage.as_deref())? else {
        return Err(Failure::usage("--storage is missing")
            .with_hint("name the study's database: --storage studies/NAME/study.db, or postgresql://USER@HOST/DATABASE with --study NAME"));
    };
    let folder = match (&args.out, &url, &args.place.study) {
        (Some(folder), _, _) => folder.clone(),
        (None, StorageUrl::Sqlite(path), _) => path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_path_buf(),
        (None, StorageUrl::Postgres(_), Some(name)) => PathBuf::from("studies").join(super::slug(name)),
        (None, StorageUrl::Postgres(_), None) => {
            return Err(Failure::usage("--study is missing: a server may hold many studies")
                .with_hint("`diapason study list --storage URL` names them"));
        }
    };
    storage::reach(&url)?;
    let home = Home { folder: folder.clone(), storage: url, name: args.place.study.clone() };
    let spec = home.spec()?;
    let request = match (&spec.corpus.request, &args.corpus) {
        (Some(request), Some(corpus)) => {
            diapason_corpus::CorpusRequest { corpus: corpus.clone(), ..request.clone() }
        }
        (Some(request), None) => request.clone(),
        (None, _) => {
            return Err(Failure::failed("the study does not say how its text was opened"));
        }
    };
    let corpus = open(&request).map_err(|failure| match args.corpus {
        Some(_) => failure,
        None => failure.with_hint("--corpus says where the study's text lies on this machine"),
    })?;
    let (study, bounds) =
        work(Task::Join(&spec), &corpus, &home, &args.working, !args.no_wait, None, signals)?;
    let over = study.trials.iter().filter(|trial| study.is_over(trial)).count();
    note(&format!("{}: {over} of {} trials are done", study.spec.name, study.trials.len()));
    if over == study.trials.len() {
        let samples = winner::samples(&study, &home.folder, args.working.machine.threads());
        let extras = Extras { command: page::command(&study.spec), samples, ..Extras::default() };
        write_files(&study, &bounds, &home.folder, &extras)?;
    }
    Ok(())
}
