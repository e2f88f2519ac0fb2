//! A bad night, and how it ends: three orders get stuck, somebody looks at them, and an engine goes on with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::SqliteJournal;
use steadfast::saga::{Cx, Saga, SagaAdmin, SagaEngine, SagaId, Step, StepError, StepResult};
use steadfast::{Backoff, Key};

use super::{Outcome, carry_out};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    item: String,
}

/// It is night: the stock service is down, and so is the parcel service.
#[derive(Default)]
struct Services {
    awake: AtomicBool,
}

type Run = Cx<Order, Arc<Services>>;

fn awake(cx: &Run) -> StepResult {
    if cx.deps().awake.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(StepError::not_sent("connection refused"))
    }
}

async fn reserve(_: &mut Run) -> StepResult {
    Ok(())
}

async fn release(cx: &mut Run) -> StepResult {
    awake(cx)
}

async fn charge(cx: &mut Run) -> StepResult {
    match cx.item.as_str() {
        "a yacht" => Err(StepError::failed("the card was declined")),
        "a lamp" => Err(StepError::fatal_unknown("the connection broke before the answer")),
        _ => Ok(()),
    }
}

async fn ship(cx: &mut Run) -> StepResult {
    awake(cx)
}

fn orders(services: &Arc<Services>) -> Outcome<Saga<Order, Arc<Services>>> {
    let soon = || Backoff::constant(Duration::from_millis(10));
    let orders = Saga::builder_with("order", Arc::clone(services))
        .with(Step::compensatable("reserve", reserve, release).undo_backoff(soon()))
        .with(Step::pivot("charge", charge))
        .with(Step::retriable("ship", ship).backoff(soon()));
    Ok(orders.build()?)
}

pub(crate) async fn run() -> Outcome {
    let folder = std::env::temp_dir().join(format!("steadfast-saga-admin-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("orders.db");
    let journal = SqliteJournal::open(&path).await?;
    journal.migrate().await?;

    let services = Arc::<Services>::default();
    let orders = orders(&services)?;
    let engine = SagaEngine::builder(journal.clone()).register(&orders);
    let engine = engine.poll_interval(Duration::from_millis(50)).build()?;
    let mut ids = Vec::new();
    for item in ["a book", "a yacht", "a lamp"] {
        let order = Order { item: item.to_owned() };
        let started = engine.start(&orders, &Key::new("demo", item), order).await?;
        ids.push(started.id());
        assert!(started.await.is_err(), "the services are down");
    }
    let [book, yacht, lamp] = ids[..] else {
        return Err("there are three orders".into());
    };

    // The admin knows the journal, and nothing of the code above.
    let admin = SagaAdmin::new(journal);
    let command = async |line: &str| say(&admin, &path.display().to_string(), line).await;
    command("list stuck").await?;
    command(&format!("inspect {yacht}")).await?;
    println!("\n-- a step after the pivot is never undone: this is refused");
    command(&format!("compensate {book} --who ada --why in_a_hurry"))
        .await
        .unwrap_or_else(|error| {
            println!("{error}");
        });
    println!("\n-- morning: the services are back");
    services.awake.store(true, Ordering::Relaxed);
    command(&format!("retry {book} --who ada --why the_parcel_service_is_back")).await?;
    command(&format!("compensate {yacht} --who ada --why the_stock_service_is_back")).await?;
    command(&format!("resolve {lamp} charge never --who ada --why the_bank_says_so")).await?;
    for id in ids {
        ended(&admin, id).await?;
    }
    command("list").await?;
    command(&format!("inspect {yacht}")).await?;
    engine.shutdown(Duration::from_secs(1)).await;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Carries out a command as if it had been typed.
async fn say(admin: &SagaAdmin, path: &str, line: &str) -> Outcome {
    println!("\n$ saga_admin {path} {line}");
    carry_out(admin, line.split(' ').map(str::to_owned).collect()).await
}

/// Waits until an engine has brought a saga to its end.
async fn ended(admin: &SagaAdmin, id: SagaId) -> Outcome {
    for _ in 0..200 {
        if admin.inspect(id).await?.head.status.is_settled() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("{id} has not ended").into())
}
