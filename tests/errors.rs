//! One flat error type through a whole stack, whatever that type is: each kind of user, plainly and as a Tower stack
//! four layers deep, inside `tokio::spawn`.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use steadfast::fallback::Fallback;
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use steadfast::{Error, Rejected, RejectedKind, Verdict};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type BoxError = Box<dyn StdError + Send + Sync>;

const LIMIT: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("no such card: {0}")]
    NoSuchCard(u32),
    #[error("the card was declined")]
    Declined,
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// The policies of one stack: a fallback for the whole, a total timeout, a retry, and a timeout for each attempt.
macro_rules! policies {
    ($retry:expr, $fallback:expr) => {
        (
            $fallback,
            Timeout::total(Duration::from_secs(5)),
            $retry.build().unwrap(),
            Timeout::attempt(LIMIT),
        )
    };
}

/// Calls `operation` through the stack plainly, inside a spawned task.
macro_rules! plain {
    ($policies:expr, $operation:expr) => {{
        let (fallback, total, retry, attempt) = $policies;
        let operation = $operation;
        tokio::spawn(async move {
            fallback
                .call(total.call(retry.call(|| attempt.call(operation(7)))))
                .await
        })
        .await
        .unwrap()
    }};
}

/// The same as a Tower stack, inside a spawned task.
macro_rules! tower {
    ($policies:expr, $operation:expr) => {{
        let (fallback, total, retry, attempt) = $policies;
        let service = ServiceBuilder::new()
            .layer(fallback)
            .layer(total)
            .layer(retry)
            .layer(attempt)
            .service(service_fn($operation));
        tokio::spawn(service.oneshot(7)).await.unwrap()
    }};
}

#[tokio::test(start_paused = true)]
async fn an_enum_with_one_variant_for_rejections() {
    async fn charge(card: u32) -> Result<&'static str, ApiError> {
        if card == 7 {
            std::future::pending().await
        } else {
            Err(ApiError::NoSuchCard(card))
        }
    }
    let policies = || {
        policies!(
            Retry::exponential(LIMIT).retry_if(|e: &ApiError| !matches!(e, ApiError::Declined)),
            Fallback::from_error(|e: ApiError| Err(e))
        )
    };
    for result in [plain!(policies(), charge), tower!(policies(), charge)] {
        let ApiError::Rejected(rejected) = result.unwrap_err() else {
            panic!("the operation hangs")
        };
        assert_eq!(rejected.kind(), RejectedKind::TimedOut);
        assert_eq!(rejected.policy(), "attempt timeout");
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_error() {
    async fn hang(_: u32) -> Result<(), BoxError> {
        std::future::pending().await
    }
    let policies = || {
        policies!(
            Retry::exponential(LIMIT).boxed_errors(),
            Fallback::builder().boxed_errors().from_error(|e: BoxError| Err(e))
        )
    };
    for result in [plain!(policies(), hang), tower!(policies(), hang)] {
        let error = result.unwrap_err();
        assert_eq!(Rejected::find(error.as_ref()).unwrap().kind(), RejectedKind::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn anyhow() {
    async fn hang(_: u32) -> anyhow::Result<()> {
        std::future::pending().await
    }
    let policies = || {
        policies!(
            Retry::exponential(LIMIT).boxed_errors(),
            Fallback::builder()
                .boxed_errors()
                .from_error(|e: anyhow::Error| Err(e.context("charging the card")))
        )
    };
    for result in [plain!(policies(), hang), tower!(policies(), hang)] {
        let error = result.unwrap_err();
        assert_eq!(Rejected::find(error.as_ref()).unwrap().kind(), RejectedKind::TimedOut);
        assert_eq!(
            format!("{error:#}"),
            "charging the card: timed out at `attempt timeout`: no answer within 50ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_wrapped_once() {
    type ClientError = Error<reqwest::Error>;
    async fn hang(_: u32) -> Result<reqwest::Response, ClientError> {
        let foreign: Result<_, reqwest::Error> = std::future::pending().await;
        foreign.map_err(Error::Inner)
    }
    let policies = || {
        policies!(
            Retry::exponential(LIMIT)
                .retry_if(|e: &ClientError| matches!(e, Error::Inner(inner) if inner.is_connect())),
            Fallback::from_error(|e: ClientError| Err(e))
        )
    };
    for result in [plain!(policies(), hang), tower!(policies(), hang)] {
        assert!(matches!(result.unwrap_err(), Error::Rejected(r) if r.policy() == "attempt timeout"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_no_error() {
    #[derive(Debug, PartialEq)]
    enum Code {
        Busy,
        Late,
    }
    impl From<Rejected> for Code {
        fn from(_: Rejected) -> Self {
            Self::Late
        }
    }
    async fn busy(n: u32) -> Result<(), Code> {
        if n == 7 { Err(Code::Busy) } else { Ok(()) }
    }
    let policies = || {
        policies!(
            Retry::exponential(LIMIT)
                .any_error()
                .retry_if(|c: &Code| *c == Code::Busy),
            Fallback::builder().any_error().from_error(|c: Code| Err(c))
        )
    };
    for result in [plain!(policies(), busy), tower!(policies(), busy)] {
        assert_eq!(result, Err(Code::Busy));
    }
}

#[tokio::test]
async fn a_string() {
    let retry = Retry::constant(Duration::ZERO).any_error().build().unwrap();
    let mut calls = 0;
    let result: Result<(), String> = retry
        .call(|| {
            calls += 1;
            async { Err("no".to_owned()) }
        })
        .await;
    assert_eq!((result, calls), (Err("no".to_owned()), 3));
}

#[test]
fn a_rejection_is_found_however_it_is_wrapped() {
    #[derive(Debug, thiserror::Error)]
    enum Named {
        #[error("refused")]
        Refused(#[source] Rejected),
    }
    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("payment")]
        Payment(#[from] ApiError),
        #[error(transparent)]
        Transparent(Box<Nested>),
    }
    let rejected = || Rejected::circuit_open("payments", Duration::from_secs(3));
    let wrapped: Vec<BoxError> = vec![
        rejected().into(),
        ApiError::Rejected(rejected()).into(),
        Named::Refused(rejected()).into(),
        Nested::Payment(rejected().into()).into(),
        Nested::Transparent(Box::new(Nested::Payment(rejected().into()))).into(),
        io::Error::other(rejected()).into(),
        io::Error::other(ApiError::Rejected(rejected())).into(),
        io::Error::other(Named::Refused(rejected())).into(),
        Error::<io::Error>::Rejected(rejected()).into(),
        Error::Inner(io::Error::other(rejected())).into(),
        Error::Inner(ApiError::Rejected(rejected())).into(),
        BoxError::from(io::Error::other(BoxError::from(ApiError::Rejected(rejected())))),
        anyhow::Error::from(rejected()).into(),
        anyhow::Error::from(ApiError::Rejected(rejected()))
            .context("while paying")
            .into(),
        io::Error::other(anyhow::Error::from(Named::Refused(rejected())).context("while paying")).into(),
    ];
    for error in wrapped {
        let found = Rejected::find(error.as_ref()).unwrap_or_else(|| panic!("not found in {error:?}"));
        assert_eq!(found.kind(), RejectedKind::CircuitOpen);
        assert_eq!(found.policy(), "payments");
        assert_eq!(found.retry_after(), Some(Duration::from_secs(3)));
        assert!(!found.reached_inner());
        let chain = format!("{:#}", anyhow::Error::from_boxed(error));
        assert_eq!(chain.matches("it may be tried again in 3s").count(), 1, "{chain}");
        assert!(
            chain.matches("circuit breaker `payments` is open").count() <= 1,
            "{chain}"
        );
    }
    assert!(Rejected::find(&ApiError::Declined).is_none());
}

#[tokio::test]
async fn the_first_io_error_is_judged_by_its_kind() {
    async fn attempts(kind: io::ErrorKind, wrap: fn(io::Error) -> BoxError) -> u32 {
        let retry = Retry::constant(Duration::ZERO).boxed_errors().build().unwrap();
        let mut attempts = 0;
        let failed: Result<(), _> = retry
            .call(|| {
                attempts += 1;
                async { Err(wrap(kind.into())) }
            })
            .await;
        failed.unwrap_err();
        attempts
    }
    let wraps: [fn(io::Error) -> BoxError; 4] = [
        |e| e.into(),
        |e| Error::Inner(e).into(),
        |e| anyhow::Error::from(e).context("reading").into(),
        |e| io::Error::other(e).into(),
    ];
    for wrap in &wraps[..3] {
        assert_eq!(attempts(io::ErrorKind::NotFound, *wrap).await, 1);
        assert_eq!(attempts(io::ErrorKind::ConnectionReset, *wrap).await, 3);
    }
    assert_eq!(
        attempts(io::ErrorKind::NotFound, wraps[3]).await,
        3,
        "the outer one is of the kind `Other`"
    );
}

#[tokio::test]
async fn rejections_are_shown_to_closures_only_on_request() {
    let open = || async { Err::<(), _>(ApiError::from(Rejected::circuit_open("payments", Duration::ZERO))) };
    let mut calls = 0;
    let by_table = Retry::constant(Duration::ZERO)
        .retry_if(|_: &ApiError| true)
        .build()
        .unwrap();
    by_table
        .call(|| {
            calls += 1;
            open()
        })
        .await
        .unwrap_err();
    assert_eq!(calls, 1);
    let opted_in = Retry::constant(Duration::ZERO)
        .judge_rejections()
        .retry_if(|_: &ApiError| true)
        .build()
        .unwrap();
    opted_in
        .call(|| {
            calls += 1;
            open()
        })
        .await
        .unwrap_err();
    assert_eq!(calls, 4);
}

#[tokio::test(start_paused = true)]
async fn a_retried_rejection_waits_for_its_own_time() {
    let started = tokio::time::Instant::now();
    let retry = Retry::constant(Duration::ZERO)
        .judge_rejections()
        .retry_if(|_: &Rejected| true)
        .build()
        .unwrap();
    let open = || async { Err::<(), _>(Rejected::circuit_open("payments", Duration::from_secs(2))) };
    retry.call(open).await.unwrap_err();
    let elapsed = started.elapsed();
    assert!(
        (Duration::from_secs(4)..=Duration::from_millis(4_402)).contains(&elapsed),
        "{elapsed:?}"
    );
}

/// Three executions that end in an open circuit were sent all the same.
#[tokio::test]
async fn a_rejection_after_an_attempt_that_was_sent_says_so() {
    let retry = Retry::constant(Duration::ZERO).build().unwrap();
    let call = |sent: u32| {
        let retry = retry.clone();
        async move {
            let mut attempt = 0;
            let result: Result<(), ApiError> = retry
                .call(|| {
                    attempt += 1;
                    let error = if attempt <= sent {
                        ApiError::Declined
                    } else {
                        Rejected::circuit_open("payments", Duration::ZERO).into()
                    };
                    async { Err(error) }
                })
                .await;
            Rejected::find(&result.unwrap_err()).unwrap().reached_inner()
        }
    };
    assert!(!call(0).await);
    assert!(call(1).await);
    assert!(call(2).await);
}

#[tokio::test]
async fn one_policy_serves_many_response_types() {
    let retry = Retry::constant(Duration::ZERO)
        .retry_if(|e: &ApiError| matches!(e, ApiError::Declined))
        .build()
        .unwrap();
    assert_eq!(retry.call(|| async { Ok::<_, ApiError>(1) }).await.unwrap(), 1);
    assert_eq!(
        retry.call(|| async { Ok::<_, ApiError>("user") }).await.unwrap(),
        "user"
    );
}

#[tokio::test]
async fn an_erased_policy_has_a_type_that_can_be_written_down() {
    struct Client {
        retry: Retry<steadfast::Erased<u32, ApiError>>,
    }
    let retry = Retry::constant(Duration::ZERO)
        .classify(|r: Result<&u32, &ApiError>| {
            if r.is_ok_and(|n| *n > 2) {
                Verdict::Success
            } else {
                Verdict::TRANSIENT
            }
        })
        .build()
        .unwrap();
    let client = Client { retry: retry.erased() };
    let mut n = 0;
    let answer = client
        .retry
        .call(|| {
            n += 1;
            async move { Ok(n) }
        })
        .await;
    assert_eq!(answer.unwrap(), 3);
}

#[test]
fn nothing_asks_for_more_than_it_needs() {
    fn layered<S, Req>(service: S) -> impl Service<Req, Response = S::Response, Error = S::Error>
    where
        S: Service<Req, Error: StdError + From<Rejected> + 'static> + Clone,
        Req: Clone,
    {
        let retry = Retry::default();
        ServiceBuilder::new()
            .layer(retry)
            .layer(Timeout::new(LIMIT))
            .service(service)
    }
    let _ = layered::<_, u32>(service_fn(|_: u32| async { Ok::<_, ApiError>(()) }));
}

#[tokio::test]
async fn an_erased_fallback_has_a_type_that_can_be_written_down() {
    use steadfast::fallback::ErasedHandler;
    struct Client {
        fallback: Fallback<ErasedHandler<u32, ApiError>, steadfast::Erased<u32, ApiError>>,
    }
    let declined = |error: &ApiError| matches!(error, ApiError::Declined);
    let answer = |_: ApiError| async { Ok::<_, ApiError>(7) };
    let fallback = Fallback::builder().fallback_if(declined).from_error_async(answer);
    let client = Client {
        fallback: fallback.erased(),
    };
    let call = |error| client.fallback.call(async { Err(error) });
    assert_eq!(call(ApiError::Declined).await.unwrap(), 7);
    assert!(matches!(
        call(ApiError::NoSuchCard(1)).await,
        Err(ApiError::NoSuchCard(1))
    ));
    assert_eq!(call(Rejected::bulkhead_full("lanes").into()).await.unwrap(), 7);
}
