//! Ctrl-C: the first asks to end in good order, with a summary; the next ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user wants an end.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, String> {
        let interrupt = Self::default();
        let wanted = Arc::clone(&interrupt.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|error| format!("cannot listen for Ctrl-C: {error}"))?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if wanted.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                    eprintln!("ending; Ctrl-C again to end at once");
                }
            });
        });
        Ok(interrupt)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
