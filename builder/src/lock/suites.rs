//! Which suites and components a product's packages come from.

use super::apt::SuiteLine;
use super::archive::Archive;
use crate::manifest::Pocket;
use crate::project::Merged;

/// Suite of the boot-loader files and tools where the base is not a suite.
pub const DEFAULT_SUITE: &str = "trixie";

/// The lines of sources.list: a released suite has updates and security updates beside it.
pub(super) fn suite_lines(merged: &Merged, archive: &Archive, options: &str) -> Vec<SuiteLine> {
    let base = &merged.product.base;
    let suite = base.suite.as_deref().unwrap_or(DEFAULT_SUITE);
    let components = components(merged);
    let line = |uri: &str, suite: String| SuiteLine {
        options: options.to_string(),
        uri: uri.to_string(),
        suite,
        components: components.clone(),
    };
    let mut lines = vec![line(&archive.main, suite.to_string())];
    if matches!(suite, "sid" | "unstable") {
        return lines;
    }
    let wanted = |pocket| {
        base.updates
            .as_ref()
            .is_none_or(|all| all.contains(&pocket))
    };
    if wanted(Pocket::Updates) {
        lines.push(line(&archive.main, format!("{suite}-updates")));
    }
    if wanted(Pocket::Security) {
        lines.push(line(&archive.security, format!("{suite}-security")));
    }
    lines
}

/// Components that the product asks for, and those that its board cannot do without.
fn components(merged: &Merged) -> Vec<String> {
    let own = &merged.product.base.components;
    let mut all = if own.is_empty() {
        vec!["main".to_string()]
    } else {
        own.clone()
    };
    for component in &merged.board.components {
        if !all.contains(component) {
            all.push(component.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    fn lines(base: &str, board: &str) -> Vec<String> {
        let text = format!("name = \"p\"\nversion = \"1\"\n[base]\n{base}\n");
        let dir = std::path::Path::new("/nonexistent");
        let project = Project {
            dir: dir.into(),
            product: crate::manifest::parse("product.toml", &text, dir).unwrap(),
        };
        let merged = project.merged(&project.board(board).unwrap());
        let archive = Archive {
            main: "m/".into(),
            security: "s/".into(),
        };
        suite_lines(&merged, &archive, "")
            .into_iter()
            .map(|line| format!("{}{} {}", line.uri, line.suite, line.components.join(" ")))
            .collect()
    }

    #[test]
    fn a_board_adds_the_components_that_it_needs() {
        assert_eq!(
            lines("suite = \"trixie\"", "rpi4"),
            [
                "m/trixie main non-free-firmware",
                "m/trixie-updates main non-free-firmware",
                "s/trixie-security main non-free-firmware"
            ]
        );
        let own = "suite = \"trixie\"\ncomponents = [\"non-free-firmware\"]";
        assert!(lines(own, "rpi4")[0].ends_with("trixie non-free-firmware"));
    }

    #[test]
    fn suites_beside_the_release_can_be_left_out() {
        let with = |updates: &str| lines(&format!("suite = \"trixie\"\n{updates}"), "qemu-armhf");
        assert_eq!(with("updates = []"), ["m/trixie main"]);
        assert_eq!(
            with("updates = [\"security\"]"),
            ["m/trixie main", "s/trixie-security main"]
        );
        assert_eq!(lines("suite = \"sid\"", "qemu-armhf"), ["m/sid main"]);
    }
}
