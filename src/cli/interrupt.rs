//! Ctrl-C and SIGTERM: the first asks to end in good order; another one, later, ends at once.
//!
//! Shells and service managers may well send both at the same time, so what follows within a second is the same wish.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::sync::watch;

/// The exit code of a process that ends without order, as shells have it: 128 + SIGINT.
const AT_ONCE: i32 = 130;
/// How long signals are one and the same wish.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Tells whether the user wants an end.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on. Call it inside a tokio runtime.
    pub fn listen() -> std::io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let mut signals = Signals::listen()?;
        tokio::spawn(async move {
            signals.next().await;
            let _ = sender.send(true);
            let again = async {
                loop {
                    signals.next().await
                }
            };
            let _ = tokio::time::timeout(ONE_WISH, again).await;
            if std::io::stderr().is_terminal() {
                eprintln!("finishing what is under way; Ctrl-C again to stop at once");
            }
            signals.next().await;
            std::process::exit(AT_ONCE);
        });
        Ok(Self(receiver))
    }

    /// Waits until an end is wanted.
    pub async fn wanted(&self) {
        // Without its task nobody can want an end any more.
        if self.0.clone().wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
