//! Runs the tasks of all nodes, on one thread and in virtual time.
//!
//! **Invariant**: what runs next depends on the seed alone. Tasks that could run at the same moment run in an order that
//! is drawn; a task that uses the disk begins later than it was woken, by a time that is drawn too. So whatever was asked
//! of a disk is under way for a while, and a crash may come between.
//!
//! Time stands still while a task runs. It does not preempt: a crash comes between two steps, which is at every await.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use thence::node::Task;

use crate::world::Chance;

/// Virtual nanoseconds since the world began.
pub(super) type Nanos = u64;

/// Whose a task is: of which node, and of which of its lives.
pub(super) type Owner = (usize, u64);

struct Entry {
    owner: Owner,
    /// Not there while it runs.
    task: Option<Task>,
    waker: Waker,
    /// From and to how long it waits for the disk before it runs.
    disk: Option<(Nanos, Nanos)>,
    woken: u64,
    is_queued: bool,
}

#[derive(Default)]
struct State {
    now: Nanos,
    tasks: BTreeMap<u64, Entry>,
    next_task: u64,
    /// What is to run: when, in which order, and which task.
    queue: BTreeMap<(Nanos, u64, u64), ()>,
    timers: BTreeMap<(Nanos, u64), Waker>,
    next_timer: u64,
    /// How slow the disk of each node is.
    disks: BTreeMap<usize, (Nanos, Nanos)>,
    /// Until when nothing of a node runs.
    paused: BTreeMap<usize, Nanos>,
}

/// The executor. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Executor {
    state: Arc<Mutex<State>>,
    chance: Chance,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}

struct TaskWaker {
    state: Weak<Mutex<State>>,
    chance: Chance,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = locked(&state);
        let State { now, tasks, queue, disks, .. } = &mut *state;
        let Some(entry) = tasks.get_mut(&self.task).filter(|entry| !entry.is_queued) else { return };
        entry.is_queued = true;
        entry.woken += 1;
        let delay = match entry.disk {
            Some(usual) => {
                let (low, high) = disks.get(&entry.owner.0).copied().unwrap_or(usual);
                low + self.chance.draw("disk", self.task, entry.woken) % (high.saturating_sub(low) + 1)
            }
            None => 0,
        };
        queue.insert((*now + delay, self.chance.draw("turn", self.task, entry.woken), self.task), ());
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    pub(super) fn new(chance: Chance) -> Self {
        Self { state: Arc::default(), chance }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(super) fn now(&self) -> Nanos {
        self.lock().now
    }

    /// Begins a task. With `disk` it waits so long, from and to, whenever it is woken, unless the node's disk was given
    /// another speed.
    pub(super) fn spawn(&self, owner: Owner, task: Task, disk: Option<(Nanos, Nanos)>) {
        let waker = {
            let mut state = self.lock();
            state.next_task += 1;
            let number = state.next_task;
            let waker = TaskWaker { state: Arc::downgrade(&self.state), chance: self.chance, task: number };
            let waker = Waker::from(Arc::new(waker));
            let entry = Entry { owner, task: Some(task), waker: waker.clone(), disk, woken: 0, is_queued: false };
            state.tasks.insert(number, entry);
            waker
        };
        waker.wake();
    }

    /// Sets how slow the disk of a node is from now on.
    pub(super) fn set_disk(&self, node: usize, nanos: (Nanos, Nanos)) {
        self.lock().disks.insert(node, nanos);
    }

    /// Nothing of a node runs until then.
    pub(super) fn pause(&self, node: usize, until: Nanos) {
        self.lock().paused.insert(node, until);
    }

    /// When something is to be done next.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        let state = self.lock();
        let task = state.queue.keys().next().map(|(at, ..)| *at);
        let timer = state.timers.keys().next().map(|(at, _)| *at);
        task.into_iter().chain(timer).min()
    }

    /// Moves time on, and wakes whoever waited for that.
    pub(super) fn advance(&self, to: Nanos) {
        let due = {
            let mut state = self.lock();
            let now = state.now.max(to);
            state.now = now;
            let later = state.timers.split_off(&(now + 1, 0));
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Runs the next task that is due, if one is. Returns whose it was, and whether it uses the disk.
    pub(super) fn step(&self) -> Option<(Owner, bool)> {
        let (number, owner, mut task, waker, uses_disk) = {
            let mut state = self.lock();
            let now = state.now;
            loop {
                let (&(at, order, number), ()) = state.queue.first_key_value()?;
                if at > now {
                    return None;
                }
                state.queue.remove(&(at, order, number));
                // It may have been killed since it was woken.
                let State { tasks, paused, queue, .. } = &mut *state;
                let Some(entry) = tasks.get_mut(&number) else { continue };
                if let Some(until) = paused.get(&entry.owner.0).filter(|until| **until > now) {
                    queue.insert((*until, order, number), ());
                    continue;
                }
                entry.is_queued = false;
                let Some(task) = entry.task.take() else { continue };
                break (number, entry.owner, task, entry.waker.clone(), entry.disk.is_some());
            }
        };
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let ended = {
            let mut state = self.lock();
            match (polled, state.tasks.get_mut(&number)) {
                (Poll::Pending, Some(entry)) => {
                    entry.task = Some(task);
                    None
                }
                (Poll::Ready(()), Some(_)) => {
                    state.tasks.remove(&number);
                    Some(task)
                }
                // It killed itself, with everything of its node.
                (_, None) => Some(task),
            }
        };
        // What a task leaves may wake others: nothing is locked meanwhile.
        drop(ended);
        Some((owner, uses_disk))
    }

    /// Ends all tasks of one life of a node, wherever they are.
    pub(super) fn kill(&self, owner: Owner) {
        let killed: Vec<Entry> = {
            let mut state = self.lock();
            let of_owner = state.tasks.iter().filter(|(_, entry)| entry.owner == owner).map(|(number, _)| *number);
            let of_owner: Vec<u64> = of_owner.collect();
            of_owner.iter().filter_map(|number| state.tasks.remove(number)).collect()
        };
        drop(killed);
    }

    /// Ends all tasks there are, at the end of the world.
    pub(super) fn end(&self) {
        // What a task leaves behind may begin others.
        loop {
            let tasks = std::mem::take(&mut self.lock().tasks);
            if tasks.is_empty() {
                return;
            }
            drop(tasks);
        }
    }

    /// A timer that is not set.
    pub(super) fn timer(&self, at: Nanos) -> Timer {
        Timer { executor: self.clone(), at, registered: None }
    }
}

/// Waits until a moment.
#[derive(Debug)]
pub(super) struct Timer {
    executor: Executor,
    at: Nanos,
    /// Under what it stands among the timers.
    registered: Option<(Nanos, u64)>,
}

impl Timer {
    pub(super) fn reset(&mut self, at: Nanos) {
        self.forget();
        self.at = at;
    }

    fn forget(&mut self) {
        if let Some(registered) = self.registered.take() {
            let waker = self.executor.lock().timers.remove(&registered);
            drop(waker);
        }
    }

    pub(super) fn poll_at(&mut self, context: &Context<'_>) -> Poll<()> {
        self.forget();
        let mut state = self.executor.lock();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        state.next_timer += 1;
        let key = (self.at, state.next_timer);
        state.timers.insert(key, context.waker().clone());
        self.registered = Some(key);
        Poll::Pending
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_at(context)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}
