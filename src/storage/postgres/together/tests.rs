use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::turns::TURNS;
use super::*;

type Outcome = fn(Vec<u32>) -> Option<Vec<u32>>;

/// Answers each job with ten times its number, once it may.
struct Runner {
    gate: Semaphore,
    groups: Mutex<Vec<Vec<u8>>>,
    given_up: AtomicUsize,
    outcome: Outcome,
}

impl Runner {
    fn new(outcome: Outcome) -> Arc<Group<Self>> {
        Group::new(Self {
            gate: Semaphore::new(0),
            groups: Mutex::default(),
            given_up: AtomicUsize::new(0),
            outcome,
        })
    }

    fn groups(&self) -> Vec<Vec<u8>> {
        self.groups.lock().unwrap().clone()
    }
}

struct GivenUp<'a>(Option<&'a AtomicUsize>);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Together for Runner {
    type Job = u8;
    type Answer = u32;

    fn id(job: &u8) -> KeyId {
        KeyId::from_bytes([*job; 32])
    }

    async fn run(&self, jobs: &[u8]) -> Option<Vec<u32>> {
        self.groups.lock().unwrap().push(jobs.to_vec());
        let mut running = GivenUp(Some(&self.given_up));
        self.gate.acquire().await.unwrap().forget();
        running.0 = None;
        (self.outcome)(jobs.iter().map(|job| u32::from(*job) * 10).collect())
    }
}

/// All the turns there are.
async fn all(group: &Arc<Group<Runner>>) -> Vec<Turn<Runner>> {
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        match group.join(|| 0).await {
            Way::Alone(Some(turn)) => turns.push(turn),
            _ => panic!("a turn is free"),
        }
    }
    turns
}

/// Callers with these jobs, all of which have come.
async fn callers(group: &Arc<Group<Runner>>, jobs: &[u8]) -> Vec<JoinHandle<Way<Runner>>> {
    let callers = jobs.iter().map(|job| {
        let (group, job) = (Arc::clone(group), *job);
        tokio::spawn(async move { group.join(|| job).await })
    });
    let callers = callers.collect();
    settled().await;
    callers
}

/// Lets everything run that can.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn answers(callers: Vec<JoinHandle<Way<Runner>>>) -> Vec<Option<u32>> {
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(match caller.await.unwrap() {
            Way::Done(answer) => Some(answer),
            Way::Alone(turn) => {
                assert!(turn.is_none());
                None
            }
        });
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_all_turns_are_taken_goes_with_the_others_in_the_order_of_the_ids() {
    let group = Runner::new(Some);
    let mut turns = all(&group).await;
    let callers = callers(&group, &[5, 3, 9, 1]).await;
    drop(turns.pop());
    settled().await;
    assert_eq!(group.runner.groups(), [[1, 3, 5, 9]]);
    group.runner.gate.add_permits(1);
    assert_eq!(answers(callers).await, [Some(50), Some(30), Some(90), Some(10)]);
    drop(turns);
    drop(all(&group).await);
}

#[tokio::test(start_paused = true)]
async fn who_waits_alone_is_given_the_turn() {
    let group = Runner::new(Some);
    let mut turns = all(&group).await;
    let callers = callers(&group, &[1]).await;
    drop(turns.pop());
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Way::Alone(Some(_))));
    }
    assert!(group.runner.groups().is_empty());
    drop(turns);
    drop(all(&group).await);
}

#[tokio::test(start_paused = true)]
async fn who_is_dropped_while_it_waits_is_not_done() {
    let group = Runner::new(Some);
    let mut turns = all(&group).await;
    let mut callers = callers(&group, &[1, 2, 3]).await;
    callers.remove(1).abort();
    settled().await;
    drop(turns.pop());
    settled().await;
    assert_eq!(group.runner.groups(), [[1, 3]]);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_long_goes_alone_and_is_in_no_group() {
    let group = Runner::new(Some);
    let turns = all(&group).await;
    let came = Instant::now();
    let callers = callers(&group, &[1, 2]).await;
    assert_eq!(answers(callers).await, [None, None]);
    assert_eq!(came.elapsed(), PATIENCE);
    drop(turns);
    settled().await;
    assert!(group.runner.groups().is_empty());
    drop(all(&group).await);
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_along_waits_for_the_answer_however_long() {
    let group = Runner::new(Some);
    let mut turns = all(&group).await;
    let callers = callers(&group, &[1, 2]).await;
    drop(turns.pop());
    tokio::time::sleep(PATIENCE * 10).await;
    group.runner.gate.add_permits(1);
    assert_eq!(answers(callers).await, [Some(10), Some(20)]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_together_each_does_alone() {
    let cannot: [Outcome; 2] = [|_| None, |_| panic!("in the middle")];
    for outcome in cannot {
        let group = Runner::new(outcome);
        let turns = all(&group).await;
        let callers = callers(&group, &[1, 2]).await;
        group.runner.gate.add_permits(1);
        drop(turns);
        assert_eq!(answers(callers).await, [None, None]);
        settled().await;
        drop(all(&group).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_given_up_when_the_last_of_it_is_dropped() {
    let group = Runner::new(Some);
    let turns = all(&group).await;
    let callers = callers(&group, &[1, 2]).await;
    drop(turns);
    settled().await;
    callers[0].abort();
    settled().await;
    assert_eq!(group.runner.given_up.load(Ordering::Relaxed), 0);
    callers[1].abort();
    settled().await;
    assert_eq!(group.runner.given_up.load(Ordering::Relaxed), 1);
    drop(all(&group).await);
}

#[test]
fn without_a_runtime_those_who_wait_go_alone() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let group = Runner::new(Some);
    let (first, second) = (runtime(), runtime());
    let turns = first.block_on(all(&group));
    let callers = second.block_on(callers(&group, &[1, 2]));
    drop(first);
    drop(turns);
    assert_eq!(second.block_on(answers(callers)), [None, None]);
    drop(second.block_on(all(&group)));
}
