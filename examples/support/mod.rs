//! The server that the client examples call.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// Starts a server on a free port of this machine, and returns its URL.
///
/// Of each path it answers the first two requests with 503, and then with the number of the request.
pub(crate) async fn flaky_server() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let requests = Arc::new(Mutex::new(HashMap::new()));
    let answer = async move |method: Method, uri: Uri| {
        let mut requests = requests.lock().await;
        let number: &mut u32 = requests.entry(uri.path().to_owned()).or_default();
        *number += 1;
        println!("    server: {method} {uri}, request {number}");
        match *number {
            1 | 2 => (StatusCode::SERVICE_UNAVAILABLE, "busy\n".to_owned()),
            number => (StatusCode::OK, format!("here you are, at request {number}\n")),
        }
    };
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(url)
}
