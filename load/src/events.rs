//! The events a Celery worker's agent reports: `received` by signal, the rest from the broker's stream.
//!
//! Of 32 tasks 29 succeed, two fail and one succeeds after a retry. Several tasks are under way at a time, so that
//! a task's events lie apart. Ids count up from a random start: unique over runs, and an id tells which task it is.

use std::collections::VecDeque;
use std::fmt::Write;

use anyhow::Result;
use domain::time::Timestamp;
use domain::wire::client::Payload;

use crate::template::{Filling, Template};

/// Tasks under way at a time.
const UNDER_WAY: usize = 16;
/// Tasks after which the mix of outcomes repeats.
const CYCLE: u64 = 32;

/// What ends up in a task's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    Fails,
    /// Fails once, then succeeds.
    Retries,
    /// Received, and nothing more.
    Waits,
    /// Started, and nothing more.
    Runs,
}

impl Fate {
    /// Of each hundred tasks the first `open` do not end.
    fn of(task: u64, open: u8) -> Self {
        if task % 100 < u64::from(open) {
            return if task.is_multiple_of(2) { Self::Waits } else { Self::Runs };
        }
        match task % CYCLE {
            7 | 23 => Self::Fails,
            15 => Self::Retries,
            _ => Self::Succeeds,
        }
    }

    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::Succeeds | Self::Retries => "succeeded",
            Self::Fails => "failed",
            Self::Waits => "received",
            Self::Runs => "started",
        }
    }

    /// Events of a task's whole life.
    pub(crate) fn events(self) -> usize {
        self.steps().len()
    }

    fn steps(self) -> &'static [Step] {
        match self {
            Self::Succeeds => &[Step::Received, Step::Started, Step::Succeeded],
            Self::Fails => &[Step::Received, Step::Started, Step::Failed],
            Self::Retries => {
                &[Step::Received, Step::Started, Step::Retried, Step::Received, Step::Started, Step::Succeeded]
            }
            Self::Waits => &[Step::Received],
            Self::Runs => &[Step::Received, Step::Started],
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Received = 0,
    Started = 1,
    Succeeded = 2,
    Failed = 3,
    Retried = 4,
}

/// Of so many tasks one is in the rare queue.
const RARE: u64 = 1000;

/// The queue of an agent's `number`th task.
pub(crate) fn queue_of(number: u64) -> &'static str {
    if number % RARE == RARE / 2 { RARE_QUEUE } else { QUEUE }
}

/// Where the ids of one agent's events begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clues {
    run: u64,
    agent: u16,
}

impl Clues {
    pub(crate) fn new(agent: u16) -> Self {
        Self { run: u64::from_be_bytes(domain::id::random()), agent }
    }

    /// The same run, another agent.
    pub(crate) fn for_agent(self, agent: u16) -> Self {
        Self { agent, ..self }
    }

    /// A version 4 UUID's text for the `number`th of its kind.
    fn write(self, kind: u8, number: u64, out: &mut String) {
        out.clear();
        let run = self.run;
        write!(
            out,
            "{:08x}-{:04x}-4{:03x}-8{kind:x}{:02x}-{:04x}{:08x}",
            number as u32,
            number >> 32 & 0xffff,
            run & 0xfff,
            run >> 12 & 0xff,
            self.agent,
            run >> 20 & 0xffff_ffff
        )
        .expect("a string takes any text");
    }

    pub(crate) const fn agent(self) -> u16 {
        self.agent
    }

    pub(crate) const fn run(self) -> u64 {
        self.run
    }

    /// The name of the agent's only worker.
    pub(crate) fn worker(self) -> String {
        format!("celery@worker-{}", self.agent)
    }

    /// The id of the agent's `number`th event.
    pub(crate) fn event_id(self, number: u64) -> String {
        let mut text = String::new();
        self.write(1, number, &mut text);
        text
    }

    /// The engine's id of the agent's `number`th task.
    pub(crate) fn task_id(self, number: u64) -> String {
        let mut text = String::new();
        self.write(0, number, &mut text);
        text
    }
}

struct Task {
    number: u64,
    done: usize,
}

/// One agent's endless series of events.
pub(crate) struct Events {
    clues: Clues,
    /// By step; the last one is a receipt in the rare queue.
    templates: [Template; 6],
    under_way: VecDeque<Task>,
    tasks: u64,
    events: u64,
    /// Of a hundred tasks so many do not end.
    open: u8,
    event_id: String,
    task_id: String,
    at: String,
    number: String,
}

impl Events {
    pub(crate) fn new(clues: Clues) -> Result<Self> {
        let worker = clues.worker();
        let broker = |kind: &str, more: &str| {
            Template::new(&item(
                kind,
                &format!(r#"{{"task_name":"<unknown:@head@>","queue":null,"worker":"{worker}",{more}}}"#),
            ))
        };
        Ok(Self {
            clues,
            templates: [
                Template::new(&item("task.received", RECEIVED))?,
                broker("task.started", r#""args":null,"kwargs":null"#)?,
                broker("task.succeeded", SUCCEEDED)?,
                broker("task.failed", FAILED)?,
                broker("task.retried", RETRIED)?,
                Template::new(&item("task.received", &RECEIVED.replacen(QUEUE_MEMBER, RARE_QUEUE_MEMBER, 1)))?,
            ],
            under_way: VecDeque::with_capacity(UNDER_WAY),
            tasks: 0,
            events: 0,
            open: 0,
            event_id: String::new(),
            task_id: String::new(),
            at: String::new(),
            number: String::new(),
        })
    }

    /// Leaves `open` of a hundred tasks waiting or running for ever.
    pub(crate) fn leaving(mut self, open: u8) -> Self {
        self.open = open;
        self
    }

    pub(crate) fn fate(&self, number: u64) -> Fate {
        Fate::of(number, self.open)
    }

    /// Tasks of which at least one event was made. They are taken up in turn, so the others are the last ones.
    pub(crate) fn tasks_begun(&self) -> u64 {
        self.tasks - self.under_way.iter().filter(|task| task.done == 0).count() as u64
    }

    /// Whether all events of the agent's `number`th task were made.
    pub(crate) fn is_complete(&self, number: u64) -> bool {
        number < self.tasks && !self.under_way.iter().any(|task| task.number == number)
    }

    /// Replaces `payload` by a batch of the next `count` events.
    pub(crate) fn batch(&mut self, payload: &mut Payload, count: usize, now: Timestamp) {
        self.at.clear();
        write!(self.at, "{now}").expect("a string takes any text");
        let Payload { wire, canonical } = payload;
        for text in [&mut *wire, &mut *canonical] {
            text.clear();
            text.extend_from_slice(b"{\"events\":[");
        }
        for place in 0..count {
            if place > 0 {
                wire.push(b',');
                canonical.push(b',');
            }
            self.next(wire, canonical);
        }
        wire.extend_from_slice(b"]}");
        canonical.extend_from_slice(b"]}");
    }

    fn next(&mut self, wire: &mut Vec<u8>, canonical: &mut Vec<u8>) {
        while self.under_way.len() < UNDER_WAY {
            self.under_way.push_back(Task { number: self.tasks, done: 0 });
            self.tasks += 1;
        }
        let Some(mut task) = self.under_way.pop_front() else { return };
        let steps = self.fate(task.number).steps();
        self.clues.write(1, self.events, &mut self.event_id);
        self.clues.write(0, task.number, &mut self.task_id);
        self.number.clear();
        write!(self.number, "{}", 5 + task.number % 900).expect("a string takes any text");
        let filling =
            Filling { event_id: &self.event_id, task_id: &self.task_id, occurred_at: &self.at, number: &self.number };
        let template = match steps[task.done] {
            Step::Received if queue_of(task.number) == RARE_QUEUE => self.templates.len() - 1,
            step => step as usize,
        };
        self.templates[template].fill(&filling, wire, canonical);
        self.events += 1;
        task.done += 1;
        if task.done < steps.len() {
            self.under_way.push_back(task);
        }
    }
}

/// The name every task has, for checks.
pub(crate) const TASK_NAME: &str = "billing.invoices.render_and_send";
pub(crate) const QUEUE: &str = "billing";
/// Where one task of [`RARE`] goes: a list of it has to find few among many.
pub(crate) const RARE_QUEUE: &str = "reports";
const QUEUE_MEMBER: &str = r#""queue":"billing""#;
const RARE_QUEUE_MEMBER: &str = r#""queue":"reports""#;

fn item(kind: &str, data: &str) -> String {
    format!(
        r#"{{"id":"@event@","kind":"{kind}","engine":"celery","task_id":"@task@","occurred_at":"@at@","data":{data}}}"#
    )
}

const RECEIVED: &str = r#"{"task_name":"billing.invoices.render_and_send","queue":"billing","worker":null,"priority":"normal","args":[90210,"invoice","[REDACTED]"],"kwargs":{"customer":{"id":41172,"tier":"gold","locale":"de_AT"},"lines":[{"sku":"A-1001","quantity":2,"price":19.99},{"sku":"B-2040","quantity":1,"price":249.5},{"sku":"C-0007","quantity":12,"price":0.45}],"template":"invoice/v7","deliver":["mail","archive"],"password":"[REDACTED]","dry_run":false},"root_task_id":"@task@"}"#;
const SUCCEEDED: &str = r#""result":"{'document': 'invoices/2026/11/41172.pdf', 'pages': 3, 'bytes': 183442, 'delivered': ['mail', 'archive'], 'total': '301.38', 'currency': 'EUR', 'checksum': '9f2c1d5e7b'}","runtime_ms":90210"#;
const FAILED: &str = r#""exception":"ConnectionError","exception_message":"ConnectionError('mail relay refused the connection')","traceback":"Traceback (most recent call last):\n  File \"/srv/app/billing/invoices.py\", line 211, in render_and_send\n    relay.send(message)\n  File \"/srv/app/mail/relay.py\", line 88, in send\n    raise ConnectionError(\"mail relay refused the connection\")\nConnectionError: mail relay refused the connection\n""#;
const RETRIED: &str = r#""reason":"ConnectionError('mail relay refused the connection')""#;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::wire::canonical::canonical;

    use super::*;

    #[test]
    fn every_event_is_one_an_agent_would_send() {
        let mut events = Events::new(Clues::new(3)).expect("templates");
        let (mut payload, mut kinds, mut ids) = (Payload::default(), BTreeMap::new(), BTreeMap::new());
        let mut bytes = 0;
        for _ in 0..3200 {
            events.batch(&mut payload, 1, Timestamp::from_secs(1_776_340_800));
            assert_eq!(canonical(&payload.wire).as_deref(), Ok(payload.canonical.as_slice()));
            bytes += payload.wire.len();
            let batch: serde_json::Value = serde_json::from_slice(&payload.wire).expect("valid JSON");
            let event = &batch["events"][0];
            let id = event["id"].as_str().expect("text").to_owned();
            assert_eq!(uuid::Uuid::parse_str(&id).map(|id| id.get_version_num()), Ok(4), "{id}");
            *ids.entry(id).or_insert(0) += 1;
            *kinds.entry(event["kind"].as_str().expect("text").to_owned()).or_insert(0) += 1;
        }
        assert!(ids.values().all(|times| *times == 1) && ids.len() == 3200);
        assert_eq!(kinds.len(), 5, "{kinds:?}");
        assert!(kinds["task.succeeded"] > 10 * kinds["task.failed"], "{kinds:?}");
        // With the envelope of some 230 bytes a frame has about 730.
        assert!((470..530).contains(&(bytes / 3200)), "{} bytes", bytes / 3200);
    }

    #[test]
    fn one_task_of_a_thousand_is_in_the_rare_queue() {
        let mut events = Events::new(Clues::new(3)).expect("templates");
        let (mut payload, mut queues) = (Payload::default(), BTreeMap::new());
        for _ in 0..3400 {
            events.batch(&mut payload, 1, Timestamp::EPOCH);
            let batch: serde_json::Value = serde_json::from_slice(&payload.wire).expect("valid JSON");
            if let Some(queue) = batch["events"][0]["data"]["queue"].as_str() {
                queues.entry(queue.to_owned()).or_insert_with(Vec::new).push(batch["events"][0]["task_id"].clone());
            }
        }
        assert_eq!(queues[RARE_QUEUE], [Clues { ..events.clues }.task_id(500)]);
        assert!(queues[QUEUE].len() > 1000 && queues.len() == 2);
    }

    #[test]
    fn of_a_hundred_tasks_so_many_do_not_end() {
        let mut events = Events::new(Clues::new(3)).expect("templates").leaving(40);
        let open = (0..1000).filter(|task| matches!(events.fate(*task), Fate::Waits | Fate::Runs)).count();
        assert_eq!(open, 400);
        let mut payload = Payload::default();
        events.batch(&mut payload, 15 + 16, Timestamp::EPOCH);
        assert!(events.is_complete(0) && events.is_complete(1), "received, and received and started");
    }

    #[test]
    fn a_batch_of_several_is_one_payload() {
        let mut events = Events::new(Clues::new(0)).expect("templates");
        let mut payload = Payload::default();
        events.batch(&mut payload, 20, Timestamp::EPOCH);
        let batch: serde_json::Value = serde_json::from_slice(&payload.wire).expect("valid JSON");
        assert_eq!(batch["events"].as_array().map(Vec::len), Some(20));
        assert_eq!(canonical(&payload.wire).as_deref(), Ok(payload.canonical.as_slice()));
        assert!(!events.is_complete(0) && events.tasks_begun() == UNDER_WAY as u64);
        events.batch(&mut payload, 40, Timestamp::EPOCH);
        assert!(events.is_complete(0));
    }

    #[test]
    fn a_tasks_id_is_that_of_its_events() {
        let clues = Clues::new(9);
        let mut events = Events::new(clues).expect("templates");
        let mut payload = Payload::default();
        events.batch(&mut payload, 1, Timestamp::EPOCH);
        assert!(String::from_utf8_lossy(&payload.wire).contains(&clues.task_id(0)));
        assert_ne!(clues.task_id(0), clues.for_agent(8).task_id(0));
        assert_ne!(clues.task_id(0), Clues::new(9).task_id(0));
    }
}
