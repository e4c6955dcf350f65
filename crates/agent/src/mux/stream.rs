//! One of the streams, as one end sees it.

use std::collections::VecDeque;

use super::{Channel, PIECE_COST_BYTES, WINDOW_BYTES};
use crate::frame::DATA_MAX_BYTES;

/// One stream, as one end sees it.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Whether the peer does not know of it yet.
    pub(super) is_unheard: bool,
    /// Words to be queued when there is room.
    pub(super) unsaid: Vec<u8>,
    /// To be sent.
    pub(super) queue: VecDeque<(Channel, Vec<u8>)>,
    /// What the queue and what is under way cost; at most a window.
    pub(super) outstanding: usize,
    /// What was sent altogether, words apart.
    pub(super) sent: u64,
    /// What the peer has taken in of that.
    pub(super) peer_taken: u64,
    /// Whether an event tells of that already.
    pub(super) is_room_told: bool,
    /// Whether this end is to be ended once the queue is empty.
    pub(super) ends: bool,
    pub(super) is_end_sent: bool,
    /// What came and is not credited yet costs so much; at most a window.
    pub(super) unread: usize,
    /// To be credited.
    pub(super) grant: usize,
    /// What was taken in altogether, words apart.
    pub(super) taken: u64,
    /// The beginning of a word, whose end has not come yet.
    pub(super) half_heard: Vec<u8>,
    pub(super) is_peer_done: bool,
    /// Whether that was told to whoever asks what came.
    pub(super) is_end_told: bool,
}

impl Stream {
    pub(super) fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.outstanding + PIECE_COST_BYTES)
    }

    /// Queues bytes, as far as there is room: how many.
    pub(super) fn queue(&mut self, channel: Channel, bytes: &[u8]) -> usize {
        let mut queued = 0;
        while let Some(rest) = bytes.get(queued..).filter(|rest| !rest.is_empty()) {
            let length = self.room().min(DATA_MAX_BYTES).min(rest.len());
            let Some(piece) = rest.get(..length).filter(|piece| !piece.is_empty()) else { break };
            match self.queue.back_mut() {
                // Small pieces that wait are sent together.
                Some((last, waiting)) if *last == channel && waiting.len() + length <= DATA_MAX_BYTES => {
                    waiting.extend_from_slice(piece);
                    self.outstanding += length;
                }
                _ => {
                    self.queue.push_back((channel, piece.to_vec()));
                    self.outstanding += length + PIECE_COST_BYTES;
                }
            }
            queued += length;
        }
        queued
    }

    pub(super) fn queue_unsaid(&mut self) {
        let unsaid = std::mem::take(&mut self.unsaid);
        let queued = self.queue(Channel::Word, &unsaid);
        self.unsaid = unsaid.get(queued..).unwrap_or_default().to_vec();
    }

    pub(super) fn has_something_to_send(&self) -> bool {
        self.is_unheard
            || !self.queue.is_empty()
            || (self.ends && self.unsaid.is_empty() && !self.is_end_sent)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_end_sent && self.is_end_told
    }
}
