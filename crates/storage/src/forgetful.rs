//! Tests: a database whose every answer is lost once.
//!
//! A connection can break after the server has committed and before the client has heard of it. The client can only
//! do the same again. Here that happens to every transaction that writes: it is committed, forgotten and run again, and
//! everything must come out as if it had run once.

use crate::database::{Access, Database, Statements, Wait};
use crate::sqlite::Sqlite;
use crate::{
    Attributes, Claimed, Decision, Direction, Distribution, Finished, How, ItemState, NewTrial, Outcome,
    Page, Param, Policy, Record, Result, Storage, StorageError, TrialState, Worker,
};
use serde_json::json;

struct Forgetful(Sqlite);

impl Database for Forgetful {
    fn transaction(
        &mut self,
        access: Access,
        wait: &mut Wait<'_>,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<()>,
    ) -> Result<()> {
        self.0.transaction(access, wait, work)?;
        if access == Access::Write {
            wait.after(StorageError::Unreachable { place: self.place(), cause: "cut".to_string() })?;
            self.0.transaction(access, wait, work)?;
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

#[test]
fn what_is_done_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let (sqlite, _) = Sqlite::open(&folder.path().join("study.db"), crate::Opening::Create).unwrap();
    let mut storage = Storage::on(Box::new(Forgetful(sqlite))).unwrap();
    let study = storage
        .create_study("s", Direction::Minimize, &[(Attributes::User, "a".to_string(), json!(1))])
        .unwrap();
    assert_eq!(storage.studies().unwrap().len(), 1);
    let trials: Vec<NewTrial> = (0..6)
        .map(|i| NewTrial {
            key: format!("k{i}"),
            params: vec![Param {
                name: "x".to_string(),
                value: json!(i),
                distribution: Distribution::Int { low: 0, high: 9, log: false, step: 1 },
            }],
            user_attributes: Vec::new(),
            system_attributes: Vec::new(),
        })
        .collect();
    storage.enqueue(study, &trials).unwrap();
    assert_eq!(storage.trials(study, Page::default()).unwrap().len(), 6);

    let worker = Worker::this_process("e");
    let policy = Policy::default();
    let claim = |storage: &mut Storage| match storage.claim(study, &worker, &policy).unwrap() {
        Claimed::Work(claim) => *claim,
        nothing => panic!("{nothing:?}"),
    };
    let record = Record::new().value(1, 2.0).attribute("b", "c").safe_step(1);

    let done = claim(&mut storage);
    assert_eq!((done.lease.key(), &done.how, done.trial.number), ("k0", &How::New, 0));
    storage.record(&done.lease, &record, &policy).unwrap();
    let finish =
        |storage: &mut Storage, lease, outcome| storage.finish(lease, &record, &outcome, &policy).unwrap();
    assert_eq!(finish(&mut storage, &done.lease, Outcome::Complete(1.5)), Finished::Done);
    let pruned = claim(&mut storage);
    assert_eq!(finish(&mut storage, &pruned.lease, Outcome::Pruned), Finished::Pruned);
    let failed = claim(&mut storage);
    let failure = Outcome::Failed { reason: "r".to_string(), retry: true };
    assert_eq!(finish(&mut storage, &failed.lease, failure), Finished::Retried { number: 6 });
    let retried = claim(&mut storage);
    assert_eq!((retried.lease.key(), retried.trial.number, retried.failures), ("k2", 6, 1));
    let parked = claim(&mut storage);
    storage.park(&parked.lease, &record, 1).unwrap();
    let reason = ("why".to_string(), json!(0.1));
    let promote = [(parked.lease.item(), Decision::Promote)];
    assert_eq!(storage.decide(study, 1, &promote, Some(&reason)).unwrap(), 1);
    let released = claim(&mut storage);
    assert_eq!(released.lease.key(), "k3", "promoted, and first in order");
    storage.release(&released.lease, &record).unwrap();
    assert_eq!(storage.items(study, Some(ItemState::Held), None, 9).unwrap().len(), 1);
    assert_eq!(storage.extend(study, &[done.lease.item()]).unwrap(), 1);

    let states: Vec<(i64, TrialState)> = storage
        .trials(study, Page::default())
        .unwrap()
        .iter()
        .map(|trial| (trial.number, trial.state))
        .collect();
    use TrialState::{Complete, Fail, Pruned, Running, Waiting};
    assert_eq!(
        states,
        [
            (0, Complete),
            (1, Pruned),
            (2, Fail),
            (3, Running),
            (4, Waiting),
            (5, Waiting),
            (6, Running),
            (7, Waiting)
        ]
    );
}
