//! What SIGINT, SIGTERM and SIGHUP do.
//!
//! Outside of training there is nothing to lose: the process ends at once with 130, 143 or 129. During training
//! the first signal only raises a flag; training sees it after the current step, writes a checkpoint and
//! returns. A second SIGINT or SIGTERM ends the process at once, for whoever cannot wait.
//!
//! SIGHUP says that the terminal is gone: its window was closed, or the connection to it broke. It may well come
//! twice, from the shell and from the system, so a second one does not count. Where it is ignored (`nohup`), it stays
//! so.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The handlers of this process.
pub(crate) struct Signals {
    /// Whether any signal ends the process: true until there is something to lose.
    nothing_to_lose: Arc<AtomicBool>,
    /// Whether the next SIGINT or SIGTERM ends the process.
    at_once: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Installs the handlers; the next signal ends the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let signals = Self {
            nothing_to_lose: Arc::new(AtomicBool::new(true)),
            at_once: Arc::new(AtomicBool::new(true)),
            interrupt: Arc::new(AtomicBool::new(false)),
            received: Arc::new(AtomicUsize::new(0)),
        };
        signals.handle().map_err(|e| Failure::failed(format!("cannot handle signals: {e}")))?;
        Ok(signals)
    }

    fn handle(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: the second signal finds the flag that the first has raised.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.at_once))?;
            flag::register(signal, Arc::clone(&self.at_once))?;
            self.remember(signal)?;
        }
        // Only Linux says whether a signal is ignored.
        #[cfg(target_os = "linux")]
        if !is_ignored(signal_hook::consts::SIGHUP) {
            let signal = signal_hook::consts::SIGHUP;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.nothing_to_lose))?;
            self.remember(signal)?;
        }
        Ok(())
    }

    /// Lets `signal` raise the flag that training looks at.
    fn remember(&self, signal: i32) -> io::Result<()> {
        flag::register_usize(signal, Arc::clone(&self.received), signal.unsigned_abs() as usize)?;
        flag::register(signal, Arc::clone(&self.interrupt))?;
        Ok(())
    }

    /// From now on the first signal only raises the flag that is returned.
    pub(crate) fn graceful(&self) -> &AtomicBool {
        self.nothing_to_lose.store(false, Ordering::SeqCst);
        self.at_once.store(false, Ordering::SeqCst);
        &self.interrupt
    }

    /// Whether a signal has come since [`Signals::graceful`].
    pub(crate) fn raised(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }

    /// The exit code of the signal that has come: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.received.load(Ordering::SeqCst) {
            // Below 128: a signal's number.
            received if received > 0 => 128 + received as u8,
            _ => 130,
        }
    }
}

/// Whether this process was started with `signal` ignored, as `nohup` does.
#[cfg(target_os = "linux")]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
