//! What SIGINT and SIGTERM do.
//!
//! Outside of training there is nothing to lose: the process ends at once with 130 or 143. During training
//! the first signal only raises a flag; training sees it after the current step, writes a checkpoint and
//! returns. A second signal ends the process at once, for whoever cannot wait.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The handlers of this process.
pub(crate) struct Signals {
    /// Whether the next signal ends the process.
    at_once: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Installs the handlers; the next signal ends the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let signals = Self {
            at_once: Arc::new(AtomicBool::new(true)),
            interrupt: Arc::new(AtomicBool::new(false)),
            received: Arc::new(AtomicUsize::new(0)),
        };
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: the second signal finds the flag that the first has raised.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.at_once))
                .and_then(|_| flag::register(signal, Arc::clone(&signals.at_once)))
                .and_then(|_| {
                    flag::register_usize(
                        signal,
                        Arc::clone(&signals.received),
                        signal.unsigned_abs() as usize,
                    )
                })
                .and_then(|_| flag::register(signal, Arc::clone(&signals.interrupt)))
                .map_err(|e| Failure::failed(format!("cannot handle signals: {e}")))?;
        }
        Ok(signals)
    }

    /// From now on the first signal only raises the flag that is returned.
    pub(crate) fn graceful(&self) -> &AtomicBool {
        self.at_once.store(false, Ordering::SeqCst);
        &self.interrupt
    }

    /// Whether a signal has come since [`Signals::graceful`].
    pub(crate) fn raised(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }

    /// The exit code of the signal that has come, 130 for SIGINT and 143 for SIGTERM.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.received.load(Ordering::SeqCst) {
            // Below 128: a signal's number.
            received if received > 0 => 128 + received as u8,
            _ => 130,
        }
    }
}
