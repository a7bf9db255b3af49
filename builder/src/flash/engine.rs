//! One image to several targets: the image is read and unpacked once for all of them, each target has its
//! own writer and fails for itself.
//!
//! The image is played twice: to be written, and to be compared with what was written. Memory is a fixed
//! stock of chunks that all writers share; the slowest one sets the pace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::thread;

use anyhow::Result;

use super::buffer::{Chunk, Stock};
use super::source::{Flow, Image, CHUNK};
pub use super::worker::{Failure, FailureKind, Finish, Job, Outcome, Phase, Stats};
use super::worker::{Message, Worker};

/// Chunks in memory at any time, together 48 MiB.
const STOCK: usize = 12;

/// What a writer tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Index of the job.
    pub job: usize,
    /// What happens.
    pub what: What,
}

/// See [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A phase begins, with so many bytes ahead.
    Begins(Phase, u64),
    /// So many bytes of the image are done in this phase.
    Progress(u64),
    /// Everything of the image before this byte is on the medium, even if the power fails now.
    Flushed(u64),
    /// It is over.
    Ended,
}

/// Writes `image` to all of `jobs`; returns what became of each, in order. `stop` ends it early.
pub fn run(
    image: &Image,
    jobs: Vec<Job>,
    events: &Sender<Event>,
    stop: &AtomicBool,
) -> Vec<Outcome> {
    let stock = Stock::new(STOCK, CHUNK);
    thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut threads = Vec::new();
        for (index, job) in jobs.into_iter().enumerate() {
            let (sender, receiver) = channel();
            senders.push(Some(sender));
            let worker = Worker::new(index, job, image, events.clone(), stop);
            threads.push(scope.spawn(move || worker.run(&receiver)));
        }
        broadcast(image, &stock, senders, stop);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Outcome::lost()))
            .collect()
    })
}

/// Plays the image to whoever still listens.
fn broadcast(
    image: &Image,
    stock: &Stock,
    mut to: Vec<Option<Sender<Message>>>,
    stop: &AtomicBool,
) {
    let result = pass(image, stock, true, &mut to, stop, Message::Write).and_then(|()| {
        send(&mut to, &Message::Written);
        pass(image, stock, false, &mut to, stop, Message::Compare)
    });
    let last = match result {
        Ok(()) => Message::Compared,
        Err(error) => Message::Broken(format!("{error:#}")),
    };
    send(&mut to, &last);
}

fn pass(
    image: &Image,
    stock: &Stock,
    check: bool,
    to: &mut [Option<Sender<Message>>],
    stop: &AtomicBool,
    message: impl Fn(Arc<Chunk>) -> Message,
) -> Result<()> {
    image.play(stock, check, &mut |chunk| {
        let anybody = send(to, &message(Arc::new(chunk)));
        if anybody && !stop.load(Ordering::Relaxed) {
            Flow::On
        } else {
            Flow::Stop
        }
    })
}

/// Sends to all that are still there; `false` if nobody is.
fn send(to: &mut [Option<Sender<Message>>], message: &Message) -> bool {
    let mut anybody = false;
    for slot in to.iter_mut() {
        if let Some(sender) = slot {
            // A writer that has failed has hung up.
            if sender.send(message.clone()).is_ok() {
                anybody = true;
            } else {
                *slot = None;
            }
        }
    }
    anybody
}

#[cfg(test)]
mod tests;
