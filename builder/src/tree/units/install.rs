//! `[Install]` sections and names of units (systemd.unit(5)).

/// What an `[Install]` section says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Install {
    pub alias: Vec<String>,
    pub wanted_by: Vec<String>,
    pub required_by: Vec<String>,
    pub upheld_by: Vec<String>,
    pub also: Vec<String>,
    pub default_instance: Option<String>,
}

impl Install {
    /// Reads it from the text of a unit file; empty if there is none.
    pub fn parse(text: &str) -> Self {
        let mut install = Self::default();
        let mut inside = false;
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else {
                continue;
            };
            if line.starts_with(['#', ';']) {
                continue;
            }
            let words = value.split_whitespace().map(str::to_string);
            match key.trim() {
                "Alias" => install.alias.extend(words),
                "WantedBy" => install.wanted_by.extend(words),
                "RequiredBy" => install.required_by.extend(words),
                "UpheldBy" => install.upheld_by.extend(words),
                "Also" => install.also.extend(words),
                "DefaultInstance" => install.default_instance = Some(value.trim().to_string()),
                _ => {}
            }
        }
        install
    }

    /// Both together; the other's default instance counts.
    pub fn with(mut self, other: Self) -> Self {
        self.alias.extend(other.alias);
        self.wanted_by.extend(other.wanted_by);
        self.required_by.extend(other.required_by);
        self.upheld_by.extend(other.upheld_by);
        self.also.extend(other.also);
        self.default_instance = other.default_instance.or(self.default_instance);
        self
    }

    /// Whether it asks for links in other units' directories.
    pub fn wants_links(&self) -> bool {
        !(self.wanted_by.is_empty() && self.required_by.is_empty() && self.upheld_by.is_empty())
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A unit's name in its parts: `prefix@instance.type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    prefix: String,
    /// `None`: no `@`; empty: a template.
    instance: Option<String>,
    kind: String,
}

impl Name {
    pub fn parse(unit: &str) -> Self {
        let (stem, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance.to_string())),
            None => (stem, None),
        };
        Self {
            prefix: prefix.to_string(),
            instance,
            kind: kind.to_string(),
        }
    }

    pub fn text(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}@{instance}.{}", self.prefix, self.kind),
            None => format!("{}.{}", self.prefix, self.kind),
        }
    }

    pub fn is_template(&self) -> bool {
        self.instance.as_deref() == Some("")
    }

    pub fn with_instance(&self, instance: &str) -> Self {
        Self {
            instance: Some(instance.to_string()),
            ..self.clone()
        }
    }

    /// The template's name, if this is an instance.
    pub fn template(&self) -> Option<String> {
        let is_instance = self
            .instance
            .as_deref()
            .is_some_and(|name| !name.is_empty());
        is_instance.then(|| self.with_instance("").text())
    }

    /// `text` with the specifiers that `[Install]` sections use.
    pub fn expand(&self, text: &str) -> String {
        let instance = self.instance.as_deref().unwrap_or_default();
        text.replace("%i", instance)
            .replace("%I", instance)
            .replace("%p", &self.prefix)
            .replace("%n", &self.text())
    }
}
