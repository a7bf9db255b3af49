//! `/etc/passwd`, `group`, `shadow` and `gshadow` as text (formats: passwd(5), group(5), shadow(5)).

use anyhow::{bail, Context, Result};

use super::{Node, Tree};

/// One of the account files: lines of fields separated by colons.
#[derive(Debug)]
pub(super) struct Table {
    path: &'static str,
    mode: u32,
    gid: u32,
    rows: Vec<Vec<String>>,
}

/// Group that may read the shadow files, in Debian's fixed numbers.
const SHADOW_GROUP: u32 = 42;

impl Table {
    /// `/etc/passwd`: name, password, uid, gid, comment, home, shell.
    pub fn passwd(tree: &Tree) -> Result<Self> {
        Self::read(tree, "etc/passwd", 0o644, 0)
    }

    /// `/etc/group`: name, password, gid, members.
    pub fn group(tree: &Tree) -> Result<Self> {
        Self::read(tree, "etc/group", 0o644, 0)
    }

    /// `/etc/shadow`: name, hash, and seven numbers about ageing.
    pub fn shadow(tree: &Tree) -> Result<Self> {
        Self::read(tree, "etc/shadow", 0o640, SHADOW_GROUP)
    }

    /// `/etc/gshadow`: name, password, administrators, members.
    pub fn gshadow(tree: &Tree) -> Result<Self> {
        Self::read(tree, "etc/gshadow", 0o640, SHADOW_GROUP)
    }

    fn read(tree: &Tree, path: &'static str, mode: u32, gid: u32) -> Result<Self> {
        let text = if tree.contains(path) {
            tree.read_text(path)?
        } else {
            String::new()
        };
        let rows = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.split(':').map(str::to_string).collect())
            .collect();
        Ok(Self {
            path,
            mode,
            gid,
            rows,
        })
    }

    /// The row of `name`.
    pub fn row(&self, name: &str) -> Option<&Vec<String>> {
        self.rows.iter().find(|row| row[0] == name)
    }

    /// As [`Table::row`], to change it.
    pub fn row_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        self.rows.iter_mut().find(|row| row[0] == name)
    }

    /// The name whose third field (uid or gid) is `id`.
    pub fn name_of(&self, id: u32) -> Option<&str> {
        self.rows
            .iter()
            .find(|row| row.get(2).is_some_and(|field| field.parse() == Ok(id)))
            .map(|row| row[0].as_str())
    }

    /// The third field of `name` (uid or gid).
    pub fn id_of(&self, name: &str) -> Option<u32> {
        self.row(name)?.get(2)?.parse().ok()
    }

    /// Puts `row` in place of the one with the same name, or at the end.
    pub fn set(&mut self, row: Vec<String>) {
        match self.row_mut(&row[0]) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row[0].as_str())
    }

    /// Writes the file.
    pub fn write(&self, tree: &mut Tree) -> Result<()> {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&row.join(":"));
            text.push('\n');
        }
        tree.insert(self.path, Node::file(text, self.mode).owned(0, self.gid))
    }
}

/// The id that `word` means: a number, or a name in `table`.
pub(super) fn id(table: &Table, word: &str) -> Result<u32> {
    if let Ok(number) = word.parse() {
        return Ok(number);
    }
    table.id_of(word).with_context(|| {
        let hint = crate::manifest::nearest(word, table.names())
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        format!("there is no `{word}` in /{}{hint}", table.path)
    })
}

/// Adds `member` to the members of a group.
pub(super) fn join_group(table: &mut Table, group: &str, member: &str) -> Result<()> {
    let Some(row) = table.row_mut(group) else {
        bail!("there is no group `{group}` in /{}", table.path);
    };
    row.resize(4, String::new());
    let mut members: Vec<&str> = row[3].split(',').filter(|name| !name.is_empty()).collect();
    if !members.contains(&member) {
        members.push(member);
    }
    row[3] = members.join(",");
    Ok(())
}
