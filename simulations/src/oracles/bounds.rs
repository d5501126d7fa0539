//! Bounded: what is on its way to one peer stays within the window, and nobody talks without need.

use thence::replica::Limits;

use super::{Verdict, broken};

/// Whether bytes that were sent and not acknowledged are within what the limits allow: the window is checked before
/// a frame is read, and a frame holds at least one segment.
pub(crate) fn check_in_flight(limits: &Limits, segment_bytes_max: usize, in_flight: usize) -> Verdict {
    let allowed = limits.window_bytes_max + limits.frame_bytes_max + segment_bytes_max;
    if in_flight <= allowed {
        return Ok(());
    }
    broken("bounded window", format!("{in_flight} bytes are on their way to one peer, at most {allowed} may be"))
}

/// The same over all spaces of a session: its window is checked before a frame is read, and before what was just written
/// is pushed, which is at most a window.
pub(crate) fn check_session(limits: &Limits, segment_bytes_max: usize, in_flight: usize) -> Verdict {
    let one = limits.window_bytes_max + limits.frame_bytes_max + 2 * segment_bytes_max;
    let allowed = limits.session_window_bytes_max + one;
    if in_flight <= allowed {
        return Ok(());
    }
    broken("bounded window", format!("{in_flight} bytes are on their way in one session, at most {allowed} may be"))
}

/// Whether the messages that were sent after the faults ended are in proportion to what had to be sent.
pub(crate) fn check_silence(messages: u64, sessions: u64, missing: u64) -> Verdict {
    let allowed = 60 * sessions + 30 * missing;
    if messages <= allowed {
        return Ok(());
    }
    let detail = format!("{messages} messages for {missing} missing events and {sessions} sessions, over {allowed}");
    broken("no storms", detail)
}

/// Whether a node opens a space no more often in one session than a world without faults can need: at first, after a
/// refusal because a grant came later here or there, and once more in answer. More means that something was lost that
/// nothing lost.
pub(crate) fn check_openings(openings: u64) -> Verdict {
    if openings <= 3 {
        return Ok(());
    }
    broken("no stalls without a fault", format!("a space is opened {openings} times in one session"))
}
