use std::hint::black_box;
use std::io;

use seatbelt::ResilienceContext;
use steadfast::fallback::Fallback;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_resilience::fallback::FallbackLayer;

use super::inner::{call, serve};
use super::{Limit, Row, ours, peer};
use crate::measure::{Sample, at_once, each, on_runtime, request_at_once};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "fallback not taken, plain",
            limit: Limit::Prototype(10),
            contenders: vec![ours("steadfast", plain)],
        },
        Row {
            name: "fallback not taken, Tower",
            limit: Limit::Missed {
                prototype: 10,
                reached: 56,
            },
            contenders: vec![
                ours("steadfast", layer),
                peer("seatbelt", seatbelt_layer),
                peer("tower-resilience", tower_resilience),
            ],
        },
    ]
}

fn plain(calls: u64) -> Sample {
    on_runtime(async {
        let fallback = black_box(Fallback::value(0_u64));
        each(calls, |context| at_once(context, fallback.call(call())))
    })
}

fn layer(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = Fallback::value(black_box(0_u64)).layer(service_fn(serve));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn seatbelt_layer(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, io::Result<u64>>::new(tick::Clock::new_tokio());
        let fallback = seatbelt::fallback::Fallback::layer("fallback", &context);
        let fallback = fallback.should_fallback(Result::is_err).fallback(|_, _| Ok(0));
        let mut service = ServiceBuilder::new().layer(fallback).service_fn(serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    on_runtime(async {
        let fallback = FallbackLayer::<u64, u64, io::Error>::value(black_box(0));
        let mut service = ServiceBuilder::new().layer(fallback).service_fn(serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}
