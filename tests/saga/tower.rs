//! The Tower face.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::MemoryJournal;
use steadfast::saga::{
    Cause, Cx, Saga, SagaEngine, SagaError, SagaLayer, SagaService, ServiceError, Step, StepError, StepResult,
    call_service, call_service_by,
};
use steadfast::timeout::Timeout;
use steadfast::{Effect, Key, Rejected};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u32,
    reserved: bool,
    receipt: Option<String>,
}

fn order(number: u32) -> Order {
    Order {
        number,
        ..Order::default()
    }
}

fn key(order: &Order) -> Key {
    Key::new("shop", order.number.to_string())
}

async fn reserve(cx: &mut Cx<Order>) -> StepResult {
    cx.reserved = true;
    Ok(())
}

async fn release(cx: &mut Cx<Order>) -> StepResult {
    cx.reserved = false;
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "what folds a response may refuse it")]
fn kept(cx: &mut Cx<Order>, receipt: String) -> StepResult {
    cx.receipt = Some(receipt);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the bank says no")]
struct Declined;

/// Boxed on purpose: the error that most stacks of layers have.
type BoxError = tower::BoxError;

#[tokio::test(start_paused = true)]
async fn a_request_joins_the_saga_that_there_is_under_its_key() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let saga = Saga::<Order>::builder("order")
        .step("reserve", reserve, release)
        .pivot("charge", async move |cx: &mut Cx<Order>| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cx.receipt = Some(format!("run {}", counted.fetch_add(1, Ordering::Relaxed) + 1));
            Ok(())
        })
        .build()
        .unwrap();
    let engine = SagaEngine::builder(MemoryJournal::new())
        .register(&saga)
        .build()
        .unwrap();
    let mut service = SagaService::new(&engine, &saga, key);
    let (first, second) = (service.call(order(1)), service.call(order(1)));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(
        service.clone().oneshot(order(1)).await.unwrap().receipt.unwrap(),
        "run 1"
    );
    assert_eq!(service.oneshot(order(2)).await.unwrap().receipt.unwrap(), "run 2");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_the_service_stops_waiting_and_not_the_saga() {
    let saga = Saga::<Order>::builder("order")
        .step("reserve", reserve, release)
        .pivot("charge", async |cx: &mut Cx<Order>| {
            tokio::time::sleep(Duration::from_secs(30)).await;
            cx.receipt = Some("late".to_owned());
            Ok(())
        })
        .build()
        .unwrap();
    let engine = SagaEngine::builder(MemoryJournal::new())
        .register(&saga)
        .build()
        .unwrap();
    let service = SagaService::new(&engine, &saga, key);
    let boxed = service.clone().map_err(BoxError::from);
    let hurried = Timeout::new(Duration::from_secs(1)).layer(boxed);
    let error = hurried.oneshot(order(1)).await.unwrap_err();
    assert!(Rejected::find(&*error).is_some(), "{error:?}");
    let done = service.oneshot(order(1)).await.unwrap();
    assert_eq!(done.receipt.as_deref(), Some("late"));
}

#[tokio::test]
async fn what_a_service_s_error_means_is_unknown_unless_nothing_was_sent_or_somebody_says() {
    async fn fate<S>(service: S, classify: Option<fn(BoxError) -> StepError>) -> (Effect, bool)
    where
        S: tower::Service<u32, Response = String, Error = BoxError, Future: Send> + Clone + Send + 'static,
    {
        let request = |cx: &Cx<Order>| cx.number;
        let failed = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&failed);
        let builder = Saga::<Order>::builder("order").on_event(move |event| {
            if let steadfast::saga::Event::Failed { effect, retryable, .. } = event.event {
                *heard.lock().unwrap() = Some((*effect, *retryable));
            }
        });
        let step = match classify {
            None => Step::read_only("call", call_service(service, request, kept)),
            Some(classify) => Step::read_only("call", call_service_by(service, request, kept, classify)),
        };
        let saga = builder.with(step.attempts(1)).build().unwrap();
        saga.run(order(1)).await.unwrap_err();
        let fate = *failed.lock().unwrap();
        fate.unwrap()
    }

    let declined = service_fn(async |_: u32| Err::<String, BoxError>(Declined.into()));
    assert_eq!(fate(declined, None).await, (Effect::Maybe, true));
    let says_no: fn(BoxError) -> StepError = |error| match error.downcast::<Declined>() {
        Ok(declined) => StepError::failed(*declined),
        Err(other) => StepError::unknown(other),
    };
    assert_eq!(fate(declined, Some(says_no)).await, (Effect::None, false));
    let full = steadfast::bulkhead::Bulkhead::builder("one")
        .max_concurrent(1)
        .build()
        .unwrap();
    let _busy = full.try_acquire().unwrap();
    let rejected = full.layer(declined);
    assert_eq!(fate(rejected, None).await, (Effect::None, true));
}

fn layered(
    engine: &SagaEngine,
    fails: bool,
) -> impl tower::Service<Order, Response = Order, Error = ServiceError> + Clone {
    let request = |cx: &Cx<Order>| cx.number;
    let classify = |error: BoxError| StepError::failed(error);
    let layer = SagaLayer::pivot("charge", request, kept)
        .classify(classify)
        .within(
            engine,
            |charge| Saga::builder("order").step("reserve", reserve, release).with(charge),
            key,
        )
        .unwrap();
    layer.layer(service_fn(move |number: u32| async move {
        if fails {
            return Err(Declined);
        }
        Ok(format!("paid {number}"))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_service_is_the_pivot() {
    let engine = SagaEngine::builder(MemoryJournal::new()).build().unwrap();
    let done = layered(&engine, false).oneshot(order(7)).await.unwrap();
    assert!(done.reserved);
    assert_eq!(done.receipt.as_deref(), Some("paid 7"));
}

#[tokio::test(start_paused = true)]
async fn where_the_wrapped_service_says_no_the_steps_before_it_are_undone() {
    let engine = SagaEngine::builder(MemoryJournal::new()).build().unwrap();
    let error = layered(&engine, true).oneshot(order(7)).await.unwrap_err();
    let ServiceError::Ended(SagaError::Compensated(report)) = error else {
        panic!("{error:?}");
    };
    let Some(Cause::Failed(failure)) = report.cause else {
        panic!("{report:?}");
    };
    assert_eq!(
        (failure.step.as_str(), failure.error.to_string().as_str()),
        ("charge", "the bank says no")
    );
}

#[tokio::test(start_paused = true)]
async fn a_layered_saga_is_taken_over_once_the_layer_is_applied_again() {
    let journal = MemoryJournal::new();
    let dead = SagaEngine::builder(journal.clone()).build().unwrap();
    let hangs = SagaLayer::pivot("charge", |cx: &Cx<Order>| cx.number, kept)
        .within(
            &dead,
            |charge| Saga::builder("order").step("reserve", reserve, release).with(charge),
            key,
        )
        .unwrap();
    let hung = hangs.layer(service_fn(async |_: u32| {
        std::future::pending::<()>().await;
        Ok::<String, Infallible>(String::new())
    }));
    let _call = tokio::spawn(hung.oneshot(order(7)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    dead.shutdown(Duration::ZERO).await;
    let engine = SagaEngine::builder(journal).build().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let service = layered(&engine, false);
    assert_eq!(
        service.oneshot(order(7)).await.unwrap().receipt.as_deref(),
        Some("paid 7")
    );
}

#[tokio::test]
async fn a_layer_whose_saga_leaves_the_pivot_out_is_refused() {
    let engine = SagaEngine::builder(MemoryJournal::new()).build().unwrap();
    let refused = SagaLayer::pivot("charge", |cx: &Cx<Order>| cx.number, kept).within(
        &engine,
        |_| Saga::builder("order").step("reserve", reserve, release),
        key,
    );
    let error = refused.err().unwrap();
    assert_eq!(error.setting(), "pivot");
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_applied_twice_calls_the_first_service() {
    let engine = SagaEngine::builder(MemoryJournal::new()).build().unwrap();
    let layer = SagaLayer::pivot("charge", |cx: &Cx<Order>| cx.number, kept)
        .within(&engine, |charge| Saga::builder("order").with(charge), key)
        .unwrap();
    let answers = |who: &'static str| service_fn(move |_: u32| async move { Ok::<_, Infallible>(who.to_owned()) });
    let first = layer.layer(answers("first"));
    let second = layer.clone().layer(answers("second"));
    assert_eq!(
        second.oneshot(order(1)).await.unwrap().receipt.as_deref(),
        Some("first")
    );
    assert_eq!(first.oneshot(order(2)).await.unwrap().receipt.as_deref(), Some("first"));
}
