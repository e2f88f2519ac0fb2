use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
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
async fn who_has_waited_for_long_goes_with_those_behind_in_a_turn_that_is_nobody_elses() {
    let group = Runner::new(Some);
    let turns = all(&group).await;
    let came = Instant::now();
    let first = callers(&group, &[2, 1]).await;
    tokio::time::sleep(PATIENCE / 2).await;
    let second = callers(&group, &[3]).await;
    tokio::time::sleep(PATIENCE / 2).await;
    settled().await;
    assert_eq!(came.elapsed(), PATIENCE);
    assert_eq!(group.runner.groups(), [[1, 2, 3]]);
    let third = callers(&group, &[4]).await;
    group.runner.gate.add_permits(1);
    assert_eq!(answers(first).await, [Some(20), Some(10)]);
    assert_eq!(answers(second).await, [Some(30)]);
    assert!(!third[0].is_finished(), "all turns are taken");
    drop(turns);
    settled().await;
    drop(third);
    drop(all(&group).await);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_long_with_nobody_behind_goes_alone() {
    let group = Runner::new(Some);
    let turns = all(&group).await;
    let came = Instant::now();
    for caller in callers(&group, &[1]).await {
        assert!(matches!(caller.await.unwrap(), Way::Alone(Some(_))));
    }
    assert_eq!(came.elapsed(), PATIENCE);
    drop(turns);
    drop(all(&group).await);
    assert!(group.runner.groups().is_empty());
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

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn a_group_goes_where_the_first_of_it_waits_and_not_where_the_turn_ended() {
    let group = Runner::new(Some);
    let (first, second) = (runtime(), runtime());
    let mut turns = first.block_on(all(&group));
    let callers = second.block_on(callers(&group, &[1, 2]));
    // Nothing drives the first runtime after this.
    first.block_on(async { drop(turns.pop()) });
    group.runner.gate.add_permits(1);
    let answers = second.block_on(async { timeout(PATIENCE, answers(callers)).await });
    assert_eq!(answers, Ok(vec![Some(10), Some(20)]));
}

#[test]
fn who_waits_for_a_group_in_a_runtime_that_has_ended_goes_alone() {
    let group = Runner::new(Some);
    let (first, second) = (runtime(), runtime());
    let turns = first.block_on(all(&group));
    let mut first_of_all = Box::pin(group.join(|| 1));
    first.block_on(async { assert!(futures::poll!(&mut first_of_all).is_pending()) });
    let callers = second.block_on(callers(&group, &[2, 3]));
    drop(first);
    drop(turns);
    assert_eq!(second.block_on(answers(callers)), [None, None]);
    drop(first_of_all);
    drop(second.block_on(all(&group)));
}

/// As many connections as there are turns, over which a statement takes 5 ms, be it of one or of many.
struct Server(Semaphore);

impl Server {
    async fn statement(&self) {
        let _connection = self.0.acquire().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Together for Server {
    type Job = u8;
    type Answer = ();

    fn id(job: &u8) -> KeyId {
        KeyId::from_bytes([*job; 32])
    }

    async fn run(&self, jobs: &[u8]) -> Option<Vec<()>> {
        self.statement().await;
        Some(vec![(); jobs.len()])
    }
}

/// Twice as many callers as the connections could serve one by one.
#[tokio::test(start_paused = true)]
async fn a_server_that_stood_still_for_a_moment_is_soon_as_fast_as_before() {
    let group = Group::new(Server(Semaphore::new(TURNS)));
    let call = |group: Arc<Group<Server>>| async move {
        let came = Instant::now();
        if let Way::Alone(turn) = group.join(|| 1).await {
            group.runner.statement().await;
            drop(turn);
        }
        came.elapsed()
    };
    let mut late = Vec::new();
    for millisecond in 0..2_000 {
        if millisecond == 200 {
            let group = Arc::clone(&group);
            tokio::spawn(async move {
                let _all = group
                    .runner
                    .0
                    .acquire_many(u32::try_from(TURNS).unwrap())
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(300)).await;
            });
        }
        for _ in 0..4 {
            let caller = tokio::spawn(call(Arc::clone(&group)));
            if millisecond >= 1_500 {
                late.push(caller);
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut longest = Duration::ZERO;
    for caller in late {
        longest = longest.max(caller.await.unwrap());
    }
    assert!(longest < Duration::from_millis(50), "{longest:?}");
}

#[test]
fn a_runtime_that_ends_drops_however_many_wait() {
    const WAITING: usize = 20_000;
    let runtime = runtime();
    let group = Runner::new(Some);
    runtime.block_on(async {
        let turns = all(&group).await;
        tokio::spawn(async move {
            let _turns = turns;
            std::future::pending::<()>().await;
        });
        for _ in 0..WAITING {
            let group = Arc::clone(&group);
            tokio::spawn(async move { drop(group.join(|| 1).await) });
        }
        for _ in 0..WAITING {
            tokio::task::yield_now().await;
        }
    });
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    small.spawn(move || drop(runtime)).unwrap().join().unwrap();
    assert!(group.runner.groups().is_empty());
    assert!(group.lock().take(), "no turn is lost");
}
