//! What a definition refuses, and what it tells of itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use steadfast::saga::{Cx, DynStep, Saga, SagaBuilder, Step, StepError, StepFuture, StepKind, StepResult};

async fn act(_: &mut Cx<u32>) -> StepResult {
    Ok(())
}

fn saga() -> SagaBuilder<u32> {
    Saga::<u32>::builder("order")
}

#[test]
fn a_definition_that_makes_no_sense_is_refused_with_the_reason() {
    let long: &'static str = "a-name-that-is-longer-than-what-fits-into-a-header";
    let wrong = [
        ("steps", saga()),
        ("step", saga().step("a", act, act).step("a", act, act)),
        ("step", saga().step("", act, act)),
        ("step", saga().step("Charge", act, act)),
        ("step", saga().step("a:b", act, act)),
        ("step", saga().step(long, act, act)),
        ("pivot", saga().pivot("a", act).pivot("b", act)),
        ("step", saga().pivot("a", act).step("b", act, act)),
        ("retriable", saga().retriable("a", act).pivot("b", act)),
        ("attempts", saga().with(Step::pivot("a", act).attempts(0))),
        (
            "undo_attempts",
            saga().with(Step::compensatable("a", act, act).undo_attempts(0)),
        ),
        ("timeout", saga().with(Step::pivot("a", act).timeout(Duration::ZERO))),
    ];
    for (setting, saga) in wrong {
        let error = saga.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
        assert_eq!(error.policy(), "order");
    }
}

#[test]
fn a_definition_draws_itself() {
    let order = saga()
        .step("reserve", act, act)
        .pivot("charge", act)
        .retriable("ship", act)
        .build()
        .unwrap();
    let dot = order.dot();
    for line in [
        "digraph \"order\" {",
        "\"begin\" -> \"reserve\";",
        "\"reserve\" -> \"begin\" [style=dashed, label=\"undo\"];",
        "\"charge\" -> \"ship\";",
        "\"ship\" -> \"completed\";",
    ] {
        assert!(dot.contains(line), "{line} in\n{dot}");
    }
    assert_eq!(dot.matches("undo").count(), 1);
    let kinds: Vec<_> = order.steps().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [StepKind::Compensatable, StepKind::Pivot, StepKind::Retriable]);
}

#[tokio::test(start_paused = true)]
async fn steps_are_async_functions_closures_with_captures_and_what_they_need_is_at_hand() {
    struct Deps {
        price: u32,
    }
    async fn double(cx: &mut Cx<u32, Deps>) -> StepResult {
        **cx *= 2;
        Ok(())
    }
    let discount = String::from("7");
    let reduce = async move |cx: &mut Cx<u32, Deps>| {
        let discount: u32 = discount.parse()?;
        **cx += cx.deps().price - discount;
        tokio::task::yield_now().await;
        Ok(())
    };
    let saga = Saga::builder_with("price", Deps { price: 100 })
        .step("reduce", reduce, double)
        .pivot("double", double);
    let saga = saga.build().unwrap();
    let spawned = tokio::spawn(async move { saga.run(0).await });
    assert_eq!(spawned.await.unwrap().unwrap(), 186);
}

struct Add(u32);

impl DynStep<u32> for Add {
    fn act<'a>(&'a self, cx: &'a mut Cx<u32>) -> StepFuture<'a> {
        Box::pin(async move {
            **cx += self.0;
            Ok(())
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut Cx<u32>) -> StepFuture<'a> {
        Box::pin(async move {
            **cx -= self.0;
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_trait_object_is_a_step_with_its_undo_or_the_pivot() {
    let add = |n| -> Arc<dyn DynStep<u32>> { Arc::new(Add(n)) };
    let pivot = Step::object("three", add(3)).as_pivot();
    let sum = saga().with(Step::object("two", add(2))).with(pivot).build().unwrap();
    assert_eq!(sum.run(10).await.unwrap(), 15);
    let left = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&left);
    let look = async move |cx: &mut Cx<u32>| {
        *seen.lock().unwrap() = Some(**cx);
        Ok(())
    };
    let no = async |_: &mut Cx<u32>| Err(StepError::failed("no"));
    let undone = saga()
        .step("look", act, look)
        .with(Step::object("two", add(2)))
        .pivot("no", no);
    undone.build().unwrap().run(10).await.unwrap_err();
    assert_eq!(*left.lock().unwrap(), Some(10));
}

#[test]
fn an_undo_of_what_is_never_undone_is_refused() {
    let undo = async |_: &mut Cx<u32>| Ok(());
    let error = saga().with(Step::pivot("p", act).with_undo(undo)).build().unwrap_err();
    assert_eq!(error.setting(), "undo");
}
