//! A wire between a bot and its store that can be cut: what was sent is gone, and nobody is told.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};

pub struct Wire {
    port: u16,
    cut: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Wire {
    /// To a port of loopback.
    pub fn to(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let own = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        runtime.spawn(accept(listener, port, cut.subscribe()));
        Self {
            port: own,
            cut,
            _runtime: runtime,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn accept(listener: TcpListener, port: u16, cut: watch::Receiver<bool>) {
    while let Ok((near, _)) = listener.accept().await {
        let cut = cut.clone();
        tokio::spawn(async move {
            until_whole(&mut cut.clone()).await;
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(
                pass(near_in, far_out, cut.clone()),
                pass(far_in, near_out, cut)
            );
        });
    }
}

async fn until_whole(cut: &mut watch::Receiver<bool>) {
    let _ = cut.wait_for(|cut| !*cut).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        // It arrives when the wire is whole again, as TCP would have it.
        until_whole(&mut cut).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}
