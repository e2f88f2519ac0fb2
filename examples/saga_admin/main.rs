//! What an operator needs at night: a command line over the journal of sagas, without the code of the service.
//!
//! Without a journal it makes one in which some sagas are stuck, and mends them. With one:
//!
//! ```text
//! saga_admin JOURNAL list [STATUS] [--name NAME] [--older SECONDS]
//! saga_admin JOURNAL inspect ID
//! saga_admin JOURNAL context ID
//! saga_admin JOURNAL retry ID [--force]       --who WHO --why WHY
//! saga_admin JOURNAL compensate ID            --who WHO --why WHY
//! saga_admin JOURNAL resolve ID STEP done     --who WHO --why WHY
//! saga_admin JOURNAL resolve ID STEP never    --who WHO --why WHY
//! saga_admin JOURNAL skip ID STEP             --who WHO --why WHY
//! saga_admin JOURNAL cancel ID                --who WHO --why WHY
//! saga_admin JOURNAL abandon ID               --who WHO --why WHY
//! ```

mod demo;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use steadfast::saga::journal::{SagaStatus, SqliteJournal};
use steadfast::saga::{SagaAdmin, SagaFilter, SagaId};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        return demo::run().await;
    }
    let journal = args.remove(0);
    if !Path::new(&journal).exists() {
        return Err(format!("there is no journal {journal}").into());
    }
    let admin = SagaAdmin::new(SqliteJournal::open(journal).await?);
    carry_out(&admin, args).await
}

/// Carries out one command.
async fn carry_out(admin: &SagaAdmin, mut args: Vec<String>) -> Outcome {
    let who = option(&mut args, "--who").unwrap_or_default();
    let why = option(&mut args, "--why").unwrap_or_default();
    let name = option(&mut args, "--name");
    let older = option(&mut args, "--older").map(|seconds| seconds.parse().map(Duration::from_secs));
    let force = args.iter().position(|arg| arg == "--force").map(|at| args.remove(at));
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => return list(admin, None, name, older.transpose()?).await,
        ["list", status] => return list(admin, Some(named(status)?), name, older.transpose()?).await,
        ["inspect", id] => {
            print!("{}", admin.inspect(id.parse()?).await?);
            return Ok(());
        }
        ["context", id] => {
            let seen = admin.inspect(id.parse()?).await?;
            println!("{}", String::from_utf8_lossy(seen.context().unwrap_or_default()));
            return Ok(());
        }
        _ => {}
    }
    let id: SagaId = words
        .get(1)
        .ok_or("what, and which saga? See the head of this example.")?
        .parse()?;
    let operator = admin.by(&who, &why)?;
    let status = match words[..] {
        ["retry", _] if force.is_some() => operator.force_retry(id).await,
        ["retry", _] => operator.retry(id).await,
        ["compensate", _] => operator.compensate(id).await,
        ["resolve", _, step, "done"] => operator.resolve_done(id, step).await,
        ["resolve", _, step, "never"] => operator.resolve_never(id, step).await,
        ["skip", _, step] => operator.skip(id, step).await,
        ["cancel", _] => operator.cancel(id).await,
        ["abandon", _] => operator.abandon(id).await,
        _ => return Err("no such command: see the head of this example".into()),
    };
    println!("{id} is {} now", status?);
    Ok(())
}

/// One line for each saga, page by page.
async fn list(admin: &SagaAdmin, status: Option<SagaStatus>, name: Option<String>, older: Option<Duration>) -> Outcome {
    let mut filter = SagaFilter {
        status,
        name,
        older_than: older,
        ..SagaFilter::default()
    };
    println!("{:<32}  {:<12} {:<8} {:>8}  last error", "id", "status", "saga", "age");
    loop {
        let page = admin.list(&filter).await?;
        for saga in &page.sagas {
            let age = page.now.saturating_sub(saga.created).as_secs();
            let (id, status, name) = (saga.id, saga.status.as_str(), &saga.definition.name);
            let error = saga.error.as_deref().unwrap_or("-").escape_debug();
            println!("{id}  {status:<12} {name:<8} {age:>7}s  {error}");
        }
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return Ok(()),
        }
    }
}

fn named(status: &str) -> Outcome<SagaStatus> {
    let found = SagaStatus::ALL.into_iter().find(|known| known.as_str() == status);
    Ok(found.ok_or_else(|| format!("no saga is ever `{status}`"))?)
}

/// Takes an option and its value out of the arguments.
fn option(args: &mut Vec<String>, name: &str) -> Option<String> {
    let at = args.iter().position(|arg| arg == name)?;
    args.remove(at);
    (at < args.len()).then(|| args.remove(at))
}
