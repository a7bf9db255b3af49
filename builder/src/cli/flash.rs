//! `builder flash`

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bsp::first_boot::FirstBoot;

use super::{print, Context};
use crate::cache::Cache;
use crate::flash::device::{Device, System};
use crate::flash::plan::{self, size, Expected, Plan};
use crate::flash::problem::{Kind, Problem};
use crate::flash::report::Reporter;
use crate::flash::run::{self, Options};
use crate::flash::source::Image;
use crate::flash::{choose, download, emmc_boot, interrupt, settings};
use crate::pipeline::{self, BuildOptions};
use crate::progress::Progress;

mod first_boot;

const AFTER_HELP: &str = "\
Exit codes: 0 all written and verified; 1 failed; 2 wrong usage; 3 a file you wrote is wrong;
  4 a safety rule refused a device, or there is none; 5 not confirmed; 6 the image is damaged, not trusted
  or for another board; 7 writing failed; 8 the device reads back something else (worn out or counterfeit);
  130 interrupted. After 4, 5 and 6 nothing was written. A disk that failed does not boot.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Disks to write to, e.g. /dev/sdb; all at once [default: asks]
    devices: Vec<PathBuf>,
    /// The board [default: the only one with a section in product.toml]
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Image file (raw, zst, xz, qcow2) or https:// address [default: the product, built if need be]
    #[arg(short, long, value_name = "FILE|URL")]
    image: Option<String>,
    /// Public key that must have signed the image's SHA256SUMS; base64 [default: the product's]
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Lists the disks that may be written to, and ends
    #[arg(long)]
    list: bool,
    /// Shows the plan and ends
    #[arg(long)]
    dry_run: bool,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
    /// Overrules refusals, except for what the running system needs
    #[arg(long)]
    force: bool,
    /// Keeps the partition with this label and what is in it, e.g. data
    #[arg(long, value_name = "LABEL")]
    save_partlabel: Vec<String>,
    /// Reads first and writes only what differs
    #[arg(long)]
    minimize_writes: bool,
    /// Goes on where an interrupted write stopped
    #[arg(long)]
    resume: bool,
    /// Tells what happens as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// File descriptor for the JSON lines
    #[arg(long, value_name = "N", default_value_t = 1, requires = "json")]
    json_fd: u32,
    #[command(flatten)]
    first_boot: first_boot::Args,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let system = System::default();
    if args.list {
        return list(&system);
    }
    let mut reporter = reporter(context, args)?;
    let result = flash(context, args, &system, &mut reporter);
    if let Err(error) = &result {
        let kind = error.downcast_ref::<Problem>().map(|problem| problem.kind);
        let value = serde_json::json!({"error": format!("{error:#}"), "kind": kind});
        reporter.event("error", value);
    }
    result
}

fn flash(context: &Context, args: &Args, system: &System, reporter: &mut Reporter) -> Result<()> {
    let settings = args.first_boot.settings(args.devices.len())?;
    let (path, expected) = source(context, args)?;
    let keys = keys(context, args);
    let stage = context.progress.stage("image");
    stage.note("checking");
    let image = Image::open(&path, &keys)
        .map_err(|error| Problem::error(Kind::Image, format!("{error:#}")))?;
    stage.done(format_args!("{}, checked", image.name));
    if let Some(expected) = &expected {
        plan::check_board(&image, expected)?;
    }
    let devices = match args.devices.as_slice() {
        [] => vec![ask_for_device(system, image.size)?],
        named => named.to_vec(),
    };
    let plans = plans(system, &image, &devices, args)?;
    let settings = rendered(&settings, &image, plans.len())?;
    for plan in &plans {
        reporter.plan(plan, &image);
    }
    if args.dry_run {
        return Ok(());
    }
    confirm(args, &plans)?;
    let options = Options {
        minimize: args.minimize_writes,
        resume: args.resume,
        notes: Cache::from_env()?.root().join("flash"),
        settings,
    };
    let stop = interrupt::flag()?;
    run::write(&image, &plans, &options, system, reporter, &stop)?;
    if let Some(file) = emmc_boot::beside(&path) {
        let devices = plans.iter().map(|plan| plan.chosen.path.as_path());
        reporter.say(&emmc_boot::left_to_do(&file, devices));
        reporter.event("emmc-boot", serde_json::json!({ "file": file }));
    }
    Ok(())
}

/// The image file, and what it must be an image of.
fn source(context: &Context, args: &Args) -> Result<(PathBuf, Option<Expected>)> {
    let project = context.project();
    let board = match (&project, &args.board) {
        (Ok(project), named) if args.image.is_none() || named.is_some() => {
            Some(project.board(&project.board_or_only(named.as_deref())?)?)
        }
        (Err(_), Some(id)) => Some(crate::project::boards::find(&context.dir, id)?),
        _ => None,
    };
    let expected = board.as_ref().map(|board| Expected {
        board: board.id.clone(),
        arch: board.arch.clone(),
        product: project.as_ref().ok().map(|p| p.product.name.clone()),
    });
    if let Some(image) = &args.image {
        if image.starts_with("https://") {
            let keys = keys(context, args);
            let dir = Cache::from_env()?.root().join("flash");
            let ca = project.as_ref().ok();
            let ca = ca
                .map(|p| p.keys_dir().join("tls/ca.pem"))
                .filter(|ca| ca.is_file());
            let path = download::fetch(image, &keys, ca.as_deref(), &dir, context.progress)
                .map_err(|error| Problem::error(Kind::Image, format!("{error:#}")))?;
            return Ok((path, expected));
        }
        if image.starts_with("http://") {
            return Err(Problem::error(
                Kind::Image,
                format!("fetching {image}: only https:// addresses are taken"),
            ));
        }
        return Ok((PathBuf::from(image), expected));
    }
    let project =
        project.context("finding an image; name one with --image, or a product with -C")?;
    let board = project.board_or_only(args.board.as_deref())?;
    let cache = Cache::from_env()?;
    let options = BuildOptions::raw_image();
    let built = pipeline::build(&project, &board, &options, &cache, context.progress)?;
    let raw = built.raw_image().context("the build made no raw image")?;
    Ok((raw.to_path_buf(), expected))
}

/// The keys whose signature counts: the given ones, else the product's.
fn keys(context: &Context, args: &Args) -> Vec<String> {
    if !args.key.is_empty() {
        return args.key.clone();
    }
    let Ok(project) = context.project() else {
        return Vec::new();
    };
    let key = keys::signer::Signer::open(&project.keys_dir().join("commit.pem"));
    key.map(|key| key.public_base64()).into_iter().collect()
}

fn list(system: &System) -> Result<()> {
    let text: String = choose::candidates(system, 0)
        .iter()
        .map(|device| line(device) + "\n")
        .collect();
    match text.is_empty() {
        true => {
            eprintln!("No disk or card is plugged in that could be written to.");
            Ok(())
        }
        false => print::text(&text),
    }
}

fn line(device: &Device) -> String {
    format!(
        "{:<14} {:>10}  {:<5?} {}",
        device.path.display(),
        size(device.size),
        device.bus,
        device.title()
    )
}

fn ask_for_device(system: &System, needed: u64) -> Result<PathBuf> {
    let offered = choose::candidates(system, needed);
    if offered.is_empty() {
        return Err(Problem::refused(format!(
            "choosing a disk: there is no removable disk of at least {} that is not in use; plug one in, or name a disk",
            size(needed)
        )));
    }
    if !io::stdin().is_terminal() {
        return Err(Problem::error(
            Kind::Declined,
            "choosing a disk: there is nobody to ask; name the disk, and give --yes",
        ));
    }
    for (n, device) in offered.iter().enumerate() {
        eprintln!("  {}  {}", n + 1, line(device));
    }
    let answer = ask(&format!(
        "Write to which disk? (1–{}, Enter: none) ",
        offered.len()
    ))?;
    let chosen = answer.parse::<usize>().ok();
    let device = chosen.and_then(|n| offered.get(n.checked_sub(1)?));
    match device {
        Some(device) => Ok(device.path.clone()),
        None => Err(Problem::error(Kind::Declined, "no disk was chosen")),
    }
}

fn plans(system: &System, image: &Image, devices: &[PathBuf], args: &Args) -> Result<Vec<Plan>> {
    let mut plans: Vec<Plan> = Vec::new();
    for path in devices {
        let chosen = choose::named(system, path, image.size, args.force)?;
        plan::check_sectors(image, &chosen.path, system.sector_size(&chosen.path))?;
        if plans.iter().any(|plan| plan.chosen.path == chosen.path) {
            return Err(Problem::refused(format!(
                "{} is named twice",
                chosen.path.display()
            )));
        }
        plans.push(plan::plan(image, chosen, &args.save_partlabel)?);
    }
    Ok(plans)
}

/// The first-boot file of each target.
fn rendered(all: &[FirstBoot], image: &Image, targets: usize) -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for n in 0..targets {
        let Some(one) = all.get(n).or(all.last()).filter(|one| !one.is_empty()) else {
            files.push(Vec::new());
            continue;
        };
        // An image that cannot take them is refused before anything is written.
        settings::firmware(&image.head)?;
        let file = bsp::first_boot::render(one);
        files.push(file.map_err(|text| anyhow::anyhow!("first-boot settings: {text}"))?);
    }
    Ok(files)
}

fn reporter(context: &Context, args: &Args) -> Result<Reporter> {
    match (args.json, context.progress) {
        (true, _) => Reporter::to_fd(args.json_fd),
        (false, Progress::Shown) => Ok(Reporter::People),
        (false, Progress::Quiet) => Ok(Reporter::Nobody),
    }
}

fn confirm(args: &Args, plans: &[Plan]) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Problem::error(
            Kind::Declined,
            "there is nobody to ask whether this is right; give --yes to write without asking",
        ));
    }
    let what = match plans {
        [one] => one.chosen.path.display().to_string(),
        all => format!("all {} disks", all.len()),
    };
    let kept = match args.save_partlabel.as_slice() {
        [] => "Everything on".to_string(),
        labels => format!("Everything but {} on", labels.join(", ")),
    };
    match ask(&format!("{kept} {what} will be lost. Type yes to write: "))?.as_str() {
        "yes" => Ok(()),
        _ => Err(Problem::error(
            Kind::Declined,
            "not confirmed; nothing was written",
        )),
    }
}

fn ask(question: &str) -> Result<String> {
    eprint!("{question}");
    io::stderr().flush().context("asking")?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("reading the answer")?;
    Ok(answer.trim().to_string())
}

/// Reads a file that the user named.
fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
