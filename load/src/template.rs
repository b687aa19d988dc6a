//! An event rendered once and filled in often: its wire text and its canonical text, with the same holes.

use anyhow::{Result, ensure};
use domain::wire::canonical::canonical;

/// What changes from event to event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hole {
    EventId,
    TaskId,
    /// The first eight characters of the task's id, as in a placeholder name.
    TaskHead,
    OccurredAt,
    Number,
}

impl Hole {
    const ALL: [Self; 5] = [Self::EventId, Self::TaskId, Self::TaskHead, Self::OccurredAt, Self::Number];

    /// What stands for it in the text a template is made of; a number so that it is canonical as it stands.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::EventId => "@event@",
            Self::TaskId => "@task@",
            Self::TaskHead => "@head@",
            Self::OccurredAt => "@at@",
            Self::Number => "90210",
        }
    }
}

/// The texts for the holes of one event.
#[derive(Clone, Copy)]
pub(crate) struct Filling<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) task_id: &'a str,
    pub(crate) occurred_at: &'a str,
    pub(crate) number: &'a str,
}

impl<'a> Filling<'a> {
    fn text(&self, hole: Hole) -> &'a str {
        match hole {
            Hole::EventId => self.event_id,
            Hole::TaskId => self.task_id,
            Hole::TaskHead => &self.task_id[..8],
            Hole::OccurredAt => self.occurred_at,
            Hole::Number => self.number,
        }
    }
}

/// A text cut at its holes.
struct Cut {
    parts: Vec<(String, Hole)>,
    tail: String,
}

impl Cut {
    fn new(text: &str) -> Self {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((at, hole)) =
            Hole::ALL.into_iter().filter_map(|hole| Some((rest.find(hole.mark())?, hole))).min_by_key(|(at, _)| *at)
        {
            parts.push((rest[..at].to_owned(), hole));
            rest = &rest[at + hole.mark().len()..];
        }
        Self { parts, tail: rest.to_owned() }
    }

    fn fill(&self, filling: &Filling<'_>, out: &mut Vec<u8>) {
        for (literal, hole) in &self.parts {
            out.extend_from_slice(literal.as_bytes());
            out.extend_from_slice(filling.text(*hole).as_bytes());
        }
        out.extend_from_slice(self.tail.as_bytes());
    }
}

pub(crate) struct Template {
    wire: Cut,
    canonical: Cut,
}

impl Template {
    /// Takes the wire text with marks where the holes are.
    pub(crate) fn new(wire: &str) -> Result<Self> {
        ensure!(wire.contains(Hole::EventId.mark()), "an event without an id");
        let canonical = String::from_utf8(canonical(wire.as_bytes())?)?;
        Ok(Self { wire: Cut::new(wire), canonical: Cut::new(&canonical) })
    }

    pub(crate) fn fill(&self, filling: &Filling<'_>, wire: &mut Vec<u8>, canonical: &mut Vec<u8>) {
        self.wire.fill(filling, wire);
        self.canonical.fill(filling, canonical);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_text_stays_that_of_the_wire_text() {
        let template = Template::new(
            r#"{"id":"@event@","task_id":"@task@","name":"<unknown:@head@>","at":"@at@","data":{"b":90210,"a":[1,0.00001]}}"#,
        )
        .expect("a template");
        let filling = Filling { event_id: "e-1", task_id: "0123456789", occurred_at: "now", number: "17" };
        let (mut wire, mut rendered) = (Vec::new(), Vec::new());
        template.fill(&filling, &mut wire, &mut rendered);
        assert_eq!(
            String::from_utf8_lossy(&wire),
            r#"{"id":"e-1","task_id":"0123456789","name":"<unknown:01234567>","at":"now","data":{"b":17,"a":[1,0.00001]}}"#
        );
        assert_eq!(canonical(&wire).as_deref(), Ok(rendered.as_slice()));
    }
}
