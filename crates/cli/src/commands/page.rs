//! The page of a study, `report.html`, written again while the study runs.
//!
//! A thread of its own reads the study from its database, as any other reader does, and writes the page. Training does
//! not wait for it, and nothing that is shown passes through the observer. Whoever has the page open sees trials
//! end and curves grow. What goes wrong here is left to the end: the page is then written once more, and an error is told.

use super::working::bounds;
use diapason_corpus::Corpus;
use diapason_report::{Bounds, Extras, write_page};
use diapason_study::{Home, Study};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two pages.
const INTERVAL: Duration = Duration::from_secs(10);

/// A page of a large study takes longer: at most one part in so many of the time goes into pages.
const SHARE: u32 = 50;

/// Does `work`, and keeps the study's page up to date from the moment when `work` calls what it is given.
pub(super) fn kept<T>(
    corpus: &Corpus,
    home: &Home,
    command: Option<&str>,
    work: impl FnOnce(&dyn Fn()) -> T,
) -> T {
    let (begin, begun) = channel::<()>();
    thread::scope(|scope| {
        let keeper = thread::Builder::new().name("page".to_string()).spawn_scoped(scope, move || {
            let mut known = None;
            if begun.recv().is_err() {
                return;
            }
            loop {
                let started = Instant::now();
                write(corpus, home, command, true, known);
                let pause = INTERVAL.max(started.elapsed() * SHARE);
                // Takes a while, and the first page does not wait for it.
                known = known.or_else(|| Some(bounds(corpus, &open(corpus, home)?)));
                if let Err(RecvTimeoutError::Disconnected) = begun.recv_timeout(pause) {
                    break;
                }
            }
            // Whatever ended the work, nobody is at it now.
            write(corpus, home, command, false, known);
        });
        // Without a thread there is no page before the end.
        drop(keeper);
        let done = work(&|| {
            let _ = begin.send(());
        });
        drop(begin);
        done
    })
}

fn open(corpus: &Corpus, home: &Home) -> Option<Study> {
    Study::open(home, corpus.alphabet.len()).ok()
}

fn write(corpus: &Corpus, home: &Home, command: Option<&str>, running: bool, known: Option<Bounds>) {
    let as_of = Some(SystemTime::now());
    let Some(study) = open(corpus, home) else { return };
    let extras = Extras { running, as_of, command: command.map(str::to_string), ..Extras::default() };
    let _ = write_page(&study, &known.unwrap_or_default(), &home.folder, &extras);
}
