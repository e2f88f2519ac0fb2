//! The conformance suite over every journal; those that need a server are in files of their own.

use steadfast::saga::journal::{MemoryJournal, SqliteJournal};
use steadfast::testing::saga::{Faulty, conformance};

use super::support::folder::Folder;

fn passed(journal: &str, cases: usize) {
    println!("figure: conformance cases of journals, {journal}: {cases}");
}

#[tokio::test(start_paused = true)]
async fn the_memory_journal_conforms() {
    let journal = MemoryJournal::new();
    passed("memory", conformance(|| async { journal.clone() }).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_journal_conforms_on_several_threads() {
    let journal = MemoryJournal::new();
    passed("memory, threads", conformance(|| async { journal.clone() }).await);
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_journal_conforms() {
    let journal = Faulty::new(MemoryJournal::new());
    passed("wrapped", conformance(|| async { journal.clone() }).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sqlite_journal_conforms() {
    let folder = Folder::new();
    let open = || async {
        let journal = SqliteJournal::open(folder.file()).await.unwrap();
        journal.migrate().await.unwrap();
        journal
    };
    passed("SQLite", conformance(open).await);
}
