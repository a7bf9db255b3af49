//! What a product description means, judged: every rule that the types cannot say. All findings at
//! once, each with its place. Reads the product's directory (does the overlay exist?), writes nothing.

mod content;
mod device;
mod people;
mod syntax;

pub use syntax::is_product_name;

use std::path::Path;

use bsp::board::Board;

use super::document::{at, Document, Step};
use super::finding::Finding;
use super::{nearest, Product};

/// Everything wrong with `product`, whose text is `document` and whose directory is `dir`. `boards`
/// are those that the product may name.
pub fn check(
    product: &Product,
    document: &Document<'_>,
    dir: &Path,
    boards: &[Board],
) -> Vec<Finding> {
    let mut report = Report {
        document,
        findings: Vec::new(),
    };
    identity(&mut report, product);
    content::base(&mut report, product, dir);
    content::additions(
        &mut report,
        &[],
        &content::Additions {
            suite: product.base.rootfs.is_none() && product.base.oci.is_none(),
            packages: &product.packages,
            kernel_args: &product.kernel_args,
            partitions: &product.partitions,
            overlay: product.overlay.as_ref(),
            units: &product.units,
        },
        dir,
        boards,
    );
    people::check(&mut report, product);
    device::check(&mut report, product);
    board_sections(&mut report, product, dir, boards);
    report.findings
}

/// Collects findings and knows where things stand.
struct Report<'d> {
    document: &'d Document<'d>,
    findings: Vec<Finding>,
}

impl Report<'_> {
    /// A finding about the value at `path`.
    fn add(&mut self, path: &[Step], message: impl Into<String>, hint: impl Into<String>) {
        let finding = Finding::new(self.document.span(path), message);
        let hint = hint.into();
        self.findings.push(if hint.is_empty() {
            finding
        } else {
            finding.hint(hint)
        });
    }

    /// A finding unless `right`.
    fn require(&mut self, right: bool, path: &[Step], message: &str, hint: &str) {
        if !right {
            self.add(path, message, hint);
        }
    }
}

fn identity(report: &mut Report<'_>, product: &Product) {
    report.require(
        syntax::is_product_name(&product.name),
        at!["name"],
        &format!("\"{}\" is no product name", product.name),
        "lower case letters, digits and single dashes, beginning with a letter, 40 at most: it names \
         the stateroot, files and the host",
    );
    report.require(
        syntax::is_version(&product.version),
        at!["version"],
        &format!("\"{}\" is no version", product.version),
        "a digit, then letters, digits and `.` `-` `+` `~`, 64 at most: it names files, e.g. \"1.0.0\"",
    );
}

fn board_sections(report: &mut Report<'_>, product: &Product, dir: &Path, boards: &[Board]) {
    for (id, section) in &product.board {
        let known: Vec<Board> = boards.iter().filter(|b| b.id == *id).cloned().collect();
        if known.is_empty() {
            let hint = match nearest(id, boards.iter().map(|board| board.id.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`builder boards` lists them; your own stand in boards/<id>.toml".into(),
            };
            report.add(at!["board", id], format!("there is no board `{id}`"), hint);
            continue;
        }
        if let (Some(whose), Some(board)) = (section.secure_boot, known.first()) {
            let mut board = board.clone();
            board.boot.secure_boot = whose;
            if let Err(problem) = board.check_secure_boot() {
                report.add(at!["board", id, "secure-boot"], problem, "");
            }
        }
        content::additions(
            report,
            at!["board", id],
            &content::Additions {
                suite: product.base.rootfs.is_none() && product.base.oci.is_none(),
                packages: &section.packages,
                kernel_args: &section.kernel_args,
                partitions: &section.partitions,
                overlay: section.overlay.as_ref(),
                units: &section.units,
            },
            dir,
            &known,
        );
    }
}
