//! `--output table`: framed sections for people, nested objects in frames inside their object's frame.
//!
//! What stands in which section and in which order is the AWS CLI's; columns are laid out to fit the terminal, where
//! the AWS CLI lets long values run over its edge.

use std::collections::BTreeSet;
use std::io::{self, Write};

use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table};
use serde_json::{Map, Value};

use super::{is_scalar, word};

/// The width at which single rows are turned into two columns when there is no terminal to ask, as in the AWS CLI.
const PIPE_WIDTH: usize = 80;

pub(super) fn write(value: &Value, title: &str, width: Option<u16>, out: &mut impl Write) -> io::Result<()> {
    let mut sections = Sections::default();
    sections.add(value, Some(title), 0);
    let mut sections = sections.0;
    let Some(mut widest) = sections.iter().map(Section::width).max() else { return Ok(()) };
    let available = width.map_or(PIPE_WIDTH, usize::from);
    if widest > available {
        sections.iter_mut().for_each(Section::stand_upright);
        widest = sections.iter().map(Section::width).max().unwrap_or(widest);
    }
    if width.is_some() {
        widest = widest.min(available);
    }
    writeln!(out, "{}", "-".repeat(widest))?;
    sections.iter().try_for_each(|section| section.write(widest, out))
}

/// The sections of a result, from the top down.
#[derive(Default)]
struct Sections(Vec<Section>);

#[derive(Default)]
struct Section {
    title: String,
    level: usize,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sections {
    fn add(&mut self, value: &Value, title: Option<&str>, level: usize) {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(true) => false,
        };
        if empty {
            return;
        }
        if let Some(title) = title {
            self.0.push(Section { title: visible(title), level, ..Section::default() });
        }
        match value {
            Value::Array(items) if items[0].is_object() => self.add_objects(items, title, level),
            Value::Array(items) => {
                for item in items {
                    match item {
                        Value::Array(cells) if cells.iter().all(is_scalar) => self.row(cells.iter()),
                        item if is_scalar(item) => self.row([item].into_iter()),
                        item => self.add(item, None, level),
                    }
                }
            }
            Value::Object(members) => self.add_object(members, level),
            scalar => self.row([scalar].into_iter()),
        }
    }

    fn add_object(&mut self, members: &Map<String, Value>, level: usize) {
        let (columns, below) = columns([members].into_iter());
        let section = self.last();
        match &columns.iter().collect::<Vec<_>>()[..] {
            [] => {}
            [only] => section.rows.push(vec![visible(only), visible(&word(&members[only.as_str()]))]),
            _ => {
                section.header = columns.iter().map(|column| visible(column)).collect();
                section.rows.push(columns.iter().map(|column| visible(&word(&members[column.as_str()]))).collect());
            }
        }
        for name in below {
            self.add(&members[name.as_str()], Some(name), level + 1);
        }
    }

    /// A row per object; where objects hold further ones, a section per object.
    fn add_objects(&mut self, items: &[Value], title: Option<&str>, level: usize) {
        let (columns, below) = columns(items.iter().filter_map(Value::as_object));
        let header: Vec<_> = columns.iter().map(|column| visible(column)).collect();
        self.last().header.clone_from(&header);
        for (index, item) in items.iter().enumerate() {
            if index > 0 && !below.is_empty() {
                let title = visible(title.unwrap_or_default());
                self.0.push(Section { title, level, header: header.clone(), rows: Vec::new() });
            }
            let cell = |column: &&String| visible(&item.get(column.as_str()).map_or_else(String::new, word));
            self.last().rows.push(columns.iter().map(cell).collect());
            for name in &below {
                if let Some(value) = item.get(name.as_str()) {
                    self.add(value, Some(name), level + 1);
                }
            }
        }
    }

    fn row<'a>(&mut self, cells: impl Iterator<Item = &'a Value>) {
        let cells = cells.map(|cell| visible(&word(cell))).collect();
        self.last().rows.push(cells);
    }

    fn last(&mut self) -> &mut Section {
        if self.0.is_empty() {
            self.0.push(Section::default());
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// The names of members that are scalars, and of those that are not, each sorted.
fn columns<'a>(objects: impl Iterator<Item = &'a Map<String, Value>>) -> (BTreeSet<&'a String>, BTreeSet<&'a String>) {
    let (mut scalars, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in objects.flatten() {
        if is_scalar(value) {
            scalars.insert(name)
        } else {
            others.insert(name)
        };
    }
    (scalars, others)
}

/// Control characters written out, so that no value of a result can move the cursor of a terminal.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

impl Section {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(ASCII_FULL_CONDENSED.header_separator(LineStyle::new('+', '-', '+', '+')));
        table.set_content_arrangement(ContentArrangement::DynamicFullWidth);
        if !self.header.is_empty() {
            let center = |name| Cell::new(name).set_alignment(CellAlignment::Center);
            table.set_header(self.header.iter().map(center));
        }
        table.add_rows(&self.rows);
        table.column_iter_mut().for_each(|column| {
            column.set_padding((2, 2));
        });
        table
    }

    /// The columns that it takes without wrapping, with the frames around it.
    fn width(&self) -> usize {
        let title = Table::new().add_row([&self.title]).column_max_content_widths();
        let cells = self.table().column_max_content_widths();
        let cells = cells.iter().map(|width| usize::from(*width) + 5).sum::<usize>() + 1;
        (title.iter().map(|width| usize::from(*width)).sum::<usize>() + 2).max(cells) + 2 * self.level
    }

    /// A single row under a header becomes a column of names beside a column of values.
    fn stand_upright(&mut self) {
        if let [row] = &mut self.rows[..]
            && !self.header.is_empty()
        {
            self.rows = std::mem::take(&mut self.header)
                .into_iter()
                .zip(std::mem::take(row))
                .map(<[_; 2]>::from)
                .map(Vec::from)
                .collect();
        }
    }

    fn write(&self, widest: usize, out: &mut impl Write) -> io::Result<()> {
        let frame = "|".repeat(self.level);
        let width = widest.saturating_sub(2 * self.level).max(4);
        if !self.title.is_empty() {
            let taken = self.title.chars().count();
            let left = (width / 2).saturating_sub(taken / 2 + 1);
            let right = width.saturating_sub(2 + left + taken);
            writeln!(out, "{frame}|{}{}{}|{frame}", " ".repeat(left), self.title, " ".repeat(right))?;
        }
        if self.rows.is_empty() && self.header.is_empty() {
            return writeln!(out, "{frame}+{}+{frame}", "-".repeat(width - 2));
        }
        let mut table = self.table();
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        table.lines().try_for_each(|line| writeln!(out, "{frame}{line}{frame}"))
    }
}
