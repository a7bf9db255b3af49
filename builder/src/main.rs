//! `builder`: the host program. Everything is in the library.

fn main() -> std::process::ExitCode {
    builder::cli::main()
}
