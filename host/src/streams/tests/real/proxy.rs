//! Between the collector and a server: a line that can be cut, stalled and slowed, and a server's refusal of clustered
//! collections, which none of the servers that are installed makes. Only that refusal is scripted.

use ::mongodb::bson::{RawDocumentBuf, doc};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Line {
    Open,
    /// Connections break, and new ones end at once.
    Cut,
    /// Requests arrive, answers do not.
    Deaf,
    /// Each answer waits.
    Slow(Duration),
}

pub(super) struct Proxy {
    pub(super) port: u16,
    line: watch::Sender<Line>,
    /// Commands to create a clustered collection, all refused.
    pub(super) refusals: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(server: u16) -> Proxy {
        Proxy::with(server, false).await
    }

    pub(super) async fn that_refuses_clustered_collections(server: u16) -> Proxy {
        Proxy::with(server, true).await
    }

    async fn with(server: u16, is_refusing: bool) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = watch::Sender::new(Line::Open);
        let refusals: Arc<AtomicU64> = Arc::default();
        let (watched, counted) = (line.subscribe(), is_refusing.then(|| refusals.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *watched.borrow() != Line::Cut {
                    connections.spawn(connect(client, server, watched.clone(), counted.clone()));
                }
            }
        });
        Proxy { port, line, refusals, _tasks: tasks }
    }

    pub(super) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    pub(super) fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }
}

async fn connect(
    client: TcpStream,
    server: u16,
    mut line: watch::Receiver<Line>,
    refusals: Option<Arc<AtomicU64>>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    let watched = line.clone();
    tokio::select! {
        _ = requests(from_client, to_server, to_client.clone(), refusals) => {}
        _ = answers(from_server, to_client, watched) => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    back: Arc<Mutex<OwnedWriteHalf>>,
    refusals: Option<Arc<AtomicU64>>,
) -> std::io::Result<()> {
    loop {
        let mut message = vec![0; 16];
        from.read_exact(&mut message).await?;
        let length = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize;
        message.resize(length, 0);
        from.read_exact(&mut message[16..]).await?;
        let is_clustered = message.windows(14).any(|part| part == b"clusteredIndex");
        match &refusals {
            Some(refusals) if is_clustered => {
                refusals.fetch_add(1, Ordering::SeqCst);
                back.lock().await.write_all(&refusal(&message[4..8])).await?;
            }
            _ => to.write_all(&message).await?,
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    to: Arc<Mutex<OwnedWriteHalf>>,
    line: watch::Receiver<Line>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let state = *line.borrow();
        match state {
            Line::Deaf => continue,
            Line::Slow(pause) => tokio::time::sleep(pause).await,
            Line::Open | Line::Cut => {}
        }
        to.lock().await.write_all(&buffer[..length]).await?;
    }
}

/// What MongoDB before 5.3 says.
fn refusal(request: &[u8]) -> Vec<u8> {
    let body = doc! { "ok": 0.0, "code": 40415, "codeName": "Location40415",
    "errmsg": "BSON field 'create.clusteredIndex' is an unknown field." };
    let body = RawDocumentBuf::try_from(&body).unwrap().into_bytes();
    let mut message = u32::try_from(21 + body.len()).unwrap().to_le_bytes().to_vec();
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(request);
    message.extend_from_slice(&2013_u32.to_le_bytes());
    message.extend_from_slice(&[0; 5]);
    message.extend_from_slice(&body);
    message
}
