//! The command line: one file a subcommand. It reads arguments, calls the library and prints; it never
//! decides anything that a test would want to call.

mod boards;
mod build;
mod diff;
mod exit;
mod flash;
mod keys;
mod layout;
mod new;
mod print;
mod release;
mod run;
mod schema;
mod serve;
mod show;
mod test;
mod update_lock;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::progress::Progress;
use crate::project::Project;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a file you wrote is wrong (product.toml, a board file).
`builder flash` has more; see its help.

Environment:
  TREELINE_CACHE   where downloads and stages are kept (default ~/.cache/treeline)
  TREELINE_AGENT   the device-agent program to build in (default: found beside this program);
                   TREELINE_AGENT_ARM64 and the like: the one for an architecture";

/// Builds immutable operating systems for devices and keeps them up to date.
#[derive(Debug, Parser)]
#[command(name = "builder", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    /// Works as if started in this directory; product.toml is looked for there and above
    #[arg(
        short = 'C',
        long = "directory",
        global = true,
        default_value = ".",
        value_name = "DIR"
    )]
    dir: PathBuf,
    /// Prints results and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new product: product.toml, overlay/, keys
    New(new::Args),
    /// Builds the product: a signed commit and disk images in out/
    Build(build::Args),
    /// Boots the product in QEMU, console in the terminal
    Run(run::Args),
    /// Writes the product to disks and cards, and verifies them
    Flash(Box<flash::Args>),
    /// Builds, signs, makes deltas and publishes a release in a channel
    Release(release::Args),
    /// Serves what is published over HTTPS, for development
    Serve(serve::Args),
    /// Renews product.lock from the archives as they are now and prints what changed
    UpdateLock(update_lock::Args),
    /// Shows where everything stands on the product's disk, and which devices in the field fit
    Layout(layout::Args),
    /// Prints what changed between two releases: packages and files
    Diff(diff::Args),
    /// Prints the description with every default, merged for a board
    Show(show::Args),
    /// Boots, updates, breaks and judges a virtual device
    Test(test::Args),
    /// Prints the JSON Schema of product.toml, or of board files
    Schema(schema::Args),
    /// Lists the boards
    Boards(boards::Args),
    /// Makes, shows, replaces and watches over a product's keys
    Keys(keys::Args),
}

/// What every subcommand is given.
struct Context {
    dir: PathBuf,
    progress: Progress,
}

impl Context {
    fn project(&self) -> Result<Project> {
        Project::load(&self.dir)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context {
        dir: cli.dir,
        progress: if cli.quiet {
            Progress::Quiet
        } else {
            Progress::Shown
        },
    };
    let result = match cli.command {
        Command::New(args) => new::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::UpdateLock(args) => update_lock::run(&context, &args),
        Command::Test(args) => test::run(&context, &args),
        Command::Schema(args) => schema::run(&args),
        Command::Boards(args) => boards::run(&context, &args),
        // Its `status` has an exit code of its own.
        Command::Keys(args) => match keys::run(&context, &args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Build(args) => build::run(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Flash(args) => flash::run(&context, &args),
        Command::Release(args) => release::run(&context, &args),
        Command::Serve(args) => serve::run(&context, &args),
        Command::Layout(args) => layout::run(&context, &args),
        Command::Diff(args) => diff::run(&context, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// clap would hand the global option's value, or its default, to the subcommand's.
    #[test]
    fn no_option_of_a_subcommand_has_the_id_of_a_global_one() {
        use clap::CommandFactory;
        let command = Cli::command();
        let global = |id: &clap::Id| {
            let mut all = command.get_arguments();
            all.any(|arg| arg.is_global_set() && arg.get_id() == id)
        };
        for sub in command.get_subcommands() {
            for arg in sub.get_arguments() {
                let (name, id) = (sub.get_name(), arg.get_id());
                assert!(!global(id), "{name} has an option `{id}` of its own");
            }
        }
    }
}
