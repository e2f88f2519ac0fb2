//! How several writers of one file take turns. SQLite tells nobody that the file is free: whoever waits has to look.

use std::sync::atomic::AtomicBool;
use std::thread;

use futures::future::join_all;

use super::super::queue::{now, pause};
use super::*;

const MS: Duration = Duration::from_millis(1);

/// Somebody holds the file for 20 ms and leaves it for 2, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_file_finds_it_free_at_one_of_its_next_gaps() {
    let folder = Folder::new();
    drop(opened(&folder.file()).await);
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let gaps = Arc::new(AtomicU64::new(0));
    let (held, is_held) = mpsc::channel();
    let holder = thread::spawn({
        let (over, gaps, other) = (Arc::clone(&over), Arc::clone(&gaps), patient(&folder));
        move || {
            while !over.load(Ordering::Relaxed) {
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                let _ = held.send(());
                pause(20 * MS);
                other.execute_batch("COMMIT").unwrap();
                gaps.fetch_add(1, Ordering::Relaxed);
                pause(2 * MS);
            }
        }
    });
    let mut most = 0;
    for _ in 0..20 {
        is_held.try_iter().for_each(drop);
        tokio::task::block_in_place(|| is_held.recv()).unwrap();
        let before = gaps.load(Ordering::Relaxed);
        run(&storage, "INSERT INTO t VALUES (NULL)").await.unwrap();
        most = most.max(gaps.load(Ordering::Relaxed) - before);
    }
    over.store(true, Ordering::Relaxed);
    drop(is_held);
    let _ = holder.join();
    assert!(most <= 8, "it missed {most} gaps");
}

/// A connection as somebody else has it, who waits as SQLite does.
fn patient(folder: &Folder) -> Connection {
    let other = Connection::open(folder.file()).unwrap();
    other.busy_timeout(Duration::from_secs(60)).unwrap();
    other
}

/// Has callers give `storage` work of `long` each, and the next as soon as that is done, until `over`. The longest that
/// one of them has waited.
async fn saturate(storage: &SqliteStorage, callers: usize, long: Duration, over: &Arc<AtomicBool>) -> Duration {
    let callers = (0..callers).map(|_| {
        let (storage, over) = (storage.clone(), Arc::clone(over));
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let since = now();
                let work = move |turn: &Turn<'_>| {
                    pause(long);
                    execute(turn, "INSERT INTO t VALUES (NULL)")
                };
                storage.call(Terms::default(), work).await.unwrap();
                longest = longest.max(since.elapsed());
            }
            longest
        })
    });
    let longest = join_all(callers).await.into_iter().map(Result::unwrap);
    longest.max().unwrap_or_default()
}

/// Of 600 callers enough wait at any time for a full commit. What the writer needs from one transaction to the next is no
/// gap that anybody finds: it is one where the file is free at two looks in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_has_always_work_leaves_the_file_now_and_then() {
    const MOST: u32 = 4_000;
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let over = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let (over, other) = (Arc::clone(&over), patient(&folder));
        other.busy_timeout(Duration::ZERO).unwrap();
        move || {
            let (mut looks, mut gaps, mut was_free) = (0, 0, false);
            while gaps < 8 && looks < MOST {
                pause(MS * 3 / 5);
                looks += 1;
                let free = other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
                gaps += u32::from(free && was_free);
                was_free = free && !was_free;
            }
            over.store(true, Ordering::Relaxed);
            looks
        }
    });
    saturate(&storage, 600, MS / 5, &over).await;
    let looks = other.join().unwrap();
    assert!(looks < MOST, "it was never free for long");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_writers_with_more_work_than_they_can_do_none_waits_long() {
    let folder = Folder::new();
    drop(opened(&folder.file()).await);
    let over = Arc::new(AtomicBool::new(false));
    let open = || {
        let storage = SqliteStorage::builder(folder.file());
        storage.busy_timeout(Duration::from_secs(60)).open()
    };
    let storages = [open().await.unwrap(), open().await.unwrap(), open().await.unwrap()];
    let end = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            pause(4_000 * MS);
            over.store(true, Ordering::Relaxed);
        }
    });
    let [a, b, c] = storages.each_ref().map(|storage| saturate(storage, 4, 5 * MS, &over));
    let (a, b, c) = tokio::join!(a, b, c);
    end.join().unwrap();
    let longest = a.max(b).max(c);
    assert!(longest < 1_000 * MS, "{longest:?}");
}
