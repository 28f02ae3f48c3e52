//! Adds, copies, renames and deletes attributes, by tenant, project and service.
//!
//! At the resource where possible: one write there serves all of its records.

mod conflicts;
mod csv;
mod rules;
mod settings;
mod table;

use rules::{Action, Index, Rule, Value, What};
use std::collections::HashMap;
use trommel_sdk::{
    BoolColumn, DoubleColumn, IntColumn, Level, Manifest, Plugin, Signal, TextColumn, batch, export,
    rows_where,
};

const ATTRIBUTES: [&str; 5] = ["resource:*", "scope:*", "metric:*", "item:*", "event:*"];

struct Enrich {
    rules: Vec<Rule>,
    index: Index,
}

impl Plugin for Enrich {
    fn manifest() -> Manifest {
        Manifest::new("enrich", env!("CARGO_PKG_VERSION"))
            .signals([Signal::Logs, Signal::Traces, Signal::Metrics])
            .reads(ATTRIBUTES)
            .writes(ATTRIBUTES)
    }

    fn configure(json: &str) -> Result<Enrich, String> {
        let rules = settings::parse(json)?;
        Ok(Enrich { index: Index::new(&rules), rules })
    }

    fn process(&mut self) -> Result<(), String> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let mut edits = Edits::default();
        for group in self.groups() {
            for rule in &group.rules {
                for action in &self.rules[*rule].actions {
                    edits.add(action, &group.resources);
                }
            }
        }
        edits.send();
        Ok(())
    }
}

/// Resources for which the same rules hold.
struct Group {
    rules: Vec<usize>,
    resources: Vec<u32>,
}

impl Enrich {
    fn groups(&self) -> Vec<Group> {
        let [is_by_tenant, is_by_project, is_by_service] = self.index.asks_for();
        // A call of the host costs as much as the rest for a batch: only what some rule looks at.
        let tenant = if is_by_tenant { batch::tenant() } else { String::new() };
        let project = if is_by_project { batch::project() } else { String::new() };
        let meeting = |service: Option<&str>, resources: Vec<u32>| Group {
            rules: self.index.meeting(&tenant, &project, service),
            resources,
        };
        let all = 0..batch::rows(Level::Resource);
        if !is_by_service {
            return vec![meeting(None, all.collect())];
        }
        let services = batch::text_attribute(Level::Resource, "service.name");
        let mut of_service = vec![Vec::new(); services.strings.len()];
        for (row, service) in services.rows.iter().zip(&services.index) {
            of_service[*service as usize].push(*row);
        }
        let nameless = all.filter(|row| services.rows.binary_search(row).is_err()).collect();
        let mut groups = vec![meeting(None, nameless)];
        for (service, resources) in services.strings.iter().zip(of_service) {
            groups.push(meeting(Some(service), resources));
        }
        groups.retain(|group| !group.rules.is_empty() && !group.resources.is_empty());
        groups
    }
}

type Target<'a> = (Level, &'a str);

/// What is to be written, one column for each key and type, however many rules and resources it comes from.
#[derive(Default)]
struct Edits<'a> {
    texts: HashMap<Target<'a>, TextColumn>,
    ints: HashMap<Target<'a>, IntColumn>,
    doubles: HashMap<Target<'a>, DoubleColumn>,
    bools: HashMap<Target<'a>, BoolColumn>,
    /// Of the levels below the resource: the resource of each row.
    resources_of: HashMap<Level, Vec<u32>>,
}

impl<'a> Edits<'a> {
    fn add(&mut self, action: &'a Action, resources: &[u32]) {
        let at = action.at;
        let rows = self.rows(at, resources);
        if rows.is_empty() {
            return;
        }
        match &action.what {
            What::Set { key, value, only_missing: false } => self.set((at, key), value, rows),
            What::Set { key, value, only_missing: true } => {
                let missing = without(rows, &batch::attribute_rows(at, key));
                self.set((at, key), value, missing);
            }
            What::Copy { from, to } => {
                let rows = only(rows, &batch::attribute_rows(at, from));
                if !rows.is_empty() {
                    batch::copy_attribute(at, from, to, &rows);
                }
            }
            What::Rename { from, to } => {
                let rows = only(rows, &batch::attribute_rows(at, from));
                if !rows.is_empty() {
                    batch::copy_attribute(at, from, to, &rows);
                    batch::remove_attribute_from(at, from, &rows);
                }
            }
            What::Delete { key } => {
                let rows = only(rows, &batch::attribute_rows(at, key));
                if !rows.is_empty() {
                    batch::remove_attribute_from(at, key, &rows);
                }
            }
        }
    }

    fn rows(&mut self, at: Level, resources: &[u32]) -> Vec<u32> {
        if at == Level::Resource {
            return resources.to_vec();
        }
        // A signal without this level has no parents to ask for: only metrics have metrics.
        let parents = || if batch::rows(at) == 0 { Vec::new() } else { batch::parents(at, Level::Resource) };
        let of = self.resources_of.entry(at).or_insert_with(parents);
        rows_where(of, |resource| resources.binary_search(resource).is_ok())
    }

    fn set(&mut self, target: Target<'a>, value: &Value, rows: Vec<u32>) {
        if rows.is_empty() {
            return;
        }
        match value {
            Value::Text(value) => {
                let column = self.texts.entry(target).or_default();
                column.index.resize(column.index.len() + rows.len(), column.strings.len() as u32);
                column.strings.push(value.clone());
                column.rows.extend(rows);
            }
            Value::Int(value) => self.ints.entry(target).or_default().extend(pairs(rows, *value)),
            Value::Double(value) => self.doubles.entry(target).or_default().extend(pairs(rows, *value)),
            Value::Bool(value) => self.bools.entry(target).or_default().extend(pairs(rows, *value)),
        }
    }

    fn send(self) {
        for ((at, key), column) in &self.texts {
            batch::set_text_attribute(*at, key, column);
        }
        for ((at, key), column) in &self.ints {
            batch::set_int_attribute(*at, key, column);
        }
        for ((at, key), column) in &self.doubles {
            batch::set_double_attribute(*at, key, column);
        }
        for ((at, key), column) in &self.bools {
            batch::set_bool_attribute(*at, key, column);
        }
    }
}

fn pairs<T: Copy>(rows: Vec<u32>, value: T) -> impl Iterator<Item = (u32, T)> {
    rows.into_iter().map(move |row| (row, value))
}

/// The rows that are in both; both are sorted.
fn only(mut rows: Vec<u32>, others: &[u32]) -> Vec<u32> {
    rows.retain(|row| others.binary_search(row).is_ok());
    rows
}

/// The rows that are not among the others, which are sorted.
fn without(mut rows: Vec<u32>, others: &[u32]) -> Vec<u32> {
    rows.retain(|row| others.binary_search(row).is_err());
    rows
}

export!(Enrich);
