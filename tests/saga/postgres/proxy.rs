//! A network between a client and a server that can be slow, or gone.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(super) struct Proxy {
    pub(super) port: u16,
    hold: watch::Sender<bool>,
    accepting: AbortHandle,
    connections: std::sync::Arc<Mutex<Vec<AbortHandle>>>,
}

impl Proxy {
    /// In front of the server at `port`.
    pub(super) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (hold, is_held) = watch::channel(false);
        let connections = std::sync::Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (own, accepted) = (listener.local_addr().unwrap().port(), connections.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let connection = tokio::spawn(forward(client, port, is_held.clone()));
                accepted.lock().unwrap().push(connection.abort_handle());
            }
        });
        Self {
            port: own,
            hold,
            accepting: accepting.abort_handle(),
            connections,
        }
    }

    /// From here on the server is not heard.
    pub(super) fn hold(&self) {
        self.hold.send_replace(true);
    }

    /// Cuts every connection. New ones are forwarded, and heard.
    pub(super) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
        self.hold.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn forward(client: TcpStream, port: u16, mut held: watch::Receiver<bool>) {
    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = tokio::io::copy(&mut from_client, &mut to_server);
    let back = async {
        let mut buffer = [0; 4096];
        loop {
            let read = from_server.read(&mut buffer).await?;
            let _ = held.wait_for(|held| !held).await;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
}
