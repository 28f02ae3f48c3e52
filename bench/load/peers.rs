//! The sink, and the floor.

use crate::wire;
use anyhow::Result;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tonic::transport::Server;

const FRAME_BYTES: u32 = 1 << 20;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Takes everything, `slow_ms` after it came, and counts bytes; whoever connects to `count` is told how many.
pub(crate) async fn sink(listen: SocketAddr, count: SocketAddr, slow_ms: u64) -> Result<()> {
    let bytes = Arc::new(AtomicU64::new(0));
    let service = wire::Sink { bytes: bytes.clone(), pause: Duration::from_millis(slow_ms) };
    let counting = tokio::net::TcpListener::bind(count).await?;
    let tell = async {
        loop {
            let (mut socket, _) = counting.accept().await?;
            socket.write_all(bytes.load(Ordering::Relaxed).to_string().as_bytes()).await?;
        }
    };
    tokio::select! {
        served = large_frames(Server::builder()).add_service(service).serve(listen) => Ok(served?),
        told = tell => told,
    }
}

/// Forwards each message unread and answers what it was answered. With gzip it does what a collector has to do:
/// decompress, and compress again at the level that the collector uses.
pub(crate) async fn floor(listen: SocketAddr, to: &str, is_gzip: bool, has_large_frames: bool) -> Result<()> {
    let channel = wire::connect(to)?.connect_lazy();
    let handler = move |message: Bytes| {
        let channel = channel.clone();
        async move {
            if is_gzip {
                let frame = wire::frame(&message, true)
                    .map_err(|error| tonic::Status::internal(error.to_string()))?;
                return wire::send(&channel, frame, true, None).await;
            }
            wire::forward(&channel, message).await
        }
    };
    let server = if has_large_frames { large_frames(Server::builder()) } else { Server::builder() };
    let mut server = server;
    server.add_service(wire::Forwarding { handler, is_gzip }).serve(listen).await?;
    Ok(())
}

fn large_frames(server: Server) -> Server {
    server
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}
