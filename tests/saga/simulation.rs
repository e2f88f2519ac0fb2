//! Sagas drawn at random, whose processes die at every write.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::testing::saga::crash_everywhere;
use tokio::time::sleep;

use super::world::{End, LATEST, Order, World, balances, draw, in_order, story};

/// How many sagas; each is resumed some hundred times.
fn sagas() -> u64 {
    let given = std::env::var("SIMULATED_SAGAS")
        .ok()
        .and_then(|given| given.parse().ok());
    given.unwrap_or(60)
}

async fn simulate(seed: u64, ends: &mut BTreeMap<&'static str, u64>) -> usize {
    let world = World::default();
    let drawn = draw(seed, &world);
    let mut runs = Vec::new();
    let check = |run: &steadfast::testing::saga::Run<Order>| {
        runs.push((
            run.id,
            run.to_string(),
            End::of(&run.result),
            in_order(&run.events),
            run.events.clone(),
        ));
    };
    let deaths = crash_everywhere(&drawn.saga, Order::default(), check).await;
    sleep(LATEST).await;
    for (id, run, end, order, events) in runs {
        *ends.entry(end.name()).or_default() += 1;
        let right = order.and_then(|()| balances(&world, &drawn.facts, id, &end));
        assert!(
            right.is_ok(),
            "seed {seed}: {}: {run}\n{}",
            right.unwrap_err(),
            story(&drawn.facts, &events)
        );
    }
    let wrong = world.wrong();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    deaths
}

#[tokio::test(start_paused = true)]
async fn a_saga_survives_the_death_of_its_process_at_every_write() {
    let mut ends = BTreeMap::new();
    let mut deaths = 0;
    for seed in 0..sagas() {
        deaths += simulate(seed, &mut ends).await;
        sleep(Duration::from_millis(1)).await;
    }
    println!("figure: sagas resumed after a simulated crash: {deaths}");
    println!("ends: {ends:?}");
    assert!(ends.len() == 3, "{ends:?}");
}
