//! Random histories of calls go as the pure transitions say, which the journal in memory calls.

use std::time::Duration;

use proptest::prelude::*;
use steadfast::saga::SagaId;
use steadfast::saga::journal::{
    Append, ClaimQuery, Claimed, ClaimedOne, Created, Head, Hold, Journal, ListQuery, MemoryJournal, NewSaga,
    PostgresJournal, Prune, SagaStatus,
};
use tokio::runtime::Runtime;

use super::{HOUR, append, definition, entry, journal, new_saga, owner};
use crate::support::postgres::Database;

#[derive(Clone, Debug)]
enum Operation {
    Create(NewSaga),
    /// Of a saga, so many epochs and events before where it is.
    Append(u32, u64, u64, Append),
    Claim(ClaimQuery),
    ClaimOne(u32, u8, Duration),
    Renew(u8, Duration, Vec<(u32, u64)>),
    Release(u8, Vec<(u32, u64)>),
    RequestCancel(u32),
    List(ListQuery),
    Prune(Prune),
}

const SAGAS: u32 = 6;

fn operation() -> impl Strategy<Value = Operation> {
    let time = || prop_oneof![Just(Duration::ZERO), Just(HOUR), Just(3 * HOUR)];
    let saga = || 0..SAGAS;
    let few = || proptest::collection::vec((saga(), 0..2_u64), 0..4);
    let definitions = || proptest::collection::vec((0..5_u8).prop_map(definition), 0..5);
    let status =
        || prop_oneof![8 => Just(SagaStatus::Running), 4 => proptest::sample::select(SagaStatus::ALL.to_vec())];
    let create = (
        saga(),
        0..2_u32,
        0..2_u8,
        0..5_u8,
        proptest::option::of(time()),
        proptest::option::of((1..4_u8, time())),
        proptest::collection::vec((0..4_u8).prop_map(entry), 0..3),
        any::<bool>(),
    );
    let create = create.prop_map(|(number, other, input, of, deadline, lease, entries, can_turn)| {
        Operation::Create(NewSaga {
            id: new_saga(number + other * SAGAS).id,
            input: [input; 32],
            definition: definition(of),
            deadline,
            lease: lease.map(|(number, lease)| (owner(number), lease)),
            entries,
            can_turn,
            ..new_saga(number)
        })
    });
    let hold = prop_oneof![3 => time().prop_map(Hold::Keep), 2 => time().prop_map(Hold::Park), 1 => Just(Hold::Rest)];
    let flags = (any::<bool>(), any::<bool>());
    let error = proptest::option::of(Just("it said \0 no: é".to_owned()));
    let entries = proptest::collection::vec((0..3_u8).prop_map(entry), 0..3);
    let late = || prop_oneof![6 => Just(0_u64), 2 => 1..3_u64];
    let append = (saga(), late(), late(), entries, status(), flags, hold, error).prop_map(
        |(number, epochs, seqs, entries, status, (can_turn, progress), hold, error)| {
            let append = Append {
                entries,
                status,
                can_turn,
                progress,
                hold,
                error,
                ..append(new_saga(0).id, 0, 0)
            };
            Operation::Append(number, epochs, seqs, append)
        },
    );
    let claim = (1..4_u8, time(), definitions(), 0..4_usize, 0..3_usize).prop_map(
        |(number, lease, definitions, limit, suspects)| {
            Operation::Claim(ClaimQuery {
                owner: owner(number),
                lease,
                definitions,
                limit,
                suspects,
            })
        },
    );
    let listed = (
        proptest::option::of(status()),
        proptest::option::of(0..5_u8),
        proptest::option::of(saga()),
        0..9_usize,
    )
        .prop_map(|(status, of, after, limit)| {
            let name = of.map(|of| definition(of).name);
            Operation::List(ListQuery {
                status,
                name,
                after: after.map(|number| new_saga(number).id),
                limit,
            })
        });
    prop_oneof![
        8 => create,
        12 => append,
        8 => claim,
        6 => (saga(), 1..4_u8, time()).prop_map(|(number, of, lease)| Operation::ClaimOne(number, of, lease)),
        3 => (1..4_u8, time(), few()).prop_map(|(of, lease, sagas)| Operation::Renew(of, lease, sagas)),
        2 => (1..4_u8, few()).prop_map(|(of, sagas)| Operation::Release(of, sagas)),
        2 => saga().prop_map(Operation::RequestCancel),
        1 => listed,
        1 => (time(), time()).prop_map(|(events_after, keys_after)| {
            Operation::Prune(Prune { events_after, keys_after, limit: 100 })
        }),
    ]
}

/// Times in whole hours: the two journals do not do the same at the same time.
fn hours(time: Duration) -> Duration {
    Duration::from_secs((time.as_secs() + 1800) / 3600 * 3600)
}

/// A head, its times in hours since `began`.
fn since(began: Duration, mut head: Head) -> Head {
    let since = |time: Duration| hours(time.saturating_sub(began));
    head.due = head.due.map(since);
    head.deadline = head.deadline.map(since);
    head.created = since(head.created);
    head.changed = since(head.changed);
    head
}

fn claim_since(began: Duration, claimed: Claimed) -> Claimed {
    Claimed {
        head: since(began, claimed.head),
        deadline_in: claimed.deadline_in.map(hours),
        ..claimed
    }
}

/// Does the same to a journal and to the model, and compares what they answer.
struct Both {
    journal: PostgresJournal,
    model: MemoryJournal,
    /// On the clock of each.
    began: [Duration; 2],
}

impl Both {
    async fn new(journal: &PostgresJournal, database: &Database) -> Self {
        database
            .execute("DELETE FROM steadfast.saga; DELETE FROM steadfast.saga_event")
            .await;
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let now: i64 = database.client().await.query_one(now, &[]).await.unwrap().get(0);
        let model = MemoryJournal::new();
        let marker = new_saga(u32::MAX);
        model.create(&marker).await.unwrap();
        let began = model.load(marker.id).await.unwrap().unwrap().now;
        Self {
            journal: journal.clone(),
            model: MemoryJournal::new(),
            began: [Duration::from_micros(now.try_into().unwrap()), began],
        }
    }

    fn journals(&self) -> [(&dyn Journal, Duration); 2] {
        [(&self.journal, self.began[0]), (&self.model, self.began[1])]
    }

    /// The id of the saga that has this number's key, if any, and its head.
    async fn head(&self, number: u32) -> Option<Head> {
        self.model.find(new_saga(number).key).await.unwrap()
    }

    async fn leases(&self, sagas: &[(u32, u64)]) -> Vec<(SagaId, u64)> {
        let mut leases = Vec::new();
        for &(number, late) in sagas {
            let head = self.head(number).await;
            let lease = head.map(|head| (head.id, head.epoch.saturating_sub(late)));
            leases.push(lease.unwrap_or((new_saga(number).id, late)));
        }
        leases
    }

    async fn id(&self, number: u32) -> SagaId {
        self.head(number).await.map_or(new_saga(number).id, |head| head.id)
    }

    async fn agree(&self, operation: &Operation) {
        let mut answers = Vec::new();
        let [one, other] = self.journals();
        let operation = self.resolved(operation).await;
        for (journal, began) in [one, other] {
            answers.push(self.answer(journal, began, &operation).await);
        }
        assert_eq!(answers[0], answers[1], "{operation:?}");
    }

    /// With the epochs and numbers that the sagas have.
    async fn resolved(&self, operation: &Operation) -> Operation {
        let mut operation = operation.clone();
        if let Operation::Append(number, epochs, seqs, append) = &mut operation {
            let head = self.head(*number).await;
            append.id = self.id(*number).await;
            append.epoch = head.as_ref().map_or(1, |head| head.epoch.saturating_sub(*epochs));
            append.seq = head.as_ref().map_or(0, |head| head.seq.saturating_sub(*seqs));
        }
        operation
    }

    async fn answer(&self, journal: &dyn Journal, began: Duration, operation: &Operation) -> String {
        match operation {
            Operation::Create(new) => match journal.create(new).await.unwrap() {
                Created::Existing(head) => format!("{:?}", since(began, *head)),
                answer => format!("{answer:?}"),
            },
            Operation::Append(_, _, _, append) => format!("{:?}", journal.append(append).await.unwrap()),
            Operation::Claim(query) => {
                let claimed = journal.claim(query).await.unwrap();
                let claimed: Vec<_> = claimed.into_iter().map(|claimed| claim_since(began, claimed)).collect();
                format!("{claimed:?}")
            }
            Operation::ClaimOne(number, of, lease) => {
                match journal
                    .claim_one(self.id(*number).await, owner(*of), *lease)
                    .await
                    .unwrap()
                {
                    ClaimedOne::Claimed(claimed) => format!("{:?}", claim_since(began, *claimed)),
                    answer => format!("{answer:?}"),
                }
            }
            Operation::Renew(of, lease, sagas) => {
                let sagas = self.leases(sagas).await;
                format!("{:?}", journal.renew(owner(*of), *lease, &sagas).await.unwrap())
            }
            Operation::Release(of, sagas) => {
                let sagas = self.leases(sagas).await;
                format!("{:?}", journal.release(owner(*of), &sagas).await.unwrap())
            }
            Operation::RequestCancel(number) => {
                format!("{:?}", journal.request_cancel(self.id(*number).await).await.unwrap())
            }
            Operation::List(query) => {
                let heads = journal.list(query).await.unwrap();
                let heads: Vec<_> = heads.into_iter().map(|head| since(began, head)).collect();
                format!("{heads:?}")
            }
            Operation::Prune(prune) => format!("{}", journal.prune(*prune).await.unwrap()),
        }
    }

    /// Everything that both hold.
    async fn compare(&self) {
        let mut held = Vec::new();
        for (journal, began) in self.journals() {
            let mut sagas = Vec::new();
            let all = ListQuery {
                limit: 1000,
                ..ListQuery::default()
            };
            for head in journal.list(&all).await.unwrap() {
                let loaded = journal.load(head.id).await.unwrap().unwrap();
                assert_eq!(loaded.head, head);
                assert_eq!(journal.find(head.key).await.unwrap(), Some(head));
                let entries = loaded.entries.into_iter();
                let entries: Vec<_> = entries.map(|stored| (stored.seq, stored.epoch, stored.entry)).collect();
                sagas.push((since(began, loaded.head), entries));
            }
            let mut counts = journal.count(&[definition(0), definition(1)]).await.unwrap();
            counts.overdue = counts.overdue.map(hours);
            held.push((sagas, counts));
        }
        assert_eq!(held[0], held[1]);
    }
}

fn histories(database: impl Future<Output = Option<Database>>, cases: u32) {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(database) else {
        return;
    };
    let journal = runtime.block_on(journal(&database, 4));
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    proptest!(config, |(history in proptest::collection::vec(operation(), 1..60))| {
        runtime.block_on(async {
            let both = Both::new(&journal, &database).await;
            for operation in &history {
                both.agree(operation).await;
            }
            both.compare().await;
        });
    });
}

#[test]
fn every_history_goes_as_the_pure_transitions_say() {
    histories(Database::new("saga_histories"), 96);
}

#[test]
fn every_history_goes_as_the_pure_transitions_say_behind_pgbouncer() {
    histories(Database::behind_pgbouncer("saga_histories_pgbouncer"), 24);
}
