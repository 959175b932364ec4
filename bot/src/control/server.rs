//! The bot's end of the socket.

use std::{convert::Infallible, io, path::Path, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, State, connect_info::Connected},
    response::Response,
    routing::post,
    serve::IncomingStream,
};
use deploy_engine::job::JobId;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{Frame, Request, socket};
use crate::{
    bot::{Bot, Place},
    chat::{Subject, office::Update},
    jobs::{Ended, finished_line, result_word},
    rights::{Identity, Role},
};

/// A command is a line; this is far more.
const BODY_LIMIT_BYTES: usize = 16 * 1024;
/// Frames that may wait for a slow reader.
const FRAMES: usize = 64;

/// Who is at the other end, as the kernel says.
#[derive(Clone, Debug)]
struct Peer(Option<Identity>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(identity_of(stream.io()))
    }
}

fn identity_of(stream: &UnixStream) -> Option<Identity> {
    let credentials = stream.peer_cred().ok()?;
    Some(Identity::unix(&user_name(credentials.uid())))
}

/// The name in `/etc/passwd`, or the number: the bot must not need a directory service to know root.
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, uid).unwrap_or_else(|| uid.to_string())
}

/// The name of whoever runs this process.
pub fn own_user_name() -> String {
    use std::os::unix::fs::MetadataExt;
    // The owner of a process's own folder is its effective user.
    std::fs::metadata("/proc/self").map_or_else(|_| "nobody".to_owned(), |me| user_name(me.uid()))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Serves until told to stop. The single-instance lock is held, so a socket that lies there is a dead bot's.
pub async fn serve(bot: Arc<Bot>, state_dir: &Path, stop: CancellationToken) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let path = socket(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The group of the state directory may talk to the bot; what each may do, `people` says.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    let app = Router::new()
        .route("/v1/command", post(command))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(bot)
        .into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    // A missing socket says "not running" better than a dead one.
    let _ = std::fs::remove_file(&path);
    served
}

async fn command(
    State(bot): State<Arc<Bot>>,
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
    Json(request): Json<Request>,
) -> Response {
    let (send, receive) = mpsc::channel::<Frame>(FRAMES);
    tokio::spawn(async move {
        let who = who.unwrap_or_else(|| Identity::unix("nobody"));
        run(&bot, &who, &request, &send).await;
    });
    let lines = futures::stream::unfold(receive, |mut receive| async {
        let frame = receive.recv().await?;
        let mut line = serde_json::to_vec(&frame).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), receive))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json_lines = axum::http::HeaderValue::from_static("application/x-ndjson");
    response
        .headers_mut()
        .insert(axum::http::header::CONTENT_TYPE, json_lines);
    response
}

/// A reader that went away stops nothing but the telling.
async fn run(bot: &Bot, who: &Identity, request: &Request, send: &mpsc::Sender<Frame>) {
    let mut updates = bot.office.follow();
    let place = Place {
        rooms: Vec::new(),
        ceiling: Role::Admin,
        prefix: String::new(),
        name: "control".to_owned(),
    };
    let answer = bot.handle(who, place, &request.line).await;
    let follow = answer.follow.clone().filter(|_| request.follow);
    if send
        .send(Frame::Answer {
            answer: Box::new(answer),
        })
        .await
        .is_err()
    {
        return;
    }
    if let Some(job) = follow {
        let ended = follow_job(bot, &job, &mut updates, send).await;
        // The reader may have gone: the job is not.
        let _ = send.send(ended).await;
    }
}

async fn follow_job(
    bot: &Bot,
    job: &JobId,
    updates: &mut broadcast::Receiver<Update>,
    send: &mpsc::Sender<Frame>,
) -> Frame {
    let subject = Subject::job(job);
    let wait = bot.jobs.wait(job);
    tokio::pin!(wait);
    let ended = loop {
        tokio::select! {
            biased;
            update = updates.recv() => pass(update, &subject, send).await,
            ended = &mut wait => break ended,
        }
    };
    bot.told.caught_up().await;
    loop {
        match updates.try_recv() {
            Ok(update) => pass(Ok(update), &subject, send).await,
            Err(broadcast::error::TryRecvError::Lagged(_)) => {}
            Err(_) => break,
        }
    }
    match ended {
        Ok(Ended::Finished(result)) => {
            let word = result_word(&result);
            let how =
                finished_line(&result).map_or(word.to_owned(), |why| format!("{word}: {why}"));
            Frame::Ended {
                ok: result == deploy_engine::job::JobResult::Succeeded,
                how,
            }
        }
        Ok(Ended::Interrupted(how)) => Frame::Ended { ok: false, how },
        Err(error) => Frame::Ended {
            ok: false,
            how: error.to_string(),
        },
    }
}

async fn pass(
    update: Result<Update, broadcast::error::RecvError>,
    subject: &Subject,
    send: &mpsc::Sender<Frame>,
) {
    match update {
        Ok(update) if update.subject() == subject => {
            let _ = send.send(Frame::Update { update }).await;
        }
        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
        // The office lives as long as the bot.
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_without_a_directory_service() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
